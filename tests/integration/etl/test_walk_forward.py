"""Walk-forward training with a real Mage, Postgres, etcd and H2O cloud: ordered by API, killed half-way, resumed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from services.contracts.flights import MODEL_NAME
from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap
from services.coordination.etcd import EtcdClient
from services.etl import orders
from services.etl.errors import RunFailed
from services.etl.flights import load_flights
from services.etl.promotion import Outcome
from services.etl.run import EVENTS, RunConfig
from services.featurestore.migrate import apply
from services.featurestore.sessions import session, transaction
from services.registry import ArtifactStore
from services.registry.published import open_version
from services.registry.registry import MIGRATIONS, ModelRegistry
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.integration.etl.mage_member import LATE_S, START_S, MageMember
from tests.integration.featurestore.conftest import TEMPLATE, fresh_shards
from tests.integration.featurestore.servers import Postgres
from tests.integration.h2o.nodes import ENVIRONMENT, Nodes, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MONTHS = (1, 2, 3)
TESTED = {"2013-02", "2013-03"}
SAME = 1e-6
RUN_S = 300.0
MINUTE_S = 60.0
"""Cron knows nothing shorter."""


class Training(NamedTuple):
    """Everything that a walk-forward run needs."""

    shards: tuple[ShardEndpoints, ShardEndpoints]
    nodes: Nodes
    mage: MageMember
    registry: ModelRegistry
    artifacts: ArtifactStore


@pytest.fixture(scope="module")
def training(servers: tuple[Postgres, Postgres], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    directory = tmp_path_factory.mktemp("training")
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), 1) as etcd, Nodes(directory, etcd.clients, 1) as nodes:
        shards = fresh_shards(servers, TEMPLATE)
        load_flights(shards, SlotMap.even(2), months=MONTHS, progress=lambda _: None)
        for database in ("walk_registry", "walk_mage"):
            servers[0].create_database(database)
        apply([servers[0].endpoints(0, "walk_registry")], migrations=MIGRATIONS)
        steps = RunConfig(
            environment=ENVIRONMENT,
            member="mage-0",
            etcd=tuple(etcd.clients),
            shards=shards,
            registry=servers[0].endpoints(0, "walk_registry"),
            artifacts=str(directory / "artifacts"),
            directory=directory / "runs",
        )
        for place in (steps.directory, directory / "mage"):
            place.mkdir()
        client = EtcdClient(etcd.clients)
        store = ArtifactStore(steps.artifacts)
        registry = ModelRegistry(steps.registry, client, ENVIRONMENT, store)
        with MageMember(directory / "mage", steps, servers[0].endpoints(0, "walk_mage")) as mage:
            yield Training(shards, nodes, mage, registry, store)
        client.close()


@pytest.fixture(scope="module")
def undisturbed(training: Training) -> tuple[Outcome, Outcome]:
    """How two orders of the same seed ended that were given at once."""
    first, second = (orders.place(training.mage.office, seed=7) for _ in range(2))
    ended = tuple(
        orders.follow(training.mage.office, order, lambda _: None, timeout_s=RUN_S) for order in (first, second)
    )
    began = training.mage.said(second, "loaded")[0].t_ns
    assert training.mage.said(first, "promoted")[0].t_ns < began, "the second order waited for its turn"
    return ended[0], ended[1]


def test_the_ensemble_is_promoted_and_is_what_the_registry_says(
    training: Training, undisturbed: tuple[Outcome, Outcome]
) -> None:
    outcome, _ = undisturbed
    assert (outcome.promoted, outcome.stage) == (True, "production")
    assert "nothing serves yet" in outcome.reason
    version = training.registry.version(MODEL_NAME, outcome.version)
    files = open_version(training.artifacts, version.manifest, MODEL_NAME, outcome.version)
    assert "stacked ensemble of 1 gbm" in files.card.trainer
    assert files.card.metrics == outcome.metrics
    assert 0.55 < files.card.metrics.auc < 0.95
    assert files.card.window.train_end < files.card.window.test_start
    assert (f"{files.card.window.train_end:%Y-%m}", f"{files.card.window.test_start:%Y-%m}") == ("2013-03", "2013-03")
    why = [line.reason for line in training.registry.history(MODEL_NAME, outcome.version)]
    assert why[0].startswith("walk-forward run")
    assert why[-1] == outcome.reason


def test_an_equal_model_is_not_better_and_stays_registered(
    training: Training, undisturbed: tuple[Outcome, Outcome]
) -> None:
    first, second = undisturbed
    assert (second.promoted, second.stage) == (False, "registered")
    assert "not better by" in second.reason
    assert second.metrics.logloss == pytest.approx(first.metrics.logloss, abs=SAME)
    assert second.metrics.auc == pytest.approx(first.metrics.auc, abs=SAME)
    [pointer] = training.registry.wanted()
    assert pointer.version == first.version


def answered(run: Path) -> set[str]:
    """Months whose split has an answer that no later attempt gives again."""
    return {path.stem.removeprefix("train-") for path in run.glob("train-*.json")}


def test_a_run_that_loses_a_node_a_step_and_mage_itself_ends_in_an_equal_model_once(
    training: Training, undisturbed: tuple[Outcome, Outcome]
) -> None:
    _, nodes, mage, registry, _ = training
    order = orders.place(mage.office, seed=7)
    mage.wait_said(order, "split_begun", 60.0)
    epoch = nodes.epoch()
    nodes.signal_jvm("h2o-0", signal.SIGKILL)
    mage.wait_said(order, "job", 60.0, lambda event: "runs again from its snapshot" in event.data["said"])
    wait_until(lambda: mage.pids("services.etl.run"), 30.0, "a step runs")
    os.kill(mage.pids("services.etl.run")[0], signal.SIGKILL)
    run = mage.office.runs / order.version
    wait_until(lambda: answered(run), 120.0, "a split has its answer")
    mage.kill()
    finished, begun = answered(run), Counter(event.data["month"] for event in mage.said(order, "split_begun"))
    mage.start()
    outcome = orders.follow(mage.office, order, lambda _: None, timeout_s=RUN_S)

    assert nodes.epoch() > epoch
    again = Counter(event.data["month"] for event in mage.said(order, "split_begun"))
    assert {month: again[month] for month in finished} == {month: begun[month] for month in finished}, "no split twice"
    assert outcome.metrics.logloss == pytest.approx(undisturbed[0].metrics.logloss, abs=SAME)
    assert outcome.metrics.auc == pytest.approx(undisturbed[0].metrics.auc, abs=SAME)
    assert answered(run) == {event.data["month"] for event in mage.said(order, "split_trained")} == TESTED
    assert [len(mage.said(order, kind)) for kind in ("loaded", "transformed", "combined")] == [1, 1, 1]
    assert [v.version for v in registry.versions(MODEL_NAME)].count(order.version) == 1
    assert len([line for line in registry.history(MODEL_NAME, order.version) if line.from_stage is None]) == 1


def test_an_order_that_cannot_be_carried_out_ends_with_the_reason(
    training: Training, undisturbed: tuple[Outcome, Outcome]
) -> None:
    before = len(training.registry.versions(MODEL_NAME))
    with transaction(training.shards[1], application_name="test") as connection:
        connection.execute("update batches set closed_at = null where label = '2013-03'")
    order = orders.place(training.mage.office, seed=7)
    with pytest.raises(RunFailed, match=r"split: there are 2 months with rows \(2013-01, 2013-02\)"):
        orders.follow(training.mage.office, order, lambda _: None, timeout_s=RUN_S)
    assert len(training.mage.said(order, "failed")) == 3, "the step and its two retries"
    assert len(training.registry.versions(MODEL_NAME)) == before


def test_a_scheduler_that_hangs_is_seen_and_started_again(training: Training) -> None:
    """Mage's own web server goes on answering meanwhile."""
    mage = training.mage
    mage.wait_ready()
    mage.stop_loop()
    wait_until(
        lambda: "loop has not turned" in (mage.obstacle() or ""), 4 * LATE_S, "the hanging loop makes it not ready"
    )
    process = mage.process
    assert process is not None
    assert process.wait(10 * LATE_S) == 1, "supervision starts it again"
    assert mage.alive() == []
    mage.start()
    mage.wait_ready()


def test_a_schedule_begins_a_run_by_itself_until_it_is_taken_away(training: Training) -> None:
    mage, known = training.mage, set(training.mage.office.runs.iterdir())

    def begun() -> list[Path]:
        return [run for run in set(mage.office.runs.iterdir()) - known if (run / EVENTS).exists()]

    mage.wait_ready()
    mage.kill()
    mage.start(schedule="* * * * *")
    wait_until(begun, START_S + MINUTE_S, "a run of the schedule begins")
    mage.kill()
    mage.start()
    mage.wait_ready()
    with session(mage.office.database, application_name="test") as connection:
        rows = connection.execute("select name, status::text from pipeline_schedule").fetchall()
    assert sorted(rows) == [("order", "ACTIVE"), ("schedule", "INACTIVE")]
