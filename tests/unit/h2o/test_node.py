"""What a node refuses to start from, and what jobs say of a process that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.h2o.errors import ConfigurationInvalid
from services.h2o.job import ERROR_FILE, _said
from services.h2o.node import NodeConfig, main


def config(directory: Path, **changes: Any) -> Path:
    content = NodeConfig.model_validate(
        {
            "environment": "unit",
            "name": "h2o-0",
            "nodes": [{"name": "h2o-0", "host": "127.0.0.1", "port": 24060}],
            "etcd": ["http://127.0.0.1:24000"],
            "status_port": 24080,
            "memory_mb": 1024,
            "heap_mb": 716,
            "directory": str(directory),
        }
    ).model_dump(mode="json")
    path = directory / "node.json"
    path.write_text(json.dumps(content | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "h2o-9"}, "h2o-9 is not among its own nodes"),
        ({"heap_mb": 1024}, "leaves no native memory"),
        ({"heap": 1}, "Extra inputs are not permitted"),
        ({"etcd": []}, "etcd"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, **changes)
    with pytest.raises(ConfigurationInvalid, match=named):
        NodeConfig.read(path)
    assert main([str(path)]) == 2
    assert named in capsys.readouterr().err


def test_what_an_attempt_said_is_one_line(tmp_path: Path) -> None:
    assert _said(tmp_path) == "it said nothing"
    (tmp_path / "log").write_text("Traceback\n  oh\n")
    assert _said(tmp_path) == "Traceback oh"
    (tmp_path / ERROR_FILE).write_text("H2O said:\nno memory")
    assert _said(tmp_path) == "H2O said: no memory"
    reason = "the cloud " + 100 * "runs another release, "
    (tmp_path / ERROR_FILE).write_text(reason)
    assert _said(tmp_path) == reason.strip(), "a reason is never cut"
