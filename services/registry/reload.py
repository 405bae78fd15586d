"""Leads a reload: announces a candidate, hears every live replica, and sees the replicas swap once it is decided.

The caller decides in between. Two leaders exclude each other by the candidate's key; a leader that dies takes the key
with it, within its lease.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from services.coordination.etcd import Compare, EtcdClient, EtcdError, Get, LeaseGone, Put
from services.registry.announced import (
    Announced,
    Candidate,
    LiveReplica,
    Pointer,
    announced,
    candidate_key,
    model_prefix,
)
from services.registry.errors import RegistryError, ReloadInProgress, ReloadInterrupted

LEASE_S: Final = 5
"""A leader that dies blocks the next one for this long."""
KEEP_ALIVE_S: Final = 1.0
POLL_S: Final = 0.05
PREPARE_S: Final = 15.0
"""Loading, proving and warming takes a replica one or two seconds; an artifact store may be slow. A replica that lives
and has not answered by then is taken for one that refuses."""
AFTER_REFUSAL_S: Final = 3.0
"""The reload has failed with the first refusal; the others have this much longer to say what they think."""
SERVE_S: Final = 5.0
"""All replicas swap within this (a swap is one reference, seen within 0.1 s)."""

Outcome = Literal["serves", "prepared", "refused", "silent", "behind"]


@dataclass(frozen=True, slots=True)
class ReplicaOutcome:
    """One live replica at the end of a reload: `version` and `generation` are what it serves (None and 0: nothing).

    After a success it `serves` the new one, or is `behind` and will follow. After a failure it `refused` (with its
    reason), was `silent`, or had `prepared` and dropped the candidate.
    """

    replica: str
    outcome: Outcome
    version: str | None
    generation: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Reload:
    """A version that came into production, and every live replica's state. No replica: none lives to ask."""

    pointer: Pointer
    replicas: tuple[ReplicaOutcome, ...]


class CandidateRefused(RegistryError):
    """At least one live replica did not prepare the candidate; nothing changed."""

    def __init__(self, candidate: Pointer, replicas: Sequence[ReplicaOutcome]) -> None:
        reasons = "; ".join(f"{each.replica}: {each.reason}" for each in replicas if each.reason is not None)
        super().__init__(
            f"{candidate.name} {candidate.version} is refused, what served goes on serving everywhere: {reasons}"
        )
        self.replicas = tuple(replicas)


class Attempt:
    """One candidate that is announced. Made by `Leader.announce`."""

    def __init__(
        self, etcd: EtcdClient, environment: str, candidate: Candidate, lease: int, stop: threading.Event
    ) -> None:
        self._etcd = etcd
        self._environment = environment
        self._candidate = candidate
        self._lease = lease
        self._stop = stop
        self._kept = time.monotonic()

    def prepare(self) -> bool:
        """Return when every live replica has prepared the candidate; at once, with False, when none lives.

        Only this and `serving` keep the candidate's lease: whoever does anything slow in between loses it.

        CandidateRefused names each one that did not, ReloadInterrupted says that this leader is one no more.
        EtcdUnavailable when etcd did not answer to the end.
        """
        attempt, deadline, failed = self._candidate.attempt, time.monotonic() + PREPARE_S, False
        while True:
            seen = self._look(deadline)
            if seen is not None:
                if seen.candidate != self._candidate:
                    raise ReloadInterrupted("the candidate's lease ended before every replica had answered; try again")
                answers = [replica.answer_to(attempt) for replica in seen.replicas]
                refused = any(answer is not None and answer.refused is not None for answer in answers)
                waiting = any(answer is None for answer in answers)
                if not waiting and not refused:
                    return bool(answers)
                if not waiting or time.monotonic() > deadline:
                    outcomes = [_prepared(replica, attempt) for replica in seen.replicas]
                    raise CandidateRefused(self._candidate.pointer, outcomes)
                if refused and not failed:
                    failed, deadline = True, min(deadline, time.monotonic() + AFTER_REFUSAL_S)
            if self._stop.wait(POLL_S):
                raise ReloadInterrupted("whoever led the reload was told to end; nothing changed, try again")

    def serving(self, pointer: Pointer) -> tuple[ReplicaOutcome, ...]:
        """Every live replica's state, as soon as all serve that generation or time is up. Raises nothing of etcd's."""
        deadline = time.monotonic() + SERVE_S
        outcomes: tuple[ReplicaOutcome, ...] = ()
        while time.monotonic() < deadline:
            with contextlib.suppress(EtcdError):
                seen = self._look(deadline)
                if seen is not None:
                    outcomes = tuple(_serving(replica, pointer) for replica in seen.replicas)
                    if all(each.outcome == "serves" for each in outcomes):
                        return outcomes
            if self._stop.wait(POLL_S):
                break
        return outcomes

    def _look(self, deadline: float) -> Announced | None:
        """None while etcd is away and there is time left; raises its error when there is none."""
        candidate = self._candidate.pointer
        try:
            if time.monotonic() - self._kept > KEEP_ALIVE_S:
                with contextlib.suppress(LeaseGone):  # the missing key will say so
                    self._etcd.keep_alive(self._lease)
                self._kept = time.monotonic()
            keys = self._etcd.get_prefix(model_prefix(self._environment, candidate.name))
        except EtcdError:
            if time.monotonic() > deadline:
                raise
            return None
        return announced(self._environment, candidate.name, keys)


class Leader:
    """Announces candidates, one at a time in an environment."""

    def __init__(self, etcd: EtcdClient, environment: str, stop: threading.Event | None = None) -> None:
        """`stop` ends an attempt that has not been decided."""
        self._etcd = etcd
        self._environment = environment
        self._stop = stop or threading.Event()

    @contextlib.contextmanager
    def announce(self, pointer: Pointer) -> Iterator[Attempt]:
        """The candidate is there inside the block. ReloadInProgress when one is already; raises EtcdUnavailable."""
        candidate = Candidate(attempt=uuid.uuid4().hex, pointer=pointer)
        key = candidate_key(self._environment, pointer.name)
        lease = self._etcd.grant_lease(LEASE_S)
        try:
            absent = Compare(key, "create_revision", 0)
            announcing = self._etcd.transact([absent], [Put(key, candidate.to_json(), lease)], [Get(key)])
            if not announcing.succeeded:
                [other] = announcing.results[0].kvs
                raise ReloadInProgress(f"another reload is under way: {other.value}; it ends by itself, try again")
            yield Attempt(self._etcd, self._environment, candidate, lease, self._stop)
        finally:
            with contextlib.suppress(EtcdError):  # then it runs out
                self._etcd.revoke_lease(lease)


def _prepared(replica: LiveReplica, attempt: str) -> ReplicaOutcome:
    answer, state = replica.answer_to(attempt), replica.state
    if answer is None:
        return ReplicaOutcome(
            state.replica, "silent", state.version, state.generation, "lives, but did not answer in time"
        )
    outcome: Outcome = "prepared" if answer.refused is None else "refused"
    return ReplicaOutcome(state.replica, outcome, state.version, state.generation, answer.refused)


def _serving(replica: LiveReplica, pointer: Pointer) -> ReplicaOutcome:
    state = replica.state
    outcome: Outcome = "serves" if state.generation >= pointer.generation else "behind"
    reason = None if outcome == "serves" or state.refused is None else state.refused.reason
    return ReplicaOutcome(state.replica, outcome, state.version, state.generation, reason)
