"""Rendering: deterministic, no secret's value, and a directory that is not ours stays as it is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from breakwater.cli import cli
from infra.environment import EnvironmentFault
from infra.kubernetes.names import STACK_SECRETS
from infra.kubernetes.render import files, manifests, write
from infra.topology import TopologyError
from tests.unit.infra.kubernetes.conftest import ROOT, shipped

Rendered = Callable[[str], list[dict[str, Any]]]


def test_two_renderings_are_equal_in_any_process(tmp_path: Path, rendered: Rendered) -> None:
    here = files(rendered("staging"))
    again = (
        "import sys; from pathlib import Path; from tests.unit.infra.kubernetes.conftest import shipped; "
        "from infra.kubernetes.render import files, manifests, write; "
        "write('staging', files(manifests(shipped('staging'))), Path(sys.argv[1]))"
    )
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", again, str(out)], check=True, env=environment, cwd=ROOT, capture_output=True)
    assert {path.name: path.read_text() for path in out.glob("*.yaml")} == here


def test_it_renders_after_another_event_loop_has_ended(rendered: Rendered) -> None:
    before = rendered("staging")
    asyncio.run(asyncio.sleep(0))
    assert manifests(shipped("staging")) == before


def test_one_object_to_a_file_in_the_order_of_application(rendered: Rendered) -> None:
    made = rendered("production")
    content = files(made)
    assert len(content) == len(made)
    assert list(content) == sorted(content)
    kinds = [yaml.safe_load(text)["kind"] for text in content.values()]
    assert kinds[0] == "Namespace"
    assert kinds.index("NetworkPolicy") < kinds.index("StatefulSet") < kinds.index("Job") < kinds.index("Deployment")


def test_secrets_are_references_and_each_is_used(rendered: Rendered) -> None:
    text = "\n".join(files(rendered("staging")).values())
    unused = [name for name in STACK_SECRETS if "${secrets:" + name + "}" not in text]
    assert unused == []
    for manifest in rendered("staging"):
        if manifest["kind"] != "Secret":
            assert "${secrets:" not in yaml.safe_dump(manifest)


def test_a_second_rendering_replaces_its_own_files_only(tmp_path: Path) -> None:
    write("unit", {"a.yaml": "1", "b.yaml": "2"}, tmp_path)
    write("unit", {"b.yaml": "3"}, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.yaml")} == {"b.yaml": "3"}


def test_a_directory_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(EnvironmentFault, match="is not empty and was not written by"):
        write("unit", {"a.yaml": "1"}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_another_environments_rendering_is_refused(tmp_path: Path) -> None:
    write("staging", {"a.yaml": "1"}, tmp_path)
    with pytest.raises(EnvironmentFault, match="holds the manifests of staging"):
        write("production", {"a.yaml": "2"}, tmp_path)


def test_a_stranger_among_our_files_is_refused(tmp_path: Path) -> None:
    write("unit", {"a.yaml": "1"}, tmp_path)
    (tmp_path / "extra.yaml").write_text("kind: Pod")
    with pytest.raises(EnvironmentFault, match=r"holds extra\.yaml"):
        write("unit", {"a.yaml": "1"}, tmp_path)


def test_a_damaged_mark_is_no_mark(tmp_path: Path) -> None:
    (tmp_path / ".breakwater-render").write_text("{")
    with pytest.raises(EnvironmentFault, match="was not written by"):
        write("unit", {"a.yaml": "1"}, tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="choose another"):
        write("unit", {"a.yaml": "1"}, tmp_path / "file" / "below")


@pytest.mark.parametrize(("environment", "said"), [("local", "runs on local"), ("nowhere", "no environment 'nowhere'")])
def test_environments_without_manifests_are_refused(
    environment: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREAKWATER_PROJECT", str(ROOT))
    for command in ("render", "secrets"):
        result = CliRunner().invoke(cli, [command, environment, "--out", str(tmp_path / "out")])
        assert isinstance(result.exception, TopologyError)
        assert said in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_line_does_not_import_pulumi() -> None:
    said = "import breakwater.cli, sys; print([name for name in sys.modules if name.partition('.')[0] == 'pulumi'])"
    done = subprocess.run([sys.executable, "-c", said], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
