"""run.json: strict, round-tripping, refusing what contradicts itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from experiments.errors import RunFileError
from experiments.record import RunRecord, WallAnchor, Windows
from tests.unit.experiments.synthetic_run import Synthetic


def test_round_trip(tmp_path: Path) -> None:
    record = Synthetic().record()
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == 1


def test_a_run_of_before_versions_were_kept_is_read(tmp_path: Path) -> None:
    document = Synthetic().record().model_dump(mode="json", by_alias=True)
    del document["versions"]
    (tmp_path / "run.json").write_text(json.dumps(document))
    assert RunRecord.read(tmp_path).versions == {}


def test_a_directory_without_run_json_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="not a run directory"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("sed", 1), ("seed", "4711"), ("windows", {"fault": [2, 1]})])
def test_what_does_not_fit_is_refused(tmp_path: Path, key: str, value: object) -> None:
    document = Synthetic().record().model_dump(mode="json", by_alias=True) | {key: value}
    (tmp_path / "run.json").write_text(json.dumps(document))
    with pytest.raises(RunFileError, match=key):
        RunRecord.read(tmp_path)


def test_a_fault_on_a_shard_that_does_not_exist_is_refused() -> None:
    document = Synthetic().record().model_dump(mode="json", by_alias=True)
    document["fault"]["shard"] = 9
    with pytest.raises(ValidationError, match="shard 9"):
        RunRecord.model_validate_json(json.dumps(document))


def test_windows_span_what_was_reached() -> None:
    assert Windows().whole is None
    assert Windows(baseline=(5, 9)).whole == (5, 9)
    assert Windows(baseline=(5, 9), fault=(9, 12), recovery=(12, 20)).whole == (5, 20)


def test_the_anchor_turns_monotonic_into_wall_time() -> None:
    assert WallAnchor(monotonic_ns=100, unix_ns=1_000_000).unix_ns_at(130) == 1_000_030
