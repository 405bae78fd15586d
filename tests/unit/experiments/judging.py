"""Judge a synthetic run's promises by id, through the same files and functions as a real run's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from experiments.checkers.finding import Finding
from experiments.history import History
from experiments.verdict import Judgement, judge_run
from loadtests.record import SCHEMA, Durability, Error, Kind
from tests.unit.experiments.synthetic_run import Synthetic

SHORT: dict[str, Any] = {"baseline_s": 8.0, "fault_s": 6.0, "recovery_s": 7.0, "streaming_s": 2.5}
"""Long enough for every checker's least number of samples, short enough for a hundred tests."""


def judge_synthetic(**defects: Any) -> Judgement:
    return _judged(tuple(sorted({**SHORT, **defects}.items())))


@cache
def _judged(defects: tuple[tuple[str, Any], ...]) -> Judgement:
    """Judging is pure: the same run need not be made for each of its promises."""
    with tempfile.TemporaryDirectory() as directory:
        return judge_run(Synthetic(**dict(defects)).write(Path(directory) / "run"))


def finding(promise: str, **defects: Any) -> Finding:
    """What the named promise's checker says about a run with these defects."""
    return next(entry.finding for entry in judge_synthetic(**defects).judged if entry.promise.id == promise)


def history_of(rows: Sequence[dict[str, Any]]) -> History:
    """A history from rows that name only what matters."""
    blank: dict[str, Any] = {
        "process": 0, "kind": Kind.WRITE, "shard": 0, "key": 0, "value": 0, "sched_ns": 0, "start_ns": 0, "end_ns": 0,
        "durability": Durability.OK, "available": True, "error": Error.NONE, "server": 0, "timeline": 1,
    }  # fmt: skip
    full = [{**blank, "op_id": number, **row} for number, row in enumerate(rows)]
    full = [{**row, "kind": str(row["kind"])} for row in full]
    return History.from_table(pa.Table.from_pylist(full, schema=SCHEMA).sort_by("sched_ns"))
