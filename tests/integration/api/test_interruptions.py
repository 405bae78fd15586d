"""Two real replicas through reloads that are disturbed: a slow store, a leader that ends, replicas that come or lag."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

import httpx
import pytest

from services.contracts.flights import MODEL_NAME
from services.h2o.trained import TrainedModel
from services.registry import Presence, ReplicaState, Verdict
from services.registry.announced import Candidate, candidate_key, pointer_key, prepared_key, replica_key
from tests.integration.api.pair import Load, Pair, assert_all_serve
from tests.integration.api.slow_store import opens_take
from tests.integration.api.test_replica import FLIGHT
from tests.integration.api.waiting import wait_until
from tests.integration.registry.models import WHY

pytestmark = pytest.mark.integration

SLOW_OPEN_S = 2.0
"""Each of a version's five files: two thirds of the time that a replica has to prepare it."""
SERVE_S = 5.0
"""So long a leader waits for its followers to swap."""
LEASE_S = 5.0
"""So long a candidate outlives a leader that died."""
SLOWEST_S = 1.0
"""What a prediction may take beside it, on a machine that does other things: half of a replica's own patience."""
AT_ONCE_S = 1.0
"""Bound of what waits for nothing, on a machine that does other things."""
ETCD_S = 2.0
"""etcd looks for leases that have ended twice a second."""
GHOST = "api-9"


def test_a_slow_store_makes_a_reload_slow_and_no_prediction(pair: Pair, trained: Mapping[str, TrainedModel]) -> None:
    version = pair.fresh()
    stored = pair.registry.registry.stage(MODEL_NAME, version, WHY)
    manifest = pair.registry.artifacts / "sha256" / stored.manifest[:2] / stored.manifest
    kinds = ("mojo", "card", "golden", "contract")
    files = {manifest, *(pair.registry.stored(version, kind) for kind in kinds)}
    load = Load(pair, [dict(row.features) for row in trained["v1"].golden.rows])
    try:
        with opens_take(sorted(files), SLOW_OPEN_S) as held:
            began = time.monotonic()
            answer = pair.post("api-0", version=version)
            took_s = time.monotonic() - began
        assert_all_serve(pair, answer, version)
        after = len(load.answers)
        wait_until(lambda: len(load.answers) >= after + 200)
    finally:
        load.close()
    assert set(held) == files
    assert took_s > len(files) * SLOW_OPEN_S
    meanwhile = [each for each in load.answers if began < each.began]
    assert len(meanwhile) > 0.5 * 100 * took_s, "the load fell behind: this proves nothing"
    assert {each.status for each in load.answers} == {200}
    assert max(each.ended - each.began for each in meanwhile) < SLOWEST_S


@pytest.fixture
def caller() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as caller:
        yield caller


@contextmanager
def ghost(pair: Pair) -> Iterator[Presence]:
    """A replica that lives, and answers nothing unless it is told to: it holds a reload up for as long as that."""
    etcd = pair.platform.etcd_client
    presence = Presence(etcd, pair.environment, MODEL_NAME, GHOST)
    with closing(presence):
        presence.start()
        wait_until(lambda: etcd.get(replica_key(pair.environment, MODEL_NAME, GHOST)))
        yield presence


def prepared(pair: Pair, *names: str) -> bool:
    """Have they said that the candidate is ready? What they said of one before it may be there as well."""
    announced = candidate(pair)
    if announced is None:
        return False
    keys = [pair.platform.etcd_client.get(prepared_key(pair.environment, MODEL_NAME, name)) for name in names]
    said = [None if key is None else Verdict.model_validate_json(key.value) for key in keys]
    return said == [Verdict(attempt=announced.attempt, refused=None)] * len(names)


def pointer(pair: Pair) -> str:
    found = pair.platform.etcd_client.get(pointer_key(pair.environment, MODEL_NAME))
    assert found is not None
    return found.value


def candidate(pair: Pair) -> Candidate | None:
    found = pair.platform.etcd_client.get(candidate_key(pair.environment, MODEL_NAME))
    return None if found is None else Candidate.model_validate_json(found.value)


def outcomes(answer: Future[httpx.Response]) -> dict[str, str]:
    reloaded = answer.result()
    assert reloaded.status_code == 200, reloaded.text
    return {each["replica"]: each["outcome"] for each in reloaded.json()["replicas"]}


def both_live(pair: Pair) -> bool:
    return [each["replica"] for each in pair.current("api-0")["replicas"]] == ["api-0", "api-1"]


