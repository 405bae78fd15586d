"""Faults with several victims: each promise holds for every one of them, and the worst finding counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.checkers.availability import other_shards_bad
from experiments.checkers.durability import lost_writes
from experiments.checkers.finding import Finding, Verdict
from experiments.checkers.recovery import leadership_ended, old_primary_streaming
from experiments.checkers.redundancy import redundancy_restored
from experiments.checkers.validity import fault_proven
from experiments.evidence import Evidence
from experiments.history import FinalReads, write_final
from experiments.record import RunRecord
from experiments.report.story import story
from experiments.report.words import what_was_done
from experiments.scenario import Promise
from loadtests.record import Durability, Error
from services.contracts.events import Event
from tests.unit.experiments.judging import history_of
from tests.unit.experiments.synthetic_run import CLOCK, KILL, MS, S, Synthetic

ONE, OTHER = "shard-1-2", "shard-0-1"
NOTHING = history_of([{"sched_ns": KILL}])


def promise(checker: str, target: float, compare: Any = "<") -> Promise:
    return Promise(id="of-all", title="of all", checker=checker, target=target, unit="s", compare=compare)


def struck_twice(**other: Any) -> RunRecord:
    run = Synthetic(fault_s=10, recovery_s=90).record()
    assert run.fault is not None
    second = run.fault.model_copy(update={"member": OTHER, "shard": 0, "t_ns": KILL + 5 * MS, **other})
    return run.model_copy(update={"also": (second,)})


def event(after_s: float, source: str, kind: str, member: str, **data: Any) -> Event:
    return Event(KILL + int(after_s * S), CLOCK, source, member, kind, data)


STARTED = (event(10, "fault", "started", ONE), event(10, "fault", "started", OTHER))


def streaming(*events: Event) -> Finding:
    evidence = Evidence(tuple(sorted((*STARTED, *events), key=lambda seen: seen.t_ns)))
    return old_primary_streaming(NOTHING, evidence, promise("old_primary_streaming", 60), struck_twice())


def back(member: str, after_s: float) -> Event:
    return event(10 + after_s, "prober", "streaming", member, timeline=2, lag_bytes=0)


def test_all_in_time_keep_it_and_the_slowest_is_the_value() -> None:
    finding = streaming(back(ONE, 5), back(OTHER, 8))
    assert finding.verdict is Verdict.TRUE
    assert finding.value == pytest.approx(8)
    assert finding.n == 2
    assert finding.reason.index(OTHER) < finding.reason.index(ONE)


def test_one_that_is_late_or_missing_breaks_it() -> None:
    assert streaming(back(ONE, 5), back(OTHER, 70)).verdict is Verdict.FALSE
    finding = streaming(back(ONE, 5))
    assert (finding.verdict, finding.value) == (Verdict.FALSE, None)
    assert OTHER in finding.reason


def test_one_that_is_unknown_makes_all_unknown() -> None:
    run = struck_twice(hold=True, member="shard-0-2")
    finding = old_primary_streaming(
        NOTHING, Evidence((*STARTED, back(ONE, 5))), promise("old_primary_streaming", 60), run
    )
    assert finding.verdict is Verdict.UNKNOWN


def test_what_held_nothing_down_is_counted_from_the_fault() -> None:
    run = Synthetic(fault_s=10, recovery_s=60).record()
    assert run.fault is not None
    run = run.model_copy(update={"fault": run.fault.model_copy(update={"hold": False})})
    finding = old_primary_streaming(
        NOTHING,
        Evidence((event(7, "prober", "streaming", ONE, timeline=2),)),
        promise("old_primary_streaming", 60),
        run,
    )
    assert finding.verdict is Verdict.TRUE
    assert finding.value == pytest.approx(7)
    assert "after the fault" in finding.reason


def test_what_was_fenced_streamed_before_the_fault_was_lifted() -> None:
    run = Synthetic(fault_s=10, recovery_s=30).record()
    wanted = promise("old_primary_streaming", 60)
    lifted = event(10, "fault", "started", ONE)
    follows = event(7, "prober", "streaming", ONE, timeline=2)
    finding = old_primary_streaming(NOTHING, Evidence((follows, lifted)), wanted, run)
    assert (finding.verdict, finding.value) == (Verdict.TRUE, 0)
    assert "3.0 s before its start" in finding.reason
    of_its_own = event(7, "prober", "streaming", ONE, timeline=1)
    assert old_primary_streaming(NOTHING, Evidence((of_its_own, lifted)), wanted, run).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("after_s", "target", "verdict"),
    [(12.2, 14, Verdict.TRUE), (17.0, 14, Verdict.FALSE), (None, 14, Verdict.FALSE), (None, 30, Verdict.UNKNOWN)],
)
def test_a_leadership_ends_in_time(after_s: float | None, target: float, verdict: Verdict) -> None:
    run = Synthetic(fault_s=25, recovery_s=60).record()
    assert run.fault is not None
    ended = [event(after_s, "etcd", "leader_deleted", ONE, shard=run.fault.shard)] if after_s else []
    elsewhere = event(1, "etcd", "leader_deleted", OTHER, shard=0)
    finding = leadership_ended(NOTHING, Evidence((elsewhere, *ended)), promise("leadership_ended", target), run)
    assert (finding.verdict, finding.value) == (verdict, after_s and pytest.approx(after_s))


def standbys(shard: int, primary: str, *others: tuple[str, float]) -> list[Event]:
    """A shard's new primary, and its other members by when they stream from it."""
    follow = [event(at, "prober", "streaming", member, shard=shard, timeline=2, lag_bytes=0) for member, at in others]
    return [event(0.2, "prober", "writable", primary, shard=shard, timeline=2), *follow]


