"""Every run becomes one row: what was measured stands in it, what was not stays empty."""

from __future__ import annotations

import contextlib
import csv
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from breakwater import verification
from breakwater.rows import KILL_COLUMNS, RUN_COLUMNS, append_kill, append_run, kill_row, not_begun_row, run_row
from breakwater.soak import demand_faults_of_all, of_round, soak
from breakwater.verification import Finished, find_scenarios
from experiments.commit import commit
from experiments.planning import PreflightFailed
from experiments.run import Order
from experiments.scenario import Scenario
from infra import stack
from infra.environment import FaultRefused
from infra.local import runtime
from tests.unit.experiments.judging import judge_synthetic


def test_a_good_run_gives_its_figures() -> None:
    found = kill_row(judge_synthetic())
    assert set(found) == set(KILL_COLUMNS)
    assert (found["verdict"], found["lost"], found["not_true"]) == ("true", 0, "")
    layers = [found[f"{name}_ms"] for name in ("detect", "promote", "route", "client")]
    next_ack_s = found["next_ack_s"]
    assert isinstance(next_ack_s, float)
    assert abs(sum(layer for layer in layers if isinstance(layer, int | float)) - next_ack_s * 1000) < 1


def test_what_was_not_measured_stays_empty() -> None:
    found = kill_row(judge_synthetic(proven=False))
    assert found["verdict"] == "unknown"
    assert (found["next_ack_s"], found["detect_ms"], found["streaming_again_s"]) == (None, None, None)
    assert "fault-proven" in str(found["not_true"]).split()


def test_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "results" / "S-01.csv"
    append_kill(path, judge_synthetic())
    append_kill(path, judge_synthetic(proven=False))
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [entry["verdict"] for entry in rows] == ["true", "unknown"]
    assert rows[1]["next_ack_s"] == ""


def test_a_run_names_its_round_and_what_was_not_true(tmp_path: Path) -> None:
    assert set(run_row(judge_synthetic(), 3)) == set(RUN_COLUMNS)
    append_run(tmp_path / "soak.csv", judge_synthetic(), 3)
    append_run(tmp_path / "soak.csv", judge_synthetic(proven=False), 4)
    with (tmp_path / "soak.csv").open(newline="") as lines:
        good, unproven = csv.DictReader(lines)
    assert (good["round"], good["scenario"], good["verdict"], good["not_true"]) == ("3", "S-01", "true", "")
    assert int(good["promises"]) > 1
    assert (unproven["round"], unproven["verdict"]) == ("4", "unknown")
    assert "fault-proven" in unproven["not_true"].split()


def test_as_many_rounds_as_a_scenario_has_variants_run_each_of_them_once() -> None:
    scenarios = find_scenarios(["S-02", "S-06"])
    rounds = [{s.breakwater.id: variant for s, variant in of_round(scenarios, n)} for n in range(1, 6)]
    variants = list(scenarios[0].breakwater.variants)
    assert [chosen["S-02"] for chosen in rounds] == [*variants, variants[0]]
    assert {chosen["S-06"] for chosen in rounds} == {"everything"}


class Able:
    """An environment that allows faults on whatever is not `forbidden`, and can do whatever is not `lacking`."""

    def __init__(self, *, forbidden: frozenset[str] = frozenset(), lacking: frozenset[str] = frozenset()) -> None:
        self._forbidden, self._lacking = forbidden, lacking

    def admit_faults(self, component: str) -> None:
        if component in self._forbidden:
            raise FaultRefused(f"{component} is not allowed")

    def capabilities(self) -> frozenset[str]:
        faults = [found for scenario in every() if (found := scenario.breakwater.faults) is not None]
        variants = [names for found in faults for names in found.variants.values()]
        needed = itertools.chain.from_iterable([*(found.capabilities for found in faults), *variants])
        return frozenset(needed) - self._lacking


@cache
def every() -> list[Scenario]:
    return find_scenarios(["all"])


def orders(out: Path, rounds: range) -> list[Order]:
    return [Order("unit", each, variant, n, out) for n in rounds for each, variant in of_round(every(), n)]


def test_what_can_never_be_done_is_refused_before_the_first_round(tmp_path: Path) -> None:
    able: Any = Able(lacking=frozenset({"isolate"}))
    with pytest.raises(PreflightFailed) as refused:
        demand_faults_of_all(orders(tmp_path, range(1, 11)), able)
    assert str(refused.value).startswith("S-01-partial primary-isolated: unit cannot isolate; run it as root")
    assert str(refused.value).count("cannot isolate") == 1
    demand_faults_of_all(orders(tmp_path, range(1, 5)), able)  # the variant's round is the fifth
    everything: Any = Able()
    demand_faults_of_all(orders(tmp_path, range(1, 11)), everything)


def test_what_faults_may_not_touch_is_refused_with_each_variant_that_would(tmp_path: Path) -> None:
    able: Any = Able(forbidden=frozenset({"mage"}))
    with pytest.raises(PreflightFailed) as refused:
        demand_faults_of_all(orders(tmp_path, range(1, 3)), able)
    assert str(refused.value).startswith("S-06 everything: mage is not allowed; run it")


def test_a_run_that_was_not_begun_is_a_row_that_says_why(tmp_path: Path) -> None:
    (scenario,) = find_scenarios(["S-02"])
    row = not_begun_row(Order("unit", scenario, "redis-paused", 4, tmp_path), 4, "etcd does not answer")
    assert set(row) == set(RUN_COLUMNS)
    assert (row["verdict"], row["promises"], row["not_true"]) == ("unknown", 0, "etcd does not answer")
    assert (row["commit"], row["round"], row["seed"]) == (commit(), 4, 4)


def test_a_preflight_that_fails_ends_its_run_and_not_the_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(order: Order, tell: object) -> Finished:
        if order.scenario.breakwater.id == "S-02":
            raise PreflightFailed("redis, of all, is not healthy")
        return Finished(order.out, judge_synthetic(), order.out / "report.html")

    monkeypatch.setattr(verification, "verify", verify)
    monkeypatch.setattr(stack, "local_plan", lambda name: name)
    monkeypatch.setattr(stack, "open_environment", lambda _: Able())
    monkeypatch.setattr(runtime, "locked", contextlib.nullcontext)
    only = ["--scenario", "S-01", "--scenario", "S-02", "--rounds", "2"]
    rows = tmp_path / "rows"
    done = CliRunner().invoke(soak, ["unit", *only, "--out", str(tmp_path), "--rows", str(rows)])
    assert done.exit_code == 2, done.output
    with (rows / "soak.csv").open(newline="") as lines:
        found = [(row["scenario"], row["verdict"], row["not_true"]) for row in csv.DictReader(lines)]
    refused = ("S-02", "unknown", "redis, of all, is not healthy")
    assert found == [("S-01", "true", ""), refused, ("S-01", "true", ""), refused]
    assert len((rows / "S-01.csv").read_text().splitlines()) == 3
    assert done.output.count("2 runs") == 2