def test_a_replica_that_starts_meanwhile_is_asked_too(pair: Pair, caller: ThreadPoolExecutor) -> None:
    version = pair.fresh("v1")
    try:
        with ghost(pair):
            answer = caller.submit(pair.post, "api-0", version=version)
            wait_until(lambda: prepared(pair, "api-0", "api-1"))
            pair.start("api-2")
            wait_until(lambda: prepared(pair, "api-2"))
            assert not answer.done()
        assert outcomes(answer) == {"api-0": "serves", "api-1": "serves", "api-2": "serves"}
        assert {served for served, _ in pair.serving().values()} == {version}
    finally:
        pair.replicas.pop("api-2").__exit__()
    wait_until(lambda: both_live(pair))


def test_a_replica_that_does_not_follow_is_behind_and_waited_for_five_seconds(
    pair: Pair, caller: ThreadPoolExecutor
) -> None:
    version = pair.fresh()
    with ghost(pair) as lagging:
        answer = caller.submit(pair.post, "api-0", version=version)
        wait_until(lambda: prepared(pair, "api-0", "api-1"))
        announced = candidate(pair)
        assert announced is not None
        lagging.say(ReplicaState(replica=GHOST), Verdict(attempt=announced.attempt, refused=None))
        wait_until(lambda: {served for served, _ in pair.serving().values()} == {version})
        swapped = time.monotonic()
        assert outcomes(answer) == {"api-0": "serves", "api-1": "serves", GHOST: "behind"}
        waited_s = time.monotonic() - swapped
    assert SERVE_S - AT_ONCE_S < waited_s < SERVE_S + AT_ONCE_S
    wait_until(lambda: both_live(pair))


def test_a_replica_that_dies_after_it_had_prepared_is_not_waited_for(pair: Pair, caller: ThreadPoolExecutor) -> None:
    version = pair.fresh("v1")
    with ghost(pair):
        answer = caller.submit(pair.post, "api-0", version=version)
        wait_until(lambda: prepared(pair, "api-0", "api-1"))
        pair.replicas["api-1"].end(signal.SIGKILL)
        died = time.monotonic()
    found = outcomes(answer)
    assert time.monotonic() - died < SERVE_S + 2 * AT_ONCE_S
    assert found.pop("api-0") == "serves"
    assert found in ({}, {"api-1": "behind"}), "its lease may outlive the wait"
    pair.start("api-1").wait_for("/readyz")
    assert {served for served, _ in pair.serving().values()} == {version}
    wait_until(lambda: both_live(pair))


def test_a_leader_that_is_told_to_end_gives_its_reload_up(pair: Pair, caller: ThreadPoolExecutor) -> None:
    before, serving, version = pointer(pair), pair.serving(), pair.fresh()
    with ghost(pair):
        leader = pair.replicas["api-0"].process
        assert leader is not None
        answer = caller.submit(pair.post, "api-0", version=version)
        wait_until(lambda: prepared(pair, "api-0", "api-1"))
        leader.send_signal(signal.SIGTERM)
        told = time.monotonic()
        refused = answer.result()
        assert candidate(pair) is None, "the next reload need not wait for a lease"
        assert time.monotonic() - told < AT_ONCE_S
        assert (refused.status_code, refused.json()["code"]) == (503, "reload_interrupted")
        assert refused.headers["retry-after"] == "1"
        assert leader.wait(timeout=30) == 0
        assert pointer(pair) == before
    pair.start("api-0").wait_for("/readyz")
    assert pair.serving() == serving
    wait_until(lambda: both_live(pair))
    assert_all_serve(pair, pair.post("api-0", version=version), version)


def test_a_leader_that_is_killed_leaves_a_candidate_that_ends_with_its_lease(
    pair: Pair, caller: ThreadPoolExecutor
) -> None:
    before, serving, version = pointer(pair), pair.serving(), pair.fresh("v1")
    with ghost(pair):
        answer = caller.submit(pair.post, "api-0", version=version)
        wait_until(lambda: prepared(pair, "api-0", "api-1"))
        pair.replicas["api-0"].end(signal.SIGKILL)
        died = time.monotonic()
        with pytest.raises(httpx.TransportError):
            answer.result()
        refused = pair.post("api-1", version=version)
        assert (refused.status_code, refused.json()["code"]) == (409, "reload_in_progress")
        wait_until(lambda: candidate(pair) is None)
        assert time.monotonic() - died < LEASE_S + ETCD_S
        assert pointer(pair) == before
        wait_until(lambda: pair.current("api-1")["candidate"] is None)
        assert pair.replicas["api-1"].predict(features=FLIGHT).json()["model"]["version"] == serving["api-1"][0]
    pair.start("api-0").wait_for("/readyz")
    assert pair.serving() == serving
    wait_until(lambda: both_live(pair))
    assert_all_serve(pair, pair.post("api-1", version=version), version)
