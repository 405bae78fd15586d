"""The page says what the last run measured, in its place, and leaves what people wrote alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import judged, page, results, stack
from benchmarks.measured import BenchmarkError
from tests.unit.benchmarks.test_judged import GOOD, result

WHERE = {"day": "2026-01-02", "commit": "abc", "machine": "2 x CPU", "versions": ""}
PROMISE = judged.Promise("fast", "p95 1 ms", kept=True)


def test_a_part_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    written = tmp_path / "speed.md"
    written.write_text("before\n<!-- stack -->\nold\n<!-- end of stack -->\nafter\n")
    for _ in range(2):
        page.fill(written, "stack", WHERE, page.Grid(("step", "p95 ms"), (("a", "1"),)), [PROMISE])
    assert written.read_text() == (
        "before\n<!-- stack -->\nMeasured on 2026-01-02 at abc: 2 x CPU.\n\n"
        "| step | p95 ms |\n| --- | ---: |\n| a | 1 |\n\n"
        "- fast: **kept**, p95 1 ms.\n<!-- end of stack -->\nafter\n"
    )


def test_a_page_without_a_place_is_an_error(tmp_path: Path) -> None:
    written = tmp_path / "speed.md"
    with pytest.raises(BenchmarkError, match="no place for the stack"):
        page.require(written, ["stack"])
    written.write_text("<!-- stack -->\n")
    with pytest.raises(BenchmarkError, match="no place for the stack"):
        page.fill(written, "stack", WHERE, page.Grid((), ()), [])
    assert written.read_text() == "<!-- stack -->\n"


def test_grids_have_a_cell_for_each_column() -> None:
    step = stack.Step("cache hit", 0, 10_000, GOOD, dict.fromkeys(results.COSTS, 1.0), 170.0)
    contested = page.of_contest((result("ours", "ours", 5_000, 5), result("a", "peer", 1_000, 9)))
    for grid in (page.of_stack([step]), contested):
        assert {len(row) for row in grid.rows} == {len(grid.columns)}
    assert contested.rows[-1][-1] == "5.00 (5.00 to 5.00)"


def test_the_committed_page_has_a_place_for_each_part(tmp_path: Path) -> None:
    committed = Path(__file__).resolve().parents[3] / "docs" / "results" / "speed.md"
    copy = tmp_path / "speed.md"
    copy.write_text(committed.read_text())
    for part in ("comparison", "stack"):
        page.fill(copy, part, WHERE, page.Grid(("step",), ()), [PROMISE])
    assert copy.read_text().count("**kept**") >= 2
