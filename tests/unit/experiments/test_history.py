"""Merging what clients wrote, whole or torn by a kill, and reading it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from experiments.errors import RunFileError
from experiments.history import FinalReads, History, Kinds, merge, write_final
from loadtests.record import SCHEMA, Durability, Error, Kind, Recorder, recording


def _add(recorder: Recorder, op_id: int, sched_ns: int) -> None:
    recorder.add(
        op_id=op_id, kind=Kind.WRITE, shard=1, key=op_id, value=7, sched_ns=sched_ns, start_ns=sched_ns + 1,
        end_ns=sched_ns + 2, durability=Durability.OK, available=True, error=Error.NONE, server=3, timeline=2,
    )  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    return tmp_path


def _part(run_dir: Path, name: str, times: list[list[int]]) -> Path:
    """A closed part with one batch for each list of scheduled times."""
    path = run_dir / "parts" / name
    with recording(path, process=1) as recorder:
        for batch in times:
            for at in batch:
                _add(recorder, at, at)
            recorder.flush()
    return path


def test_merge_sorts_parts_by_scheduled_time_and_keeps_the_schema(run_dir: Path) -> None:
    _part(run_dir, "a.arrow", [[30, 10], [50]])
    _part(run_dir, "b.arrow", [[20, 40]])

    merged = merge(run_dir)

    assert (merged.rows, merged.parts, merged.torn) == (5, 2, ())
    with pa.ipc.open_file(run_dir / "history.arrow") as reader:
        assert reader.schema.equals(SCHEMA)
    history = History.load(run_dir)
    assert history.sched_ns.tolist() == [10, 20, 30, 40, 50]
    assert list(history.kind) == ["write"] * 5
    assert history.latency_ns.tolist() == [2] * 5


def test_kinds_are_chosen_by_name_one_or_several(run_dir: Path) -> None:
    kinds = Kinds(np.array([0, 2, 1, 0], dtype=np.int8), ("write", "read", "write_api"))
    assert list(kinds) == ["write", "write_api", "read", "write"]
    assert kinds.among(kind.value for kind in (Kind.WRITE, Kind.WRITE_API)).tolist() == [True, True, False, True]
    assert kinds.among(["predict"]).tolist() == [False] * 4
    assert list(kinds[np.array([True, False, True, False])]) == ["write", "read"]
    assert kinds[1] == "write_api"


def test_a_part_without_its_end_mark_keeps_its_batches_and_is_named(run_dir: Path) -> None:
    path = _part(run_dir, "a.arrow", [[10], [20]])
    path.write_bytes(path.read_bytes()[:-8])

    merged = merge(run_dir)

    assert merged.rows == 2
    assert [part.name for part in merged.torn] == ["a.arrow"]
    assert History.load(run_dir).torn == merged.torn


def test_a_part_torn_within_a_batch_keeps_the_batches_before(run_dir: Path) -> None:
    path = _part(run_dir, "a.arrow", [[10], [20]])
    path.write_bytes(path.read_bytes()[:-40])

    merged = merge(run_dir)

    assert merged.rows == 1
    assert merged.torn[0].rows == 1


@pytest.mark.parametrize("kept", [0, 3, 100])
def test_a_part_torn_before_its_first_batch_gives_no_row(run_dir: Path, kept: int) -> None:
    path = _part(run_dir, "a.arrow", [[10]])
    path.write_bytes(path.read_bytes()[:kept])

    merged = merge(run_dir)

    assert merged.rows == 0
    assert len(merged.torn) == 1


def test_every_cut_of_a_part_is_survived(run_dir: Path) -> None:
    path = _part(run_dir, "a.arrow", [[10], [20], [30]])
    whole = path.read_bytes()
    for kept in range(0, len(whole), 37):
        path.write_bytes(whole[:kept])
        assert merge(run_dir).rows <= 3


def test_a_part_of_another_schema_is_refused(run_dir: Path) -> None:
    table = pa.table({"op_id": [1]})
    with pa.OSFile(str(run_dir / "parts" / "x.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)

    with pytest.raises(RunFileError, match="another schema"):
        merge(run_dir)


def test_no_parts_merge_to_an_empty_history(run_dir: Path) -> None:
    assert merge(run_dir).rows == 0
    assert len(History.load(run_dir)) == 0


def test_a_missing_or_broken_history_says_so(run_dir: Path) -> None:
    with pytest.raises(RunFileError, match=r"history\.arrow is missing"):
        History.load(run_dir)
    (run_dir / "history.arrow").write_bytes(b"ARROW1 but then nothing")
    with pytest.raises(RunFileError, match="not a whole Arrow IPC file"):
        History.load(run_dir)


def test_final_reads_tell_an_empty_shard_from_an_unread_one(run_dir: Path) -> None:
    write_final(run_dir, {0: [(1, 10), (2, 20)], 1: []})

    final = FinalReads.load(run_dir)

    assert final.of_shard(0) == {1: 10, 2: 20}
    assert final.of_shard(1) == {}
    assert final.shards_read == {0, 1}
    assert 2 not in final.shards_read
