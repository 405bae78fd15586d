"""How long the judge takes for ten million operations, and how much memory: `python -m benchmarks.judging [--rows N]`.

A run of S-01 in which every promise is kept is made by arithmetic, as history, events, final reads and journal of the
real formats, and judged in a process of its own, whose peak of resident memory the kernel tells. Exit code 1 when it
needs more than it may, or when any promise is not `true`: a judge that gives up early would be quick.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import results
from breakwater.verification import find_scenario
from experiments.checkers.finding import Verdict
from experiments.commit import commit
from experiments.evidence import EVENTS_FILE, JOURNAL_FILE
from experiments.history import FINAL_FILE, FINAL_SCHEMA, HISTORY_FILE
from experiments.record import FaultRecord, ProcessId, Rates, RunRecord, ShardRecord, WallAnchor, Windows
from experiments.scenario import SCENARIO_FILE
from experiments.verdict import judge_run
from loadtests.keys import PROCESS_SHIFT, SHARD_SHIFT
from loadtests.record import NO_SHARD, SCHEMA, Durability, Kind
from services.contracts.events import Event

ROWS: Final = 10_000_000
MOST_S: Final = 60.0
MOST_BYTES: Final = 2 * 1024**3
SHARDS: Final = (0, 1)
NS: Final = 1_000_000_000
CLOCK: Final = "monotonic:00000000"
RATE: Final = 2_800
"""Operations a second: ten million are an hour's."""
OUTAGE_NS: Final = 250_000_000
STREAMS: Final = {Kind.PREDICT: 8, Kind.WRITE: 5, Kind.WRITE_API: 3, Kind.READ: 3, Kind.READ_API: 1}
"""Of so many operations in turn; those on shards go to one shard, and in the next turn to the other."""
TURN: Final = sum(STREAMS.values())
ASKED_NS: Final = 500_000_000
"""A read through the API asks for what was acknowledged so long before, and says that it is younger."""
MOST_STATED_US: Final = 200_000
OLD, NEW, THIRD = "shard-1-2", "shard-1-0", "shard-1-1"
REPLICAS: Final = ("api-0", "api-1")
POOLS: Final = tuple(f"shard-{shard}-{lane}" for shard in SHARDS for lane in ("write", "read"))
BACK_NS: Final = 3 * NS
"""After the fault's end the old primary streams, and the pools have closed what the outage opened."""
COLUMNS: Final = (*results.MACHINE, "rows", "seconds", "peak_mib")
RESULTS: Final = Path("docs/results/judging.csv")


