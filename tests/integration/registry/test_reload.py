"""Who leads a reload: replicas prepare, refuse, hang, die and come; leaders die or meet; etcd goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from services.coordination.etcd import EtcdClient, EtcdUnavailable
from services.registry import ArtifactStore, Presence, ReplicaState, Verdict
from services.registry import reload as reloading
from services.registry.announced import candidate_key, replica_key
from services.registry.errors import PointerPending, ReloadInProgress, ReloadInterrupted
from services.registry.published import PublishedModels
from services.registry.reconciler import ReconcilerConfig
from services.registry.registry import ModelRegistry
from services.registry.reload import LEASE_S, CandidateRefused, Reload
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.integration.registry.models import MODEL, WHY, register
from tests.integration.registry.models import serve as serve_version
from tests.integration.registry.test_registry import die

pytestmark = pytest.mark.integration

SOON_S = 10.0
SHORT_S = 1.0


class Follower:
    """A replica's side in a thread: answers candidates as told (None prepares, a text refuses) and follows the pointer.

    `hears` False: it lives and answers nothing.
    """

    def __init__(self, published: PublishedModels, presence: Presence, name: str, reason: str | None = None) -> None:
        self.hears = True
        self._published, self._presence, self._name, self._reason = published, presence, name, reason
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._presence.start()
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._presence.close()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            seen = self._published.look()
            pointer, candidate = seen.stored, seen.candidate if self.hears else None
            state = ReplicaState(
                replica=self._name,
                version=None if pointer is None else pointer.version,
                generation=0 if pointer is None else pointer.generation,
            )
            verdict = None if candidate is None else Verdict(attempt=candidate.attempt, refused=self._reason)
            self._presence.say(state, verdict)


Join = Callable[..., Follower]


@pytest.fixture
def join(config: ReconcilerConfig, client: EtcdClient, published: PublishedModels) -> Iterator[Join]:
    """Let a replica of that name live, until the test ends."""
    with ExitStack() as stack:

        def joined(name: str, reason: str | None = None) -> Follower:
            follower = Follower(published, Presence(client, config.environment, MODEL, name), name, reason)
            follower.start()
            stack.callback(follower.close)
            wait_for(lambda: name in living(published))
            return follower

        yield joined


def living(published: PublishedModels) -> list[str]:
    return [replica.state.replica for replica in published.look().replicas]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


@pytest.fixture
def staged(registry: ModelRegistry, config: ReconcilerConfig) -> None:
    """v1 serves, v2 is in staging."""
    serve_version(registry, config.directory, "v1")
    register(registry, config.directory, "v2")
    registry.stage(MODEL, "v2", WHY)


def outcomes(reload: Reload | CandidateRefused) -> dict[str, tuple[str, int]]:
    return {each.replica: (each.outcome, each.generation) for each in reload.replicas}


def assert_nothing_changed(registry: ModelRegistry, published: PublishedModels) -> None:
    assert registry.version(MODEL, "v2").stage == "staging"
    assert [(pointer.version, pointer.generation) for pointer in registry.wanted()] == [("v1", 1)]
    assert published.look().pointer().version == "v1"


@pytest.mark.usefixtures("staged")
def test_without_any_replica_a_promotion_decides_at_once(registry: ModelRegistry) -> None:
    assert registry.promote(MODEL, "v2", WHY).replicas == ()


@pytest.mark.usefixtures("staged")
def test_every_replica_is_asked_and_serves_in_the_end(
    registry: ModelRegistry, published: PublishedModels, join: Join
) -> None:
    join("api-0")
    join("api-1")
    reload = registry.promote(MODEL, "v2", WHY)
    assert outcomes(reload) == {"api-0": ("serves", 2), "api-1": ("serves", 2)}
    assert published.look().candidate is None
    assert outcomes(registry.rollback(MODEL, WHY)) == {"api-0": ("serves", 3), "api-1": ("serves", 3)}


@pytest.mark.usefixtures("staged")
def test_one_refusal_is_enough_and_every_replica_is_named(
    registry: ModelRegistry, published: PublishedModels, join: Join
) -> None:
    join("api-0")
    join("api-1", "its trees are upside down")
    with pytest.raises(CandidateRefused, match="api-1: its trees are upside down") as refused:
        registry.promote(MODEL, "v2", WHY)
    assert outcomes(refused.value) == {"api-0": ("prepared", 1), "api-1": ("refused", 1)}
    assert_nothing_changed(registry, published)
    assert published.look().candidate is None


@pytest.mark.usefixtures("staged")
def test_a_replica_that_lives_and_does_not_answer_refuses(
    registry: ModelRegistry, published: PublishedModels, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "PREPARE_S", SHORT_S)
    join("api-0")
    join("api-1").hears = False
    with pytest.raises(CandidateRefused, match="api-1: lives, but did not answer") as refused:
        registry.promote(MODEL, "v2", WHY)
    assert outcomes(refused.value) == {"api-0": ("prepared", 1), "api-1": ("silent", 1)}
    assert_nothing_changed(registry, published)


@pytest.mark.usefixtures("staged")
def test_a_replica_that_dies_is_waited_for_no_longer_than_its_lease(
    registry: ModelRegistry, config: ReconcilerConfig, client: EtcdClient, join: Join
) -> None:
    join("api-0")
    state = ReplicaState(replica="api-1").to_json()
    client.put(replica_key(config.environment, MODEL, "api-1"), state, lease=client.grant_lease(2))  # nobody renews it
    assert outcomes(registry.promote(MODEL, "v2", WHY)) == {"api-0": ("serves", 2)}


@pytest.mark.usefixtures("staged")
def test_a_replica_that_starts_meanwhile_is_asked_too_and_two_reloads_exclude_each_other(
    registry: ModelRegistry, published: PublishedModels, join: Join
) -> None:
    late = join("api-0")
    late.hears = False
    done: list[Reload] = []
    first = threading.Thread(target=lambda: done.append(registry.promote(MODEL, "v2", WHY)))
    first.start()
    wait_for(lambda: published.look().candidate is not None)
    with pytest.raises(ReloadInProgress, match="another reload is under way"):
        registry.promote(MODEL, "v2", WHY)
    join("api-1")
    late.hears = True
    first.join()
    assert outcomes(done[0]) == {"api-0": ("serves", 2), "api-1": ("serves", 2)}


@pytest.mark.usefixtures("staged")
def test_a_leader_that_dies_changes_nothing_and_blocks_for_its_lease_only(
    registry: ModelRegistry, config: ReconcilerConfig, published: PublishedModels, join: Join
) -> None:
    join("api-0")
    die(config, "prepare candidate", "promote", "v2")
    assert published.look().candidate is not None
    with pytest.raises(ReloadInProgress):
        registry.promote(MODEL, "v2", WHY)
    assert registry.repair() == []
    assert_nothing_changed(registry, published)
    died = time.monotonic()
    wait_for(lambda: published.look().candidate is None)
    assert time.monotonic() - died < LEASE_S + 2
    assert outcomes(registry.promote(MODEL, "v2", WHY)) == {"api-0": ("serves", 2)}


@pytest.mark.usefixtures("staged")
def test_a_leader_that_dies_after_the_decision_is_finished_by_a_repair_also_beside_its_candidate(
    registry: ModelRegistry, config: ReconcilerConfig, published: PublishedModels, join: Join
) -> None:
    join("api-0")
    die(config, "move pointer", "promote", "v2")
    assert (registry.wanted()[0].version, published.look().pointer().version) == ("v2", "v1")
    assert published.look().candidate is not None
    assert [pointer.version for pointer in registry.repair()] == ["v2"]
    wait_for(lambda: published.look().replicas[0].state.generation == 2)


@pytest.mark.usefixtures("staged")
def test_a_leader_that_is_told_to_end_or_loses_its_candidate_decides_nothing(
    registry: ModelRegistry, config: ReconcilerConfig, client: EtcdClient, published: PublishedModels, join: Join
) -> None:
    join("api-0").hears = False
    stop = threading.Event()
    leader = ModelRegistry(config.database, client, config.environment, ArtifactStore(config.artifacts), stop=stop)
    ending = threading.Timer(0.3, stop.set)
    ending.start()
    with pytest.raises(ReloadInterrupted, match="told to end"):
        leader.promote(MODEL, "v2", WHY)
    losing = threading.Timer(0.3, client.delete, [candidate_key(config.environment, MODEL)])
    losing.start()
    with pytest.raises(ReloadInterrupted, match="lease ended"):
        registry.promote(MODEL, "v2", WHY)
    assert_nothing_changed(registry, published)


def test_etcd_away_before_and_after_the_decision(config: ReconcilerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "PREPARE_S", SHORT_S)
    with EtcdCluster(config.directory / "own", 1) as own:
        client = EtcdClient(own.clients)
        fatal = ""

        def between(step: str) -> None:
            if step == fatal:
                own.kill(0)

        registry = ModelRegistry(
            config.database, client, config.environment, ArtifactStore(config.artifacts), between=between
        )
        serve_version(registry, config.directory, "v1")
        register(registry, config.directory, "v2")
        registry.stage(MODEL, "v2", WHY)
        fatal = "prepare candidate"
        with pytest.raises(EtcdUnavailable, match="no etcd server answered"):
            registry.promote(MODEL, "v2", WHY)
        assert registry.version(MODEL, "v2").stage == "staging"
        own.start(0)
        own.wait_ready()
        fatal = "move pointer"
        client.delete(candidate_key(config.environment, MODEL))  # of the first attempt, until its lease ends
        with pytest.raises(PointerPending, match="v2 is in production by the registry"):
            registry.promote(MODEL, "v2", WHY)
        own.start(0)
        own.wait_ready()
        assert [(pointer.version, pointer.generation) for pointer in registry.repair()] == [("v2", 2)]
        client.close()
