"""How long the judge takes for ten million operations, and how much memory: `python -m benchmarks.judging [--rows N]`.

A run of S-01 is made by arithmetic, as history, events, final reads and journal of the real formats, and judged in a
process of its own, whose peak of resident memory the kernel tells. Exit code 1 when it needs more than it may.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import results
from breakwater.verification import find_scenario
from experiments.checkers.finding import Verdict
from experiments.commit import commit
from experiments.history import FINAL_FILE, FINAL_SCHEMA, HISTORY_FILE
from experiments.record import FaultRecord, ProcessId, Rates, RunRecord, ShardRecord, WallAnchor, Windows
from experiments.scenario import SCENARIO_FILE
from experiments.verdict import judge_run
from loadtests.record import NO_SHARD, SCHEMA, Durability, Kind

ROWS: Final = 10_000_000
MOST_S: Final = 60.0
MOST_BYTES: Final = 2 * 1024**3
SHARDS: Final = (0, 1)
NS: Final = 1_000_000_000
CLOCK: Final = "monotonic:00000000"
WHOLE_S: Final = 3600
"""An hour of load at 2,800 operations a second."""
FAULT_S: Final = (1800, 1860)
OUTAGE_NS: Final = 250_000_000
STREAMS: Final = ((Kind.PREDICT, 0.40), (Kind.WRITE, 0.25), (Kind.WRITE_API, 0.15), (Kind.READ, 0.20))
COLUMNS: Final = (*results.MACHINE, "rows", "seconds", "peak_mib")
RESULTS: Final = Path("docs/results/judging.csv")


def make_run(run_dir: Path, rows: int) -> None:
    """A run in which every promise about operations is kept; an outage of OUTAGE_NS follows the fault on shard 1."""
    run_dir.mkdir(parents=True)
    start = 1_000 * NS
    killed, lifted, ended = (start + at * NS for at in (*FAULT_S, WHOLE_S))
    table = _history(rows, start, killed)
    with pa.OSFile(str(run_dir / HISTORY_FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    _final(run_dir, table)
    rates = {kind: share * rows / WHOLE_S for kind, share in STREAMS}
    members = tuple(f"shard-{shard}-{member}" for shard in SHARDS for member in range(3))
    fault = FaultRecord(
        component="postgres/shard-1",
        shard=1,
        member="shard-1-2",
        scope="server",
        method="SIGKILL",
        hold=True,
        t_ns=killed,
        pids=(ProcessId(pid=1, start_ticks=1, name="postgres"),),
        proven=True,
        evidence="made by arithmetic",
        old_timeline=1,
    )
    RunRecord(
        run_id="judging",
        environment="local",
        scenario="S-01",
        variant="server-killed",
        seed=1,
        clock_id=CLOCK,
        wall_anchor=WallAnchor(monotonic_ns=start, unix_ns=1_700_000_000 * NS),
        commit=None,
        members=members,
        shards=tuple(ShardRecord(shard=n, members=members[3 * n : 3 * n + 3]) for n in SHARDS),
        rates=Rates(
            predict=rates[Kind.PREDICT],
            write=rates[Kind.WRITE] / len(SHARDS),
            write_api=rates[Kind.WRITE_API] / len(SHARDS),
            read=rates[Kind.READ] / len(SHARDS),
        ),
        windows=Windows(
            undisturbed=(start, killed), baseline=(start, killed), fault=(killed, lifted), recovery=(lifted, ended)
        ),
        fault=fault,
        completed=True,
    ).write(run_dir)
    (run_dir / SCENARIO_FILE).write_text(json.dumps(find_scenario("S-01").document()))
    (run_dir / "events.jsonl").write_text("")


def _history(rows: int, start: int, killed: int) -> pa.Table:
    """Evenly scheduled operations of all streams, in the order of their schedule."""
    chance = np.random.default_rng(1)
    sched = start + (np.arange(rows, dtype=np.int64) * (WHOLE_S * NS // rows))
    kinds = [kind.value for kind, _ in STREAMS]
    which = chance.choice(len(kinds), size=rows, p=[share for _, share in STREAMS]).astype(np.int8)
    shard = chance.integers(0, len(SHARDS), rows).astype(np.uint8)
    predict = which == kinds.index(Kind.PREDICT.value)
    shard[predict & (chance.random(rows) < 1 / 2)] = NO_SHARD
    writing = (which == kinds.index(Kind.WRITE.value)) | (which == kinds.index(Kind.WRITE_API.value))
    begun = sched + chance.integers(20_000, 400_000, rows)
    took = (4_000_000 * chance.lognormal(0, 0.35, rows)).astype(np.int64)
    hit = writing & (shard == 1) & (sched >= killed) & (sched < killed + OUTAGE_NS)
    took[hit] += killed + OUTAGE_NS - sched[hit]
    number = np.arange(rows, dtype=np.uint64)
    timeline = np.where(writing, np.where((shard == 1) & (sched >= killed), 2, 1), 0)
    columns = {
        "op_id": number,
        "process": which.astype(np.uint16),
        "kind": pa.DictionaryArray.from_arrays(pa.array(which), pa.array(kinds)).cast(pa.string()),
        "shard": shard,
        "key": np.where(writing, number, 0).astype(np.uint64),
        "value": np.where(writing, number % 1_000_003 + 1, 0).astype(np.uint64),
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


def _final(run_dir: Path, history: pa.Table) -> None:
    """What was written is there."""
    written = history.filter(pc.field("durability") == int(Durability.OK))
    final = written.select(["key", "value", "shard"]).cast(FINAL_SCHEMA)
    table = final.replace_schema_metadata({b"shards": json.dumps(SHARDS).encode()})
    with pa.OSFile(str(run_dir / FINAL_FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def judge(run_dir: Path) -> dict[str, Any]:
    """Judge the run in this process: seconds, peak bytes, and every promise that is not true."""
    began = time.monotonic()
    judgement = judge_run(run_dir)
    return {
        "seconds": time.monotonic() - began,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "false": [entry.promise.id for entry in judgement.judged if entry.finding.verdict is Verdict.FALSE],
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
    kept = seconds < MOST_S and peak < MOST_BYTES and not told["false"]
    sys.stdout.write(
        f"{chosen.rows:,} operations judged in {seconds:.1f} s (at most {MOST_S:g}) and {peak / 1024**2:,.0f} MiB "
        f"(at most {MOST_BYTES // 1024**2:,}): {'kept' if kept else 'broken'}; {told['lost']}\n"
    )
    row = {"rows": chosen.rows, "seconds": round(seconds, 1), "peak_mib": round(peak / 1024**2)}
    results.append(RESULTS, COLUMNS, [{**results.where(commit() or "unknown"), **row}])
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
