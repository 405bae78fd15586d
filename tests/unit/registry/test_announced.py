"""What a model's keys say together: who lives, whose answer counts, and what damage does."""

from __future__ import annotations

import pytest

from services.coordination.etcd import KeyValue
from services.registry import ArtifactCorrupt, Candidate, NoModel, Pointer, ReplicaState, Verdict
from services.registry.announced import (
    announced,
    candidate_key,
    pointer_key,
    prepared_key,
    replica_key,
)

ENV, MODEL = "test", "flight-delay"
POINTER = Pointer(name=MODEL, version="v2", generation=2, manifest="0" * 64)
CANDIDATE = Candidate(attempt="a", pointer=POINTER)
PREPARED = Verdict(attempt="a", refused=None)


def kv(key: str, value: str, lease: int = 0) -> KeyValue:
    return KeyValue(key, value, 1, 1, 1, lease)


def lives(replica: str, lease: int) -> KeyValue:
    return kv(replica_key(ENV, MODEL, replica), ReplicaState(replica=replica).to_json(), lease)


def answered(replica: str, lease: int, verdict: Verdict = PREPARED) -> KeyValue:
    return kv(prepared_key(ENV, MODEL, replica), verdict.to_json(), lease)


def test_nothing_is_announced_at_first() -> None:
    seen = announced(ENV, MODEL, [])
    assert (seen.candidate, seen.replicas) == (None, ())
    with pytest.raises(NoModel, match="promote one"):
        seen.pointer()


def test_pointer_and_candidate_stand_side_by_side() -> None:
    keys = [
        kv(pointer_key(ENV, MODEL), POINTER.to_json()),
        kv(candidate_key(ENV, MODEL), CANDIDATE.to_json(), 5),
    ]
    seen = announced(ENV, MODEL, keys)
    assert (seen.pointer(), seen.candidate) == (POINTER, CANDIDATE)


@pytest.mark.parametrize(
    ("lease", "verdict", "counts"),
    [
        (7, PREPARED, True),
        (7, Verdict(attempt="a", refused="why"), True),
        (6, PREPARED, False),  # of the process before
        (7, Verdict(attempt="b", refused=None), False),  # to another candidate
    ],
)
def test_an_answer_counts_in_the_life_and_for_the_attempt_that_it_was_given_in(
    lease: int, verdict: Verdict, counts: bool
) -> None:
    [replica] = announced(ENV, MODEL, [lives("api-0", 7), answered("api-0", lease, verdict)]).replicas
    assert replica.answer_to("a") == (verdict if counts else None)


def test_an_answer_of_nobody_who_lives_is_nobodys() -> None:
    assert announced(ENV, MODEL, [answered("api-0", 7)]).replicas == ()


def test_a_damaged_pointer_is_named_and_other_damage_was_never_said() -> None:
    keys = [
        kv(pointer_key(ENV, MODEL), "{"),
        kv(candidate_key(ENV, MODEL), "{"),
        kv(replica_key(ENV, MODEL, "api-0"), "{"),
    ]
    seen = announced(ENV, MODEL, keys)
    assert (seen.candidate, seen.replicas) == (None, ())
    with pytest.raises(ArtifactCorrupt, match="promote a model again"):
        seen.pointer()