@pytest.mark.parametrize(
    ("first_s", "second_s", "verdict", "value"),
    [
        (15, 18, Verdict.TRUE, 8),
        (18, 15, Verdict.TRUE, 8),
        (15, 75, Verdict.FALSE, 65),
        (75, 15, Verdict.FALSE, 65),
        (15, None, Verdict.FALSE, None),
    ],
)
def test_the_redundancy_of_every_struck_shard_must_come_back(
    first_s: float, second_s: float | None, verdict: Verdict, value: float | None
) -> None:
    back_again = [] if second_s is None else [(OTHER, second_s)]
    seen = [
        *standbys(1, "shard-1-0", ("shard-1-1", 1), (ONE, first_s)),
        *standbys(0, "shard-0-0", ("shard-0-2", 1), *back_again),
    ]
    evidence = Evidence(tuple(sorted(seen, key=lambda each: each.t_ns)))
    finding = redundancy_restored(NOTHING, evidence, promise("redundancy_restored", 60), struck_twice())
    assert (finding.verdict, finding.value) == (verdict, value), finding.reason


def test_a_struck_shard_whose_new_primary_nobody_saw_makes_the_redundancy_unknown() -> None:
    evidence = Evidence(tuple(standbys(1, "shard-1-0", ("shard-1-1", 1), (ONE, 15))))
    finding = redundancy_restored(NOTHING, evidence, promise("redundancy_restored", 60), struck_twice())
    assert finding.verdict is Verdict.UNKNOWN
    assert finding.reason.startswith(f"{OTHER}: no primary of shard 0 was seen")


def test_each_fault_must_be_proven() -> None:
    seen = Evidence((event(0.1, "fault", "proven", ONE), event(0.2, "fault", "proven", OTHER)))
    proven = promise("fault_proven", 1, "==")
    assert fault_proven(NOTHING, seen, proven, struck_twice()).verdict is Verdict.TRUE
    assert fault_proven(NOTHING, seen, proven, struck_twice(proven=False)).verdict is Verdict.UNKNOWN


def test_a_struck_shard_is_no_other_shard() -> None:
    rows = [{"shard": 0, "sched_ns": KILL + n * MS, "available": n > 150, "error": Error.NONE} for n in range(300)]
    evidence, other = Evidence(), promise("other_shards_bad", 0, "==")
    assert other_shards_bad(history_of(rows), evidence, other, struck_twice()).verdict is Verdict.UNKNOWN
    alone = struck_twice().model_copy(update={"also": ()})
    assert other_shards_bad(history_of(rows), evidence, other, alone).verdict is Verdict.FALSE


def test_enough_writes_must_be_seen_around_each_victim(tmp_path: Path) -> None:
    rows = [
        {
            "shard": shard,
            "key": n,
            "value": n,
            "sched_ns": KILL + n * MS,
            "start_ns": KILL + n * MS,
            "end_ns": KILL + n * MS,
        }
        | {"durability": Durability.OK}
        for shard, writes in ((0, 20), (1, 200))
        for n in range(writes)
    ]
    history = history_of(rows)
    write_final(tmp_path, {0: [(n, n) for n in range(20)], 1: [(n, n) for n in range(200)]})
    final = FinalReads.load(tmp_path)
    nothing_lost = promise("lost_writes", 0, "==")
    finding = lost_writes(history, Evidence(final=final), nothing_lost, struck_twice())
    assert finding.verdict is Verdict.UNKNOWN
    assert "only 20 writes" in finding.reason
    alone = struck_twice().model_copy(update={"also": ()})
    assert lost_writes(history, Evidence(final=final), nothing_lost, alone).verdict is Verdict.TRUE


@pytest.mark.parametrize(
    ("method", "scope", "words"),
    [
        ("SIGKILL", "postgres", "bereft of its Postgres"),
        ("SIGKILL", "patroni", "bereft of its Patroni"),
        ("SIGSTOP", "patroni", "left with a Patroni that stands still"),
        ("SIGSTOP", "member", "stopped with its warden"),
        ("isolate", "network", "cut off from etcd and its replicas"),
        ("switchover", "leadership", "relieved of its leadership"),
    ],
)
def test_the_report_says_what_befell_each_victim(method: str, scope: str, words: str) -> None:
    said = what_was_done(struck_twice(method=method, scope=scope))
    assert said.startswith("The primary of shard 1 was killed with all its processes, and that of shard 0 was ")
    assert words in said
    assert "was to be" in what_was_done(struck_twice(method=method, scope=scope, proven=False))
    lines = [line.words for line in story(struck_twice(method=method, scope=scope), Evidence(), None)]
    assert len(lines) == 2
