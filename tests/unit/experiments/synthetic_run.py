"""A run directory made by arithmetic, with each defect that a judge must see, as files of the real formats."""

from __future__ import annotations

import bisect
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.history import merge, write_final
from experiments.record import (
    FaultRecord,
    ProcessId,
    Rates,
    RunRecord,
    ShardRecord,
    WallAnchor,
    Windows,
)
from experiments.scenario import SCENARIO_FILE, Scenario
from loadtests.record import NO_SHARD, Durability, Error, Kind, recording
from services.contracts.events import Event

S = 1_000_000_000
MS = 1_000_000
ORIGIN = 5_000 * S
KILL = ORIGIN + 30 * S
CLOCK = "monotonic:0a1b2c3d"
SCENARIO = Path(__file__).parents[3] / "experiments" / "scenarios" / "s01.yaml"
REPLICAS = ("api-0", "api-1")
MEMBERS = (*(f"shard-{shard}-{member}" for shard in (0, 1) for member in (0, 1, 2)), *REPLICAS)
OLD, NEW, THIRD = "shard-1-2", "shard-1-0", "shard-1-1"


@dataclass
class Synthetic:
    """What happened. The defaults are a run in which every promise is kept. Times in seconds, after the kill."""

    variant: str = "server-killed"
    baseline_s: float = 30.0
    fault_s: float = 20.0
    recovery_s: float = 40.0
    predict_rate: float = 100.0
    write_rate: float = 100.0
    write_api_rate: float = 50.0
    read_rate: float = 50.0
    read_api_rate: float = 20.0
    outage_s: float = 0.24
    held_s: float = 1.0
    """So long a client holds a write, hoping for a primary, before it gives up."""
    read_outage_s: float = 0.05
    detect_s: float | None = 0.041
    promote_s: float | None = 0.213
    route_s: float | None = 0.226
    streaming_s: float | None = 6.4
    proven: bool = True
    fault: bool = True
    steady_before: bool = True
    steady_after: bool = True
    failed_rollback: bool = False
    journal: bool = True
    final: bool = True
    completed: bool = True
    lose: int = 0
    stray: int = 0
    failed_present: int = 0
    wrong_value: int = 0
    torn: bool = False
    torn_journal: bool = False
    failed_action: bool = False
    started: bool = True
    final_shards: tuple[int, ...] = (0, 1)
    stalled_s: tuple[float, float] | None = None
    """Writers send nothing between these two times."""
    stalled_silently: bool = False
    """They do not record that either."""
    reads_stalled_s: tuple[float, float] | None = None
    frozen_s: tuple[float, float] | None = None
    """The edge answers nothing between these two times."""
    settling_s: float = 0.0
    """The first part of it in which the platform was not steady yet."""
    baseline_bad: int = 0
    baseline_noise: float = 1.0
    """Latency of the baseline's second half over its first half."""
    held_up_s: tuple[float, float] | None = None
    """What is due between these two times is answered at their end, and still in good time."""
    machine_stalled_s: tuple[float, float] | None = None
    """The disk answers nobody between these two times."""
    elected_s: float | None = None
    """When a new term of etcd's was seen, which half a second before was not there yet."""
    foreign_clock: bool = False
    third_streams_s: float | None = 0.9
    """When the replica that was not promoted follows the new primary."""
    duplicates: int = 0
    stale: int = 0
    """Reads through the API after the fault that find nothing under a key acknowledged half a second before."""
    stated_us: int = 20_000
    """How old reads through the API say that they may be."""
    outdated: int = 0
    """Writes that the old primary acknowledges long after its successor did."""
    counts: bool = True
    """The replicas' own counts are noted."""
    descriptors_grown: int = 2
    restarted: bool = False
    pools_back_s: float | None = 4.0
    """When the pools of the struck shard have closed what the backlog opened, after the fault's end; None: never."""
    pools_seen: bool = True
    seed: int = 4711
    keys: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: {0: [], 1: []})
    failed: list[tuple[int, int]] = field(default_factory=list)
    told: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: {0: [], 1: []})
    """End, key and value of the writes that the API acknowledged, by shard."""

    def write(self, run_dir: Path) -> Path:
        """Make the run directory; returns it."""
        (run_dir / "parts").mkdir(parents=True)
        self._history(run_dir)
        if self.torn:
            part = run_dir / "parts" / "read-0.arrow"
            part.write_bytes(part.read_bytes()[:-8])
        merge(run_dir)
        self.record().write(run_dir)
        scenario = Scenario.read(SCENARIO).document()
        (run_dir / SCENARIO_FILE).write_text(json.dumps(scenario))
        (run_dir / "events.jsonl").write_bytes(b"".join(event.to_line() for event in self._events()))
        if self.final:
            self._final(run_dir)
        if self.journal:
            journal = json.dumps(self._journal())
            (run_dir / "journal.json").write_text(journal[:100] if self.torn_journal else journal)
        return run_dir

    def record(self) -> RunRecord:
        end = self.fault_s
        fault = FaultRecord(
            component="postgres/shard-1",
            shard=1,
            member=OLD,
            scope="member" if self.variant == "member-killed" else "server",
            method="SIGKILL",
            hold=True,
            t_ns=KILL,
            pids=tuple(ProcessId(pid=4000 + n, start_ticks=99000 + n, name="postgres") for n in range(14)),
            proven=self.proven,
            evidence="14 of 14 processes gone, connections refused" if self.proven else "every process still runs",
            old_timeline=1,
        )
        return RunRecord(
            run_id="20261121T103107-S-01-server-killed",
            environment="local",
            scenario="S-01",
            variant=self.variant,
            seed=self.seed,
            clock_id=CLOCK,
            wall_anchor=WallAnchor(monotonic_ns=ORIGIN, unix_ns=1_795_257_067 * S),
            commit="3f9c2ab",
            members=MEMBERS,
            shards=tuple(ShardRecord(shard=n, members=MEMBERS[3 * n : 3 * n + 3]) for n in (0, 1)),
            rates=Rates(
                predict=self.predict_rate,
                write=self.write_rate,
                write_api=self.write_api_rate,
                read=self.read_rate,
                read_api=self.read_api_rate,
            ),
            windows=Windows(
                undisturbed=(KILL - int(self.baseline_s * S), KILL),
                baseline=(KILL - int((self.baseline_s - self.settling_s) * S), KILL),
                fault=(KILL, KILL + int(end * S)) if self.fault else None,
                recovery=(KILL + int(end * S), KILL + int((end + self.recovery_s) * S)) if self.fault else None,
            ),
            fault=fault if self.fault else None,
            completed=self.completed,
        )

    def _history(self, run_dir: Path) -> None:
        chance = random.Random(self.seed)  # noqa: S311 - a repeatable run, not a secret
        streams: list[tuple[Kind, int, float]] = [(Kind.PREDICT, -1, self.predict_rate)]
        for shard in (0, 1):
            streams += [
                (Kind.WRITE, shard, self.write_rate),
                (Kind.WRITE_API, shard, self.write_api_rate),
                (Kind.READ, shard, self.read_rate),
            ]
        streams += [(Kind.READ_API, shard, self.read_api_rate) for shard in (0, 1)]  # they ask for what is written
        for process, (kind, shard, rate) in enumerate(streams):
            with recording(run_dir / "parts" / f"{kind}-{max(shard, 0)}.arrow", process) as recorder:
                for row in self._stream(kind, shard, rate, process, chance):
                    recorder.add(**row)

    def _stream(self, kind: Kind, shard: int, rate: float, process: int, chance: random.Random) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        total = self.baseline_s + self.fault_s + self.recovery_s
        phase = chance.random()
        for number in range(int(rate * total)):
            at = KILL - int(self.baseline_s * S) + int((number + phase) / rate * S)
            to = shard if kind is not Kind.PREDICT else chance.choice((NO_SHARD, NO_SHARD, 0, 1))
            op_id = (process << 48) | number
            row = self._operation(kind, to, at, op_id, chance)
            if row["error"] is not Error.NOT_SENT or not self.stalled_silently:
                rows.append(row)
        return rows

    def _operation(self, kind: Kind, shard: int, at: int, op_id: int, chance: random.Random) -> dict[str, Any]:
        writing = kind in (Kind.WRITE, Kind.WRITE_API)
        median = {Kind.PREDICT: 2.2, Kind.READ: 1.6, Kind.READ_API: 2.0, Kind.WRITE: 5.5, Kind.WRITE_API: 8.0}[kind]
        took = median * chance.lognormvariate(0, 0.35)
        since = (at - KILL) / S
        if -self.baseline_s / 2 <= since < 0:
            took *= self.baseline_noise
        if self.held_up_s and self.held_up_s[0] <= since < self.held_up_s[1]:
            took += (self.held_up_s[1] - since) * 1000
        start = at + int(chance.uniform(0.02, 0.4) * MS)
        row: dict[str, Any] = {
            "op_id": op_id, "kind": kind, "shard": shard, "key": op_id if writing else 0,
            "value": chance.randrange(2**31) if writing else 0, "sched_ns": at, "start_ns": start,
            "end_ns": start + int(took * MS), "durability": Durability.OK if writing else Durability.NONE,
            "available": True, "error": Error.NONE, "server": 3 * shard if shard != NO_SHARD else 65535,
            "timeline": (2 if since > 0 and shard == 1 else 1) if writing else 0,
        }  # fmt: skip
        if kind is Kind.READ_API:
            self._ask_for(row, shard, since)
        self._disturb(row, kind, since, chance)
        if writing and shard == 1 and since > self.fault_s and row["durability"] is Durability.OK and self.outdated:
            self.outdated -= 1
            row["timeline"] = 1
        if row["durability"] is Durability.OK:
            self.keys[shard].append((row["key"], row["value"]))
            if kind is Kind.WRITE_API:
                self.told[shard].append((row["end_ns"], row["key"], row["value"]))
        elif row["durability"] is Durability.FAIL:
            self.failed.append((row["key"], row["value"]))
        return row

    def _ask_for(self, row: dict[str, Any], shard: int, since: float) -> None:
        """The newest write that was acknowledged half a second before; nothing where there is none."""
        row["timeline"] = self.stated_us
        known = self.told[shard]
        at = bisect.bisect_left(known, (row["start_ns"] - S // 2,))
        if at:
            _, row["key"], row["value"] = known[at - 1]
        if self.stale and shard == 1 and since > 1 and at:
            self.stale -= 1
            row["value"] = 0

    def _disturb(self, row: dict[str, Any], kind: Kind, since: float, chance: random.Random) -> None:
        writing = kind in (Kind.WRITE, Kind.WRITE_API)
        outage = self.outage_s if writing else self.read_outage_s
        edge = kind in (Kind.PREDICT, Kind.WRITE_API, Kind.READ_API)
        stalled = self.stalled_s if writing else self.reads_stalled_s
        if stalled and stalled[0] <= since < stalled[1]:
            self._fail(row, Error.NOT_SENT, 0.0, Durability.FAIL if writing else Durability.NONE)
        elif self.frozen_s and edge and self.frozen_s[0] <= since < self.frozen_s[1]:
            wait = (self.frozen_s[1] - since) * 1000
            self._fail(row, Error.TIMEOUT, wait, Durability.UNKNOWN if writing else Durability.NONE)
        elif self.baseline_bad and since < -1 and kind is Kind.PREDICT:
            self.baseline_bad -= 1
            self._fail(row, Error.HTTP_5XX, 3.0, Durability.NONE)
        elif self.fault and row["shard"] == 1 and -0.004 <= since < outage:
            dying = since < 0.004
            wait = outage - since
            if writing and dying:
                self._fail(row, Error.DISCONNECTED, 4.0 + chance.uniform(0.3, 2.0), Durability.UNKNOWN)
            elif writing and wait < self.held_s:
                row["end_ns"] += int(wait * S)
            elif writing:
                self._fail(row, Error.TIMEOUT, 1000 * self.held_s, Durability.FAIL)
            else:
                self._fail(row, Error.REFUSED, 4.0 + chance.uniform(0.3, 2.0), Durability.NONE)

    @staticmethod
    def _fail(row: dict[str, Any], error: Error, took_ms: float, durability: Durability) -> None:
        row.update(
            available=False, error=error, durability=durability, end_ns=row["start_ns"] + int(took_ms * MS), timeline=0
        )

    def _events(self) -> list[Event]:
        def event(after_s: float, source: str, kind: str, member: str | None = None, **data: Any) -> Event:
            return Event(KILL + int(after_s * S), CLOCK, source, member, kind, data)

        events = [event(-self.baseline_s - 2, "run", "load_started"), event(-self.baseline_s, "run", "baseline")]
        if self.machine_stalled_s:
            begin, end = self.machine_stalled_s
            events.append(event(begin, "machine", "stalled", what="disk", ns=int((end - begin) * S)))
        if self.elected_s is not None:
            since_ns = KILL + int((self.elected_s - 0.5) * S)
            events.append(event(self.elected_s, "etcd", "elected", "etcd-1", term=5, since_ns=since_ns))
        if not self.fault:
            return events
        events += [event(0, "run", "fault"), event(0.0, "fault", "killed", OLD, shard=1)]
        if self.proven:
            events.append(event(0.031, "fault", "proven", OLD, evidence="14 of 14 processes gone"))
            events.append(event(0.032, "warden", "gone", OLD, processes=14))
        if self.detect_s is not None:
            if self.variant == "server-killed":
                events.append(event(self.detect_s - 0.002, "warden", "released", OLD, revision=812))
            events.append(event(self.detect_s, "etcd", "leader_deleted", OLD, shard=1, revision=812))
            events.append(event(self.detect_s + 0.021, "etcd", "leader_set", NEW, shard=1, revision=815))
        if self.promote_s is not None:
            events.append(event(self.promote_s, "prober", "writable", NEW, shard=1, timeline=2))
            follows = [] if self.third_streams_s is None else [self.third_streams_s]
            events += [event(at, "prober", "streaming", THIRD, shard=1, timeline=2, lag_bytes=0) for at in follows]
        if self.route_s is not None:
            events.append(event(self.route_s, "router", "routed", NEW, shard=1, timeline=2, connect_ns=4_200_000))
        events.append(event(self.fault_s, "run", "recovery"))
        if self.started:
            events.append(event(self.fault_s, "fault", "started", OLD))
        if self.streaming_s is not None:
            at = self.fault_s + self.streaming_s
            events.append(event(at, "prober", "streaming", OLD, shard=1, timeline=2, lag_bytes=0))
        end = self.fault_s + self.recovery_s
        events += self._counts(end) if self.counts else []
        events += self._pools() if self.pools_seen else []
        events += [event(end + 0.1, "run", "final_reads"), event(end + 0.9, "run", "finished")]
        if self.foreign_clock:
            events.append(Event(KILL, "monotonic:ffffffff", "warden", OLD, "watching", {}))
        return events

    def _counts(self, end_s: float) -> list[Event]:
        """What each replica says of itself before the fault and after the recovery."""
        events = []
        for when, at, more in (("before", -self.baseline_s, 0), ("after", end_s, self.descriptors_grown)):
            data = {
                "pings": 20.0 * (at + 1000),
                "blocked": 0.0,
                "descriptors": 80.0 + more,
                "started": 2.0 if when == "after" and self.restarted else 1.0,
            }
            events += [Event(KILL + int(at * S), CLOCK, "loop", member, when, data) for member in REPLICAS]
        return events

    def _pools(self) -> list[Event]:
        """Two connections each; the struck shard's writes have none in the outage, then twice as many for a while."""
        changes: list[tuple[float, tuple[int, int]]] = [(-self.baseline_s - 3, (2, 0)), (0.5, (0, 2)), (1.5, (4, 0))]
        if self.pools_back_s is not None:
            changes.append((self.fault_s + self.pools_back_s, (2, 0)))
        return [
            Event(
                KILL + int(at * S), CLOCK, "pools", member, "sized", {"shard-0-write": [2, 0], "shard-1-write": [*size]}
            )
            for member in REPLICAS
            for at, size in changes
        ]

    def _final(self, run_dir: Path) -> None:
        rows = {shard: list(keys) for shard, keys in self.keys.items()}
        for _ in range(self.lose):
            rows[1].pop(len(rows[1]) // 3)
        rows[0] += [(2**62 + n, n) for n in range(self.stray)]
        rows[1] += self.failed[: self.failed_present]
        rows[0] += rows[0][: self.duplicates]
        for at in range(self.wrong_value):
            key, value = rows[1][at]
            rows[1][at] = (key, value ^ 1)
        write_final(run_dir, {shard: rows[shard] for shard in self.final_shards})

    def _journal(self) -> dict[str, Any]:
        def activity(name: str, status: str = "succeeded") -> dict[str, Any]:
            return {"activity": {"type": "action", "name": name}, "status": status, "output": None}

        return {
            "chaoslib-version": "1.44.0",
            "status": "completed",
            "deviated": not self.steady_after,
            "steady_states": {
                "before": {"steady_state_met": self.steady_before, "probes": []},
                "after": {"steady_state_met": self.steady_after, "probes": []},
                "during": [],
            },
            "run": [
                activity("kill the primary", "failed" if self.failed_action else "succeeded"),
                activity("wait"),
                activity("start the old primary"),
            ],
            "rollbacks": [activity("start what is down", "failed" if self.failed_rollback else "succeeded")],
        }
