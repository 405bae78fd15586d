"""The benchmark of the judge: its made run is one that the judge believes, and one that it finds a loss in."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.judging import judge, make_run
from experiments.history import FINAL_FILE

ROWS = 40_000


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", ROWS)
    return tmp_path / "run"


def test_a_made_run_breaks_no_promise(run_dir: Path) -> None:
    told = judge(run_dir)
    assert told["false"] == []
    assert "was read back" in told["lost"]
    assert told["bytes"] > 0


def test_a_row_that_is_gone_is_found_among_all_of_them(run_dir: Path) -> None:
    with pa.OSFile(str(run_dir / FINAL_FILE), "rb") as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
    with pa.OSFile(str(run_dir / FINAL_FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.slice(1))
    told = judge(run_dir)
    assert told["false"] == ["lost-writes"]
    assert told["lost"].startswith("1 acknowledged write of ")
