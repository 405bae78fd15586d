"""The benchmark of the judge: its made run is one that the judge believes, and one that it finds a loss in."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.judging import judge, make_run
from experiments.evidence import EVENTS_FILE
from experiments.history import FINAL_FILE, HISTORY_FILE
from loadtests.record import SCHEMA
from services.contracts.events import read_events

ROWS = 40_000


def events_without(run_dir: Path, source: str) -> None:
    path = run_dir / EVENTS_FILE
    path.write_bytes(b"".join(e.to_line() for e in read_events(path) if e.source != source))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", ROWS)
    return tmp_path / "run"


def test_a_made_run_keeps_every_promise(run_dir: Path) -> None:
    told = judge(run_dir)
    assert told["not_true"] == {}
    assert "was read back" in told["lost"]
    assert told["bytes"] > 0


def test_a_row_that_is_gone_is_found_among_all_of_them(run_dir: Path) -> None:
    with pa.OSFile(str(run_dir / FINAL_FILE), "rb") as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
    with pa.OSFile(str(run_dir / FINAL_FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.slice(1))
    told = judge(run_dir)
    assert list(told["not_true"]) == ["lost-writes"]
    assert told["lost"].startswith("1 acknowledged write of ")


def test_a_read_that_found_nothing_is_found_among_all_of_them(run_dir: Path) -> None:
    """The reads through the API ask for what had been acknowledged before the age that they state, and say so."""
    with pa.OSFile(str(run_dir / HISTORY_FILE), "rb") as source, pa.ipc.open_file(source) as reader:
        columns = reader.read_all().to_pydict()
    asked = [at for at, kind in enumerate(columns["kind"]) if kind == "read_api" and columns["key"][at]]
    assert len(asked) > ROWS / 25
    columns["value"][asked[-1]] = 0
    with pa.OSFile(str(run_dir / HISTORY_FILE), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pydict(columns, schema=SCHEMA))
    told = judge(run_dir)
    assert list(told["not_true"]) == ["stale-reads"]
    assert told["not_true"]["stale-reads"].startswith("1 read of ")


def test_pools_are_judged_by_what_the_replicas_said(run_dir: Path) -> None:
    events_without(run_dir, "pools")
    assert list(judge(run_dir)["not_true"]) == ["pools"]
