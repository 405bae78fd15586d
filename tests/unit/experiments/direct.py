"""What a checker is given, made directly: a run with one fault at second 0, events by second, and a shipped promise."""

from __future__ import annotations

from functools import cache
from typing import Any

from experiments.record import FaultRecord, ProcessId, Rates, RunRecord, ShardRecord, WallAnchor, Windows
from experiments.scenario import Promise, Scenario
from services.contracts.events import Event
from tests.unit.experiments.synthetic_run import CLOCK, ORIGIN, SCENARIO, S

MEMBERS = ("api-0", "api-1", "h2o-0", "h2o-1", "h2o-2", "edge-0")
AT = ORIGIN + 30 * S
"""The fault."""


def at(second: float) -> int:
    """That second after the fault (negative: before it), on the run's clock."""
    return AT + round(second * S)


def event(second: float, source: str, kind: str, member: str | None = None, **data: Any) -> Event:
    return Event(at(second), CLOCK, source, member, kind, data)


@cache
def promise(scenario: str, name: str) -> Promise:
    """A promise of a shipped scenario file, such as `s03.yaml`."""
    found = Scenario.read(SCENARIO.with_name(scenario)).breakwater.promises
    return next(each for each in found if each.id == name)


def run(
    member: str = "h2o-1",
    *,
    method: str = "SIGKILL",
    proven: bool = True,
    fault_s: float = 30.0,
    recovery_s: float = 5.0,
    rates: Rates | None = None,
) -> RunRecord:
    """Thirty seconds of baseline, the fault for `fault_s`, and what follows."""
    fault = FaultRecord(
        component=member.rsplit("-", 1)[0],
        shard=None,
        member=member,
        scope="server",
        method=method,
        hold=False,
        t_ns=AT,
        pids=(ProcessId(pid=4000, start_ticks=99000, name="java"),),
        proven=proven,
        evidence="seen by a test",
        old_timeline=None,
    )
    return RunRecord(
        run_id="1f",
        environment="unit",
        scenario="S-00",
        variant="any",
        seed=7,
        clock_id=CLOCK,
        wall_anchor=WallAnchor(monotonic_ns=ORIGIN, unix_ns=1_795_257_067 * S),
        commit=None,
        members=MEMBERS,
        shards=(ShardRecord(shard=0, members=()),),
        rates=rates or Rates(predict=100, write=0, write_api=0, read=0),
        windows=Windows(
            undisturbed=(at(-30), AT),
            baseline=(at(-30), AT),
            fault=(AT, at(fault_s)),
            recovery=(at(fault_s), at(fault_s + recovery_s)),
        ),
        fault=fault,
        completed=True,
    )
