"""The registry on a real PostgreSQL and etcd: stages, constraints, audit, pointers, and a death at every step."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import urllib3
from psycopg import sql

from services.coordination.etcd import EtcdClient
from services.featurestore.sessions import session
from services.registry import ArtifactCorrupt, NoModel, PublishedModels, VersionTaken
from services.registry.announced import Pointer, pointer_key
from services.registry.errors import IllegalTransition, StoreUnavailable, UnknownVersion
from services.registry.published import read_manifest
from services.registry.reconciler import REPAIR_INTERVAL_S, Reconciler, ReconcilerConfig
from services.registry.registry import ModelRegistry
from services.registry.store import ArtifactStore
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.integration.registry.models import CONTRACT, GOLDEN, MODEL, WHY, described, register, serve

pytestmark = pytest.mark.integration

REGISTER_STEPS = ("store mojo", "store golden", "store manifest", "insert rows", "commit rows")


def execute(config: ReconcilerConfig, statement: str) -> None:
    with session(config.database, application_name="test") as connection:
        connection.execute(statement.encode())


def test_a_version_goes_from_registered_to_production_and_back(
    registry: ModelRegistry, published: PublishedModels, tmp_path: Path
) -> None:
    with pytest.raises(NoModel, match="train a model"):
        published.look().pointer()
    assert register(registry, tmp_path, "v1").stage == "registered"
    assert registry.stage(MODEL, "v1", WHY).stage == "staging"
    assert registry.promote(MODEL, "v1", WHY).pointer.generation == 1
    assert [serve(registry, tmp_path, version) for version in ("v2", "v3")] == [2, 3]
    served = []
    for _ in range(2):
        registry.rollback(MODEL, WHY)
        pointer = published.look().pointer()
        files = published.open(pointer)
        served.append((pointer.generation, files.card.version, files.artifact.read_bytes()))
    assert served == [(4, "v2", b"trees of v2"), (5, "v1", b"trees of v1")]
    with pytest.raises(IllegalTransition, match="nothing to go back to"):
        registry.rollback(MODEL, WHY)
    assert published.look().pointer().generation == 5
    assert {version.version: version.stage for version in registry.versions(MODEL)} == {
        "v1": "production",
        "v2": "archived",
        "v3": "archived",
    }
    assert [(line.from_stage, line.to_stage) for line in registry.history(MODEL, "v1")] == [
        (None, "registered"),
        ("registered", "staging"),
        ("staging", "production"),
        ("production", "archived"),
        ("archived", "production"),
    ]
    assert {(line.actor, line.reason) for line in registry.history(MODEL)} == {(WHY.actor, WHY.reason)}


def test_a_version_that_was_rolled_back_is_not_come_back_to(registry: ModelRegistry, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        serve(registry, tmp_path, version)
    assert registry.rollback(MODEL, WHY).pointer.version == "v1"
    serve(registry, tmp_path, "v3")
    assert registry.rollback(MODEL, WHY).pointer.version == "v1"


def test_what_is_stored_beside_a_model(registry: ModelRegistry, config: ReconcilerConfig, tmp_path: Path) -> None:
    version = register(registry, tmp_path, "v1")
    assert version.metrics == {"auc": 0.7, "logloss": 0.5, "prior": 0.2}
    store = ArtifactStore(config.artifacts)
    kept = {artifact.kind: store.read(artifact.sha256) for artifact in registry.artifacts(MODEL, "v1")}
    assert kept["mojo"] == b"trees of v1"
    assert kept["golden"] == GOLDEN.to_json().encode()
    assert kept["contract"] == CONTRACT.encode()
    manifest = read_manifest(store, version.manifest, MODEL, "v1")
    assert manifest.artifacts == {artifact.kind: artifact.sha256 for artifact in registry.artifacts(MODEL, "v1")}


def test_illegal_moves_change_nothing(registry: ModelRegistry, tmp_path: Path) -> None:
    register(registry, tmp_path, "v1")
    with pytest.raises(IllegalTransition, match="v1 is registered and cannot become production"):
        registry.promote(MODEL, "v1", WHY)
    with pytest.raises(IllegalTransition, match="no version in production"):
        registry.rollback(MODEL, WHY)
    registry.stage(MODEL, "v1", WHY)
    with pytest.raises(IllegalTransition, match="v1 is staging and cannot become staging"):
        registry.stage(MODEL, "v1", WHY)
    registry.promote(MODEL, "v1", WHY)
    with pytest.raises(IllegalTransition, match="v1 is production and cannot become production"):
        registry.promote(MODEL, "v1", WHY)
    with pytest.raises(UnknownVersion, match="v9 is not registered"):
        registry.promote(MODEL, "v9", WHY)
    assert registry.wanted()[0].generation == 1
    assert len(registry.history(MODEL)) == 3


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        (
            "update model_registry.versions set stage = 'production' where version = 'v2'",
            psycopg.errors.UniqueViolation,
        ),
        (
            "update model_registry.versions set stage = 'archived' where version = 'v2'",
            psycopg.errors.ForeignKeyViolation,
        ),
        (
            "update model_registry.versions set stage = 'staging' where version = 'v1'",
            psycopg.errors.ForeignKeyViolation,
        ),
        ("delete from model_registry.versions where version = 'v1'", psycopg.errors.ForeignKeyViolation),
        ("update model_registry.models set generation = 0", psycopg.errors.RaiseException),
        (
            "insert into model_registry.artifacts values ('flight-delay', 'v9', 'card', repeat('0', 64), 1)",
            psycopg.errors.ForeignKeyViolation,
        ),
    ],
)
def test_the_schema_itself_refuses(
    registry: ModelRegistry, config: ReconcilerConfig, tmp_path: Path, statement: str, refusal: type[psycopg.Error]
) -> None:
    serve(registry, tmp_path, "v1")
    register(registry, tmp_path, "v2")
    registry.stage(MODEL, "v2", WHY)
    audit = "select set_config('breakwater.actor', 'hand', false), set_config('breakwater.reason', 'try', false)"
    with session(config.database, application_name="test") as connection:
        connection.execute(audit)
        with pytest.raises(refusal):
            connection.execute(statement.encode())


def test_nobody_moves_a_version_without_a_name_and_a_reason(
    registry: ModelRegistry, config: ReconcilerConfig, tmp_path: Path
) -> None:
    register(registry, tmp_path, "v1")
    move = "update model_registry.versions set stage = 'staging'"
    with pytest.raises(psycopg.errors.CheckViolation):
        execute(config, move)
    named = "select set_config('breakwater.actor', 'hand', false), set_config('breakwater.reason', 'try', false);"
    execute(config, f"{named} {move}")
    assert registry.history(MODEL)[-1].actor == "hand"


def test_the_same_version_again_only_with_the_same_content(registry: ModelRegistry, tmp_path: Path) -> None:
    first = register(registry, tmp_path, "v1")
    assert register(registry, tmp_path, "v1") == first
    with pytest.raises(VersionTaken, match="choose a new version"):
        register(registry, tmp_path, "v1", b"other trees")
    assert len(registry.versions(MODEL)) == 1


def test_damaged_artifacts_are_neither_promoted_nor_served(
    registry: ModelRegistry, published: PublishedModels, tmp_path: Path
) -> None:
    serve(registry, tmp_path, "v1")
    register(registry, tmp_path, "v2")
    for version in ("v1", "v2"):
        [mojo] = [each for each in registry.artifacts(MODEL, version) if each.kind == "mojo"]
        (tmp_path / "artifacts" / "sha256" / mojo.sha256[:2] / mojo.sha256).write_bytes(b"treez")
    with pytest.raises(ArtifactCorrupt, match="has sha256"):
        registry.stage(MODEL, "v2", WHY)
    with pytest.raises(ArtifactCorrupt, match="has sha256"):
        published.open(published.look().pointer())
    path, card = described(tmp_path, "v3")
    path.write_bytes(b"swapped")
    with pytest.raises(ArtifactCorrupt, match="train again"):
        registry.register(path, card, GOLDEN, CONTRACT, WHY)


def test_a_store_that_takes_nothing_registers_nothing(
    config: ReconcilerConfig, client: EtcdClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file, where the store's directory should be")
    blocked = ModelRegistry(config.database, client, config.environment, ArtifactStore(str(tmp_path / "file")))
    with pytest.raises(StoreUnavailable, match="does not take an artifact"):
        register(blocked, tmp_path, "v1")
    assert blocked.versions(MODEL) == []


def die(config: ReconcilerConfig, step: str, change: str, version: str = "v1") -> None:
    path = config.directory / "dying.json"
    path.write_text(config.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.registry.dying", str(path), step, change, version],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("step", REGISTER_STEPS)
def test_a_registration_that_dies_leaves_nothing_half(
    registry: ModelRegistry, config: ReconcilerConfig, tmp_path: Path, step: str
) -> None:
    die(config, step, "register")
    assert registry.versions(MODEL) == []
    with session(config.database, application_name="test") as connection:
        for table in ("versions", "artifacts", "metrics", "training_runs", "transitions"):
            rows = sql.SQL("select count(*) from model_registry.{}").format(sql.Identifier(table))
            assert connection.execute(rows).fetchone() == (0,)
    assert register(registry, tmp_path, "v1").stage == "registered"
    assert len(registry.artifacts(MODEL, "v1")) == 4


def test_a_change_that_dies_before_its_commit_did_not_happen(
    registry: ModelRegistry, config: ReconcilerConfig, published: PublishedModels, tmp_path: Path
) -> None:
    serve(registry, tmp_path, "v1")
    register(registry, tmp_path, "v2")
    registry.stage(MODEL, "v2", WHY)
    die(config, "commit promotion", "promote", "v2")
    assert [(pointer.version, pointer.generation) for pointer in registry.wanted()] == [("v1", 1)]
    assert registry.version(MODEL, "v2").stage == "staging"
    assert registry.repair() == []
    assert published.look().pointer().version == "v1"


def test_a_promotion_that_dies_before_the_pointer_is_finished_within_one_interval(
    registry: ModelRegistry, config: ReconcilerConfig, published: PublishedModels, tmp_path: Path
) -> None:
    serve(registry, tmp_path, "v1")
    register(registry, tmp_path, "v2")
    registry.stage(MODEL, "v2", WHY)
    path = tmp_path / "reconciler.json"
    path.write_text(config.model_dump_json())
    with subprocess.Popen([sys.executable, "-m", "services.registry.reconciler", str(path)]) as process:
        try:
            wait_ready(config)
            die(config, "move pointer", "promote", "v2")
            assert registry.wanted()[0].version == "v2"
            deadline = time.monotonic() + REPAIR_INTERVAL_S + 3.0
            while published.look().pointer().version != "v2":
                assert time.monotonic() < deadline, "the reconciler did not finish the promotion"
                time.sleep(0.1)
            assert published.look().pointer() == registry.wanted()[0]
        finally:
            process.terminate()
            assert process.wait(20) == 0
    while published.look().candidate is not None:  # the dead leader's, until its lease ends
        time.sleep(0.1)
    die(config, "move pointer", "rollback")
    assert published.look().pointer().version == "v2"
    assert [pointer.version for pointer in Reconciler(config).round()] == ["v1"]
    assert (published.look().pointer().version, published.look().pointer().generation) == ("v1", 3)


def wait_ready(config: ReconcilerConfig) -> None:
    deadline = time.monotonic() + 20.0
    url = f"http://127.0.0.1:{config.status_port}/ready"
    while True:
        try:
            if urllib3.request("GET", url, timeout=2.0, retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        assert time.monotonic() < deadline, f"{url} is not ready"
        time.sleep(0.05)


def test_a_pointer_ahead_of_the_registry_is_overtaken_and_a_damaged_one_replaced(
    registry: ModelRegistry, config: ReconcilerConfig, client: EtcdClient, published: PublishedModels, tmp_path: Path
) -> None:
    """The registry was restored from an older copy: generations still only grow."""
    serve(registry, tmp_path, "v1")
    key = pointer_key(config.environment, MODEL)
    [wanted] = registry.wanted()
    client.put(key, Pointer(name=MODEL, version="v7", generation=10, manifest="0" * 64).to_json())
    assert [(pointer.version, pointer.generation) for pointer in registry.repair()] == [("v1", 11)]
    assert published.look().pointer() == wanted.model_copy(update={"generation": 11}) == registry.wanted()[0]
    client.put(key, "{")
    with pytest.raises(ArtifactCorrupt, match="promote a model again"):
        published.look().pointer()
    assert len(registry.repair()) == 1
    assert published.look().pointer().generation == 11


def test_a_replica_that_restarts_while_etcd_is_away_knows_what_served(
    config: ReconcilerConfig, registry: ModelRegistry, published: PublishedModels, tmp_path: Path
) -> None:
    serve(registry, tmp_path, "v1")
    pointer = published.look().pointer()
    with EtcdCluster(tmp_path / "gone", 1) as gone:
        away = EtcdClient(gone.clients)
        gone.kill(0)
        store = ArtifactStore(config.artifacts)
        restarted = PublishedModels(away, config.environment, MODEL, store, tmp_path / "replica")
        assert restarted.look().pointer() == pointer
        assert restarted.open(pointer).card.version == "v1"
