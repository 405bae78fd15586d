"""warden.json: what cannot work is refused before anything is watched."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.postgres.errors import ConfigurationInvalid
from services.postgres.warden import load, main

GOOD: dict[str, Any] = {
    "member": "shard-0-1",
    "scope": "shard-0",
    "namespace": "/breakwater/local/patroni/",
    "etcd": ["http://127.0.0.1:2379"],
    "rest_url": "http://127.0.0.1:8008",
    "ttl_s": 20,
    "fence_margin_s": 8,
    "directory": "/state/members/shard-0-1",
}


def test_patroni_may_be_silent_for_the_ttl_less_the_margin(tmp_path: Path) -> None:
    path = tmp_path / "warden.json"
    path.write_text(json.dumps(GOOD))
    assert load(path).fence_after_s == 12.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fence_margin_s": 20}, "must be below ttl_s"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"etcd": []}, "etcd"),
        ({"ttl": 20}, "ttl"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "warden.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ConfigurationInvalid, match=message):
        load(path)


def test_a_missing_file_is_one_line_and_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "warden.json")]) == 2
    assert "render the member's configuration first" in capsys.readouterr().err
