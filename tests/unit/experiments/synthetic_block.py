"""A run of S-04 made by arithmetic: predictions only, one replica blocked, with each defect that a judge must see."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.history import merge, write_final
from experiments.record import FaultRecord, ProcessId, Rates, RunRecord, ShardRecord, WallAnchor, Windows
from experiments.scenario import SCENARIO_FILE, Scenario
from loadtests.record import NO_SHARD, Durability, Error, Kind, recording
from services.contracts.events import Event
from tests.unit.experiments.synthetic_run import CLOCK, MS, ORIGIN, SCENARIO, S

BLOCKED = SCENARIO.with_name("s04.yaml")
MEMBERS = ("api-0", "api-1", "edge-0")
VICTIM = "api-1"
BLOCK = ORIGIN + 20 * S


@dataclass
class Block:
    """What happened; the defaults keep every promise. Times in seconds after the block began, or after it ended."""

    variant: str = "one-replica"
    rate: float = 200.0
    baseline_s: float = 6.0
    block_s: float = 5.0
    recovery_s: float = 6.0
    breaker_s: float | None = 0.31
    out_s: float | None = 0.45
    back_s: float | None = 0.4
    """After the block's end."""
    watched: bool = True
    """Whether the probe saw the replica before the fault."""
    was_out: bool = False
    proven: bool = True
    lifted: bool = True
    bad: int = 0
    slow_ms: float = 0.0
    """What the rest waits longer while the replica is out."""
    foreign_clock: bool = False
    machine_stalled_s: float = 0.0
    """So long, from just after the block began."""

    def write(self, run_dir: Path) -> Path:
        (run_dir / "parts").mkdir(parents=True)
        self._history(run_dir)
        merge(run_dir)
        write_final(run_dir, {0: []})
        self._record().write(run_dir)
        (run_dir / SCENARIO_FILE).write_text(json.dumps(Scenario.read(BLOCKED).document()))
        (run_dir / "events.jsonl").write_bytes(b"".join(event.to_line() for event in self._events()))
        (run_dir / "journal.json").write_text(json.dumps(_JOURNAL))
        return run_dir

    def _record(self) -> RunRecord:
        lifted = BLOCK + int(self.block_s * S)
        fault = FaultRecord(
            component="api",
            shard=None,
            member=VICTIM,
            scope="loop",
            method="block-loop",
            hold=False,
            t_ns=BLOCK,
            pids=(ProcessId(pid=4000, start_ticks=99000, name="python"),),
            proven=self.proven,
            evidence="blocked for 5.000 s by its own clock; no answer to /healthz half-way",
            old_timeline=None,
        )
        before = (BLOCK - int(self.baseline_s * S), BLOCK)
        return RunRecord(
            run_id="1f",
            environment="local",
            scenario="S-04",
            variant=self.variant,
            seed=7,
            clock_id=CLOCK,
            wall_anchor=WallAnchor(monotonic_ns=ORIGIN, unix_ns=1_795_257_067 * S),
            commit="3f9c2ab",
            members=MEMBERS,
            shards=(ShardRecord(shard=0, members=()),),
            rates=Rates(predict=self.rate, write=0, write_api=0, read=0),
            windows=Windows(
                undisturbed=before,
                baseline=before,
                fault=(BLOCK, lifted) if self.lifted else None,
                recovery=(lifted, lifted + int(self.recovery_s * S)) if self.lifted else None,
            ),
            fault=fault,
            completed=True,
        )

    def _history(self, run_dir: Path) -> None:
        chance = random.Random(7)  # noqa: S311 - a repeatable run, not a secret
        bad = self.bad
        with recording(run_dir / "parts" / "locust.arrow", 1) as recorder:
            for number in range(int(self.rate * (self.baseline_s + self.block_s + self.recovery_s))):
                since = number / self.rate - self.baseline_s
                due = BLOCK + int(since * S)
                took_ms = 3 * chance.lognormvariate(0, 0.3)
                left = self.out_s if self.out_s is not None else 0.0
                if left <= since < self.block_s:
                    took_ms += self.slow_ms
                elif 0 <= since < left and number % 2:
                    took_ms = 720.0  # caught by the blocked replica, then asked of the other one
                failed = since > 1 and bad > 0
                bad -= failed
                recorder.add(
                    op_id=number,
                    kind=Kind.PREDICT,
                    shard=NO_SHARD,
                    key=0,
                    value=0,
                    sched_ns=due,
                    start_ns=due + MS // 10,
                    end_ns=due + int(took_ms * MS),
                    durability=Durability.NONE,
                    available=not failed,
                    error=Error.HTTP_5XX if failed else Error.NONE,
                )

    def _events(self) -> list[Event]:
        def event(after_s: float, source: str, kind: str, member: str | None = None, **data: Any) -> Event:
            return Event(BLOCK + int(after_s * S), CLOCK, source, member, kind, data)

        events = [event(0, "fault", "blocked", VICTIM), event(self.block_s, "fault", "lifted", VICTIM)]
        if self.watched:
            out = "out" if self.was_out else "in"
            events += [event(-9, "agent", "down" if self.was_out else "up", VICTIM), event(-9, "edge", out, VICTIM)]
        events += [event(0.2, "edge", "out", "api-0"), event(0.2, "agent", "down", "api-0")]
        if self.proven:
            events.append(event(self.block_s, "fault", "proven", VICTIM, evidence="silent"))
        if self.breaker_s is not None:
            events.append(event(self.breaker_s, "agent", "down", VICTIM))
            events.append(event(self.block_s + 0.2, "agent", "up", VICTIM))
        if self.out_s is not None:
            events.append(event(self.out_s, "edge", "out", VICTIM))
            if self.back_s is not None:
                events.append(event(self.block_s + self.back_s, "edge", "in", VICTIM))
        if self.machine_stalled_s:
            events.append(event(0.1, "machine", "stalled", None, what="processor", ns=int(self.machine_stalled_s * S)))
        if self.foreign_clock:
            events.append(Event(BLOCK, "monotonic:ffffffff", "edge", VICTIM, "out", {}))
        return events


_JOURNAL = {
    "status": "completed",
    "deviated": False,
    "steady_states": {"before": {"steady_state_met": True}, "after": {"steady_state_met": True}, "during": []},
    "run": [{"activity": {"name": "block the loop of one replica"}, "status": "succeeded"}],
    "rollbacks": [{"activity": {"name": "undo"}, "status": "succeeded"}],
}
