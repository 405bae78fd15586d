"""What happened, in order and in words: from the events, the fault's record and the first acknowledged write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from experiments.checkers.finding import count
from experiments.checkers.recovery import Recovery
from experiments.evidence import Evidence
from experiments.record import FaultRecord, RunRecord
from experiments.report.charts import Mark
from experiments.report.words import done
from services.contracts.events import Event

MOST_LINES: Final = 30
"""A story is read; everything is in events.jsonl."""

SHORTLY: Final = {
    "SIGKILL": "killed",
    "SIGSTOP": "stopped",
    "block-loop": "loop blocked",
    "DEL": "hot keys gone",
    "PEXPIRE": "hot keys expire",
    "isolate": "cut off",
    "switchover": "handed over",
    "reload": "reloads",
    "restart": "restarts",
}
"""What a figure says of the fault's method."""

AFTERWARDS: Final = (
    ("edge", "out", "out of rotation"),
    ("fault", "started", "started again"),
    ("prober", "streaming", "streaming as replica"),
    ("fault", "lifted", "fault lifted"),
    ("edge", "in", "back in rotation"),
    ("h2o", "epoch", "noticed"),
    ("h2o", "whole", "cloud whole"),
)
"""What a figure marks after the fault, in this order; what did not happen is left out."""

WARDEN: Final = {
    "gone": "all processes gone, shared memory detached",
    "released": "leader key deleted in one guarded transaction",
    "release_refused": "did not release: the leader key is no longer the one that it saw",
    "fence_started": "kills the whole Postgres tree, for its Patroni is gone",
    "fenced": "the old primary is fenced",
    "etcd_away": "etcd does not answer",
    "etcd_back": "etcd answers again",
}
"""What the wardens' events mean; routine ones are left out."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the story. `t_ns` on the run's clock."""

    t_ns: int
    words: str


PHRASES: Final = {
    ("fault", "started"): "{member} started again",
    ("fault", "lifted"): "the fault on {member} is over",
    ("agent", "down"): "the watchdog of {member} opened its breaker: the edge's agent check hears down",
    ("agent", "up"): "the watchdog of {member} closed its breaker",
    ("edge", "out"): "the edge took {member} out of rotation",
    ("edge", "in"): "the edge sends {member} requests again",
    ("fault", "killed_another"): "{member} was killed as well",
    ("h2o", "broken"): "the H2O cloud is not whole: {why}",
    ("h2o", "epoch"): "etcd: H2O cloud bw-{generation} is wanted ({reason})",
    ("h2o", "whole"): "every H2O node is in {cloud}, in consensus and healthy",
    ("fault", "reloaded"): "reload: {version} serves as generation {generation}, after {seconds:.2f} s",
    ("fault", "not_reloaded"): "reload: {version} is refused ({code})",
    ("fault", "restarted"): "{member} was restarted",
    ("fault", "came_back"): "{member} was restarted and is back after {seconds:.1f} s",
    ("fault", "stayed_away"): "{why}",
    ("fault", "killed_beside"): "{member} was killed in mid-reload",
    ("models", "pointer"): "etcd: the pointer moved to {version}, generation {generation}",
    ("training", "attempt"): "training: {what}",
    ("training", "trained"): "the {member} training ended with a model",
    ("training", "failed"): "the {member} training failed: {error}",
}
"""What an event means, by source and kind, in terms of its member and its data."""


def story(run: RunRecord, evidence: Evidence, recovery: Recovery | None) -> tuple[Line, ...]:
    """The lines in the order of their time, from the fault on, at most MOST_LINES of them."""
    fault = run.fault
    if fault is None:
        return ()
    lines = [Line(each.t_ns, _struck(each)) for each in run.faults]
    lines += [line for event in evidence.events if event.t_ns >= fault.t_ns and (line := _line(event, run))]
    if recovery is not None:
        first = fault.t_ns + recovery.total_ns
        lines.append(Line(first, recovery.layers[-1].seen or "first acknowledged write"))
    return tuple(_without_repeats(sorted(lines, key=lambda line: line.t_ns)))[:MOST_LINES]


def marks(run: RunRecord, evidence: Evidence) -> list[Mark]:
    """What the latency figure points at."""
    if run.fault is None:
        return []
    member = run.fault.member
    shortly = SHORTLY[run.fault.method]
    listed = [Mark(run.fault.t_ns, f"{member} {shortly}" if run.fault.proven else f"{member}: fault not proven")]
    for source, kind, words in AFTERWARDS:
        after = listed[-1].t_ns
        event = evidence.first(source, kind, after_ns=after, test=lambda event: event.member in {member, None})
        if event is not None:
            listed.append(Mark(event.t_ns, words))
    return listed


def _line(event: Event, run: RunRecord) -> Line | None:
    """None for what tells nothing of the fault: another shard, another replica."""
    if run.struck_shards and event.data.get("shard") not in {None, *run.struck_shards}:
        return None
    if event.source in {"agent", "edge"} and event.member not in {fault.member for fault in run.faults}:
        return None
    words = _words(event)
    return None if words is None else Line(event.t_ns, words)


def _words(event: Event) -> str | None:  # noqa: PLR0911 - one phrase for each kind of event
    member, data = event.member or "nobody", event.data
    match event.source, event.kind:
        case "fault", "proven":
            return f"proven: {data.get('evidence', 'the fault had its effect')}"
        case place if place in PHRASES:
            return PHRASES[place].format(member=member, **data)
        case "etcd", "leader_deleted":
            return f"etcd: leader key of shard {data.get('shard')} deleted (revision {data.get('revision')})"
        case "etcd", "leader_set":
            return f"etcd: {member} is leader of shard {data.get('shard')}"
        case "etcd", "elected":
            return f"etcd: {member} was elected leader of etcd itself (term {data.get('term')})"
        case "prober", "writable":
            return f"{member} promoted, writable on timeline {data.get('timeline')}"
        case "prober", "streaming":
            return f"{member} streaming as replica, {_lag(data.get('lag_bytes'))}"
        case "router", "routed":
            return f"a fresh connection reached {member} on timeline {data.get('timeline')}"
        case "machine", "stalled":
            return f"the machine itself stood still for {data.get('ns', 0) / 1e9:.1f} s ({data.get('what')})"
        case "run", "final_reads":
            return "load ended, final reads from the primaries"
        case "warden", kind if kind in WARDEN:
            return f"warden of {member}: {WARDEN[kind]}"
        case _:
            return None


def _struck(fault: FaultRecord) -> str:
    if fault.shard is None:
        return f"{fault.member} {done(fault)}"
    processes = count(len(fault.pids), "process", "processes")
    pod = "" if fault.pod is None else ", and its pod deleted"
    return f"{fault.method} to {processes} of {fault.member} (primary, timeline {fault.old_timeline}){pod}"


def _lag(lag: object) -> str:
    return f"{lag:,} bytes behind" if isinstance(lag, int) else "lag unknown"


def _without_repeats(lines: list[Line]) -> Iterator[Line]:
    """Every observer repeats itself; the story tells each thing once."""
    told: set[str] = set()
    for line in lines:
        if line.words not in told:
            told.add(line.words)
            yield line
