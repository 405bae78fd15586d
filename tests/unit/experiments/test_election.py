"""An election of etcd beside a fault: what is seen of it, and which verdicts it makes unknown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.checkers.election import unless_etcd_elected
from experiments.checkers.finding import Finding, Verdict, measured, unknown
from experiments.checkers.recovery import leadership_ended, next_ack
from experiments.checkers.silence import longest_silence
from experiments.evidence import Evidence
from experiments.history import History
from experiments.probes import etcd as probe
from experiments.record import Rates, RunRecord
from experiments.report.story import story
from experiments.scenario import Promise
from loadtests.record import Durability, Error
from services.contracts.events import Event, EventLog, read_events
from services.coordination.etcd import EtcdUnavailable, ServerStatus
from tests.unit.experiments.judging import history_of
from tests.unit.experiments.synthetic_run import CLOCK, KILL, MS, OLD, S, Synthetic

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN
FAULT_S, RECOVERY_S = 20.0, 5.0
EVERY_MS = 10
CHECKERS = (next_ack, longest_silence, leadership_ended)


def promise(target: float) -> Promise:
    return Promise(id="in-time", title="in time", checker="any", target=target, unit="s", compare="<")


def elected(second: float, *, unseen_s: float = 0.5) -> Event:
    at = KILL + round(second * S)
    return Event(at, CLOCK, "etcd", "etcd-1", "elected", {"term": 5, "since_ns": at - round(unseen_s * S)})


def struck(member: str) -> Event:
    return Event(KILL, CLOCK, "fault", member, "killed")


def run() -> RunRecord:
    made = Synthetic(fault_s=FAULT_S, recovery_s=RECOVERY_S).record()
    return made.model_copy(update={"rates": Rates(predict=0, write=100, write_api=0, read=0)})


@cache
def writes(silent_s: float) -> History:
    """A write to the struck shard every 10 ms, of which none is acknowledged until `silent_s` after the fault."""
    rows = []
    for number in range(round((FAULT_S + RECOVERY_S) * 1000 / EVERY_MS)):
        at = KILL + number * EVERY_MS * MS
        row: dict[str, Any] = {"shard": 1, "sched_ns": at, "start_ns": at, "end_ns": at + MS, "timeline": 2}
        if at - KILL < silent_s * S:
            row |= {"durability": Durability.FAIL, "available": False, "error": Error.REFUSED}
        rows.append(row)
    return history_of(rows)


def judged(checker: Any, took_s: float, target: float, *events: Event) -> Finding:
    """A shard that had no leader, and took no write, until `took_s` after the fault."""
    gone = Event(KILL + round(took_s * S), CLOCK, "etcd", OLD, "leader_deleted", {"shard": 1})
    evidence = Evidence(tuple(sorted((gone, *events), key=lambda event: event.t_ns)))
    found: Finding = checker(writes(took_s), evidence, promise(target), run())
    return found


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize(
    ("took_s", "events", "verdict"),
    [
        (8.0, [], FALSE),
        (8.0, [elected(5.0)], UNKNOWN),
        (8.0, [elected(1.0)], FALSE),  # 7 s from there are still too long
        (8.0, [elected(1.0), elected(5.0)], UNKNOWN),
        (8.0, [elected(8.4)], UNKNOWN),  # seen afterwards, and perhaps it was before
        (8.0, [elected(8.4, unseen_s=0.3)], FALSE),
        (8.0, [elected(-0.1)], FALSE),
        (8.0, [elected(5.0), struck("etcd-0")], FALSE),  # the fault's own election
        (8.0, [elected(5.0), struck(OLD)], UNKNOWN),
        (4.0, [elected(1.0)], TRUE),
        (4.0, [elected(1.0), struck("etcd-0")], TRUE),
    ],
)
def test_a_time_that_was_too_long_is_unknown_when_it_is_kept_from_the_last_election_on(
    checker: Any, took_s: float, events: list[Event], verdict: Verdict
) -> None:
    found = judged(checker, took_s, 6.0, *events)
    assert found.verdict is verdict, found.reason
    assert (found.verdict is UNKNOWN) == ("etcd elected a leader" in found.reason)


def test_the_reason_says_when_and_what_is_left() -> None:
    found = judged(next_ack, 8.0, 6.0, elected(5.0))
    assert found.reason.endswith(
        "; etcd elected a leader 5.0 s after the fault (term 5), and every lease began anew: "
        "counted from there it took 3.001 s"
    )
    assert found.value == pytest.approx(8.001)
    assert found.evidence


@settings(deadline=None)
@given(
    checker=st.sampled_from(CHECKERS),
    took_s=st.sampled_from([1.0, 3.0, 9.0, 12.0]),
    target=st.sampled_from([2.0, 6.0, 30.0]),
    at=st.lists(st.floats(-2.0, 24.0), max_size=3),
    known_before=st.booleans(),
)
def test_an_election_only_ever_turns_false_into_unknown(
    checker: Any, took_s: float, target: float, at: list[float], known_before: bool
) -> None:
    """The rest of the finding stays; and it needs an election from which on the time would have been in time."""
    plain = judged(checker, took_s, target)
    found = judged(checker, took_s, target, *(elected(second) for second in at))
    assert (found.value, found.n, found.evidence) == (plain.value, plain.n, plain.evidence)
    if plain.verdict is not FALSE:
        assert found == plain
    elif found.verdict is UNKNOWN:
        assert any(second >= 0 and took_s + 0.1 >= second - 0.5 for second in at)
        assert max(at) + target > took_s - 0.1
    else:
        assert found == plain
    excused = judged(checker, took_s, target, *(elected(second) for second in at), struck("etcd-2"))
    assert excused == plain


def test_without_a_fault_or_a_broken_promise_there_is_nothing_to_excuse() -> None:
    evidence, end = Evidence((elected(1.5),)), KILL + 2 * S
    late = measured(promise(1.0), 2.0, n=1, out_of="1 of 1", reason="late")
    assert unless_etcd_elected(late, evidence, promise(1.0), run(), end).verdict is UNKNOWN
    nobody = run().model_copy(update={"fault": None})
    assert unless_etcd_elected(late, evidence, promise(1.0), nobody, end) is late
    for found in (unknown(promise(1.0), "nobody looked"), measured(promise(3.0), 2.0, n=1, out_of="", reason="")):
        assert unless_etcd_elected(found, evidence, promise(1.0), run(), end) is found


def test_the_story_tells_of_it() -> None:
    lines = [line.words for line in story(run(), Evidence((elected(5.0),)), None)]
    assert "etcd: etcd-1 was elected leader of etcd itself (term 5)" in lines


@dataclass
class Servers:
    """etcd's members by a script: in each look what each one says, as (term, leader's number); None: nothing."""

    script: Iterator[Sequence[tuple[int, int] | None]]
    stop: threading.Event
    number: int = 0
    now: Sequence[tuple[int, int] | None] = ()

    @property
    def hosts(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=f"etcd-{number}", number=number) for number in (1, 2, 3)]

    def model_copy(self, *, update: dict[str, Any]) -> SimpleNamespace:
        (host,) = update["hosts"]
        asked = SimpleNamespace(status=lambda: self.told(host.number), close=lambda: None)
        return SimpleNamespace(client=lambda timeout_s: asked)

    def told(self, number: int) -> ServerStatus:
        if number == 1:
            self.now = next(self.script)
        found = self.now[number - 1]
        if number == len(self.now) and not any(self.now):
            self.stop.set()
        if found is None:
            raise EtcdUnavailable("no answer")
        return ServerStatus(number, *found)


def seen(directory: Path, monkeypatch: pytest.MonkeyPatch, *looks: Sequence[tuple[int, int] | None]) -> list[Event]:
    """What the probe writes over these looks; one in which nobody answers ends it."""
    monkeypatch.setattr(probe, "LOOK_S", 0.0)
    stop, log = threading.Event(), EventLog(directory / "events.jsonl")
    script = iter([*looks, (None, None, None)])
    plan: Any = SimpleNamespace(etcd=Servers(script, stop))
    probe.watch_elections(plan, log, stop)
    log.close()
    return list(read_events(directory / "events.jsonl"))


A, B = (4, 1), (5, 2)


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        # the term that is there is no election, whoever knows it
        ([(A, A, A), (A, A, A)], []),
        ([(A, None, None), (A, A, None)], []),
        ([(B, A, A), (B, B, B)], []),
        # a new one is told once, by the first who knows of its leader
        ([(A, A, A), (None, B, A), (B, B, B)], [("etcd-2", 5)]),
        ([(A, A, A), ((5, 0), (5, 0), A), ((5, 0), B, B)], [("etcd-2", 5)]),
        # also when the leader is the old one again, and when several went by unseen
        ([(A, A, A), ((7, 1), (7, 1), A)], [("etcd-1", 7)]),
        ([(A, A, A), (B, B, B), ((6, 3), (6, 3), None)], [("etcd-2", 5), ("etcd-3", 6)]),
        # a leader that never answered has no name
        ([(A, A, None), ((6, 3), (6, 3), None)], [(None, 6)]),
        # one that was cut off still knows the old term: nothing new
        ([(A, A, A), (B, B, B), (A, B, B), (A, None, None)], [("etcd-2", 5)]),
    ],
)
def test_a_new_term_with_a_leader_is_told_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    looks: list[Sequence[tuple[int, int] | None]],
    told: list[tuple[str | None, int]],
) -> None:
    events = seen(tmp_path, monkeypatch, *looks)
    assert [(event.member, event.data["term"]) for event in events] == told
    assert {(event.source, event.kind) for event in events} <= {("etcd", "elected")}


def test_the_election_lies_behind_the_last_look_in_which_a_majority_knew_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1, 100))
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(clock) * S)
    (event,) = seen(tmp_path, monkeypatch, (A, A, A), (A, A, None), (A, None, None), ((5, 0), A, None), (B, B, B))
    # a look asks the clock when it begins and when it ends: the second began at 4 s, the event is written in the fifth
    assert event.data["since_ns"] == 4 * S
    assert event.t_ns == 11 * S