@dataclass(frozen=True, slots=True)
class Times:
    """When the load began, the primary was killed and started again, and the load ended; ns."""

    start: int
    killed: int
    lifted: int
    ended: int

    @classmethod
    def of(cls, rows: int) -> Times:
        start, whole = 1_000 * NS, rows * NS // RATE
        killed = start + whole // 2
        return cls(start, killed, killed + whole // 10, start + whole)


def make_run(run_dir: Path, rows: int) -> None:
    """A run in which every promise is kept; an outage of OUTAGE_NS follows the fault on shard 1."""
    run_dir.mkdir(parents=True)
    times = Times.of(rows)
    table = _history(rows, times)
    with pa.OSFile(str(run_dir / HISTORY_FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    _final(run_dir, table)
    shards = tuple(f"shard-{shard}-{member}" for shard in SHARDS for member in range(3))
    fault = FaultRecord(
        component="postgres/shard-1",
        shard=1,
        member=OLD,
        scope="server",
        method="SIGKILL",
        hold=True,
        t_ns=times.killed,
        pids=(ProcessId(pid=1, start_ticks=1, name="postgres"),),
        proven=True,
        evidence="made by arithmetic",
        old_timeline=1,
    )
    each = {kind: RATE * share / TURN / len(SHARDS) for kind, share in STREAMS.items()}
    RunRecord(
        run_id="judging",
        environment="local",
        scenario="S-01",
        variant="server-killed",
        seed=1,
        clock_id=CLOCK,
        wall_anchor=WallAnchor(monotonic_ns=times.start, unix_ns=1_700_000_000 * NS),
        commit=None,
        members=(*shards, *REPLICAS),
        shards=tuple(ShardRecord(shard=n, members=shards[3 * n : 3 * n + 3]) for n in SHARDS),
        rates=Rates(
            predict=each[Kind.PREDICT] * len(SHARDS),
            write=each[Kind.WRITE],
            write_api=each[Kind.WRITE_API],
            read=each[Kind.READ],
            read_api=each[Kind.READ_API],
        ),
        windows=Windows(
            undisturbed=(times.start, times.killed),
            baseline=(times.start, times.killed),
            fault=(times.killed, times.lifted),
            recovery=(times.lifted, times.ended),
        ),
        fault=fault,
        completed=True,
    ).write(run_dir)
    (run_dir / SCENARIO_FILE).write_text(json.dumps(find_scenario("S-01").document()))
    (run_dir / EVENTS_FILE).write_bytes(b"".join(event.to_line() for event in _events(times)))
    met = {"steady_state_met": True}
    journal = {
        "status": "completed",
        "run": [{"activity": {"name": "kill the primary"}, "status": "succeeded"}],
        "steady_states": {"before": met, "after": met},
    }
    (run_dir / JOURNAL_FILE).write_text(json.dumps(journal))


def _history(rows: int, times: Times) -> pa.Table:
    """Evenly scheduled operations of all streams, in the order of their schedule."""
    chance = np.random.default_rng(1)
    number = np.arange(rows, dtype=np.int64)
    sched = times.start + number * NS // RATE
    kinds = [kind.value for kind in STREAMS]
    turn = chance.permutation(np.repeat(np.arange(len(kinds), dtype=np.int8), list(STREAMS.values())))
    which = turn[number % TURN]
    shard = (number // TURN % len(SHARDS)).astype(np.uint8)
    predict, writing, api, asking = (
        np.isin(which, [kinds.index(kind) for kind in of])
        for of in ([Kind.PREDICT], [Kind.WRITE, Kind.WRITE_API], [Kind.WRITE_API], [Kind.READ_API])
    )
    struck = (shard == 1) & (sched >= times.killed)
    begun = sched + chance.integers(20_000, 400_000, rows)
    took = (4_000_000 * chance.lognormal(0, 0.35, rows)).astype(np.int64)
    hit = writing & struck & (sched < times.killed + OUTAGE_NS)
    took[hit] += times.killed + OUTAGE_NS - sched[hit]
    # far apart as a run's own are, for what is looked up by a table of all keys would need none here
    own = (which.astype(np.int64) << PROCESS_SHIFT) | (shard.astype(np.int64) << SHARD_SHIFT) | (number + 1)
    key = np.where(writing, own, 0)
    value = np.where(writing, number % 1_000_003 + 1, 0)
    for of in SHARDS:
        known = (api & (shard == of)).nonzero()[0]
        known = known[np.argsort(begun[known] + took[known], kind="stable")]
        reads = (asking & (shard == of)).nonzero()[0]
        last = np.searchsorted(begun[known] + took[known], begun[reads] - ASKED_NS) - 1
        reads, last = reads[last >= 0], last[last >= 0]
        key[reads], value[reads] = key[known[last]], value[known[last]]
    shard[predict & (chance.random(rows) < 1 / 2)] = NO_SHARD
    timeline = np.where(writing, np.where(struck, 2, 1), 0)
    timeline[asking] = chance.integers(0, MOST_STATED_US, int(asking.sum()))
    columns = {
        "op_id": number.astype(np.uint64),
        "process": which.astype(np.uint16),
        "kind": pa.DictionaryArray.from_arrays(pa.array(which), pa.array(kinds)).cast(pa.string()),
        "shard": shard,
        "key": key.astype(np.uint64),
        "value": value.astype(np.uint64),
        "sched_ns": sched,
        "start_ns": begun,
        "end_ns": begun + took,
        "durability": np.where(writing, int(Durability.OK), int(Durability.NONE)).astype(np.uint8),
        "available": np.ones(rows, dtype=np.bool_),
        "error": np.zeros(rows, dtype=np.uint16),
        "server": np.where(shard == NO_SHARD, 65535, 3 * shard.astype(np.uint16)).astype(np.uint16),
        "timeline": timeline.astype(np.uint32),
    }
    return pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def _events(times: Times) -> Iterator[Event]:
    """What everybody observed; each replica's pools change every second."""

    def event(t_ns: int, source: str, kind: str, member: str | None = None, **data: Any) -> Event:
        return Event(t_ns, CLOCK, source, member, kind, data)

    for member in REPLICAS:
        for when, t_ns in (("before", times.start), ("after", times.ended)):
            yield event(t_ns, "loop", when, member, pings=1, blocked=0, descriptors=80, started=1)
    for t_ns in range(times.start - NS, times.ended, NS):
        sizes: dict[str, tuple[int, int]] = dict.fromkeys(POOLS, (2 + t_ns // NS % 2, 0))
        if times.killed <= t_ns < times.lifted + BACK_NS:
            sizes["shard-1-write"] = (8, 0)
        for member in REPLICAS:
            yield event(t_ns, "pools", "sized", member, **sizes)
    killed, seen = times.killed, {"shard": 1, "timeline": 2}
    yield event(killed, "fault", "killed", OLD, shard=1)
    yield event(killed + NS // 30, "fault", "proven", OLD, evidence="made by arithmetic")
    yield event(killed + NS // 25, "etcd", "leader_deleted", OLD, shard=1, revision=1)
    yield event(killed + NS // 5, "prober", "writable", NEW, **seen)
    yield event(killed + NS * 9 // 40, "router", "routed", NEW, **seen, connect_ns=4_000_000)
    yield event(killed + NS // 2, "prober", "streaming", THIRD, **seen, lag_bytes=0)
    yield event(times.lifted, "fault", "started", OLD)
    yield event(times.lifted + BACK_NS, "prober", "streaming", OLD, **seen, lag_bytes=0)


def _final(run_dir: Path, history: pa.Table) -> None:
    """What was written is there."""
    written = history.filter(pc.field("durability") == int(Durability.OK))
    final = written.select(["key", "value", "shard"]).cast(FINAL_SCHEMA)
    table = final.replace_schema_metadata({b"shards": json.dumps(SHARDS).encode()})
    with pa.OSFile(str(run_dir / FINAL_FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def judge(run_dir: Path) -> dict[str, Any]:
    """Judge the run in this process: seconds, peak bytes, and every promise that is not true, with the reason."""
    began = time.monotonic()
    judgement = judge_run(run_dir)
    return {
        "seconds": time.monotonic() - began,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "not_true": {
            entry.promise.id: entry.finding.reason
            for entry in judgement.judged
            if entry.finding.verdict is not Verdict.TRUE
        },
        "lost": next(e.finding.reason for e in judgement.judged if e.promise.id == "lost-writes"),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.judge is not None:
        sys.stdout.write(json.dumps(judge(chosen.judge)) + "\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="breakwater-judging-") as scratch:
        run_dir = Path(scratch) / "run"
        make_run(run_dir, chosen.rows)
        child = [sys.executable, "-m", "benchmarks.judging", "--judge", str(run_dir)]
        told = json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
    seconds, peak = told["seconds"], told["bytes"]
    kept = seconds < MOST_S and peak < MOST_BYTES and not told["not_true"]
    sys.stdout.write(
        f"{chosen.rows:,} operations judged in {seconds:.1f} s (at most {MOST_S:g}) and {peak / 1024**2:,.0f} MiB "
        f"(at most {MOST_BYTES // 1024**2:,}): {'kept' if kept else 'broken'}; {told['lost']}\n"
    )
    for promise, reason in told["not_true"].items():
        sys.stdout.write(f"not true: {promise}: {reason}\n")
    row = {"rows": chosen.rows, "seconds": round(seconds, 1), "peak_mib": round(peak / 1024**2)}
    results.append(RESULTS, COLUMNS, [{**results.where(commit() or "unknown"), **row}])
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
