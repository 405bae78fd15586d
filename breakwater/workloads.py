"""Load the real data and train the model on it: services composed over a running local environment."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from experiments.commit import commit
from infra.environment import EnvironmentFault
from infra.local import probe
from infra.local.plan import LocalPlan
from infra.local.runtime import Progress
from services.contracts.flights import MODEL_NAME, contract_schema
from services.contracts.training import TRAINING_FILE, TrainingRecord
from services.coordination.etcd import EtcdClient
from services.etl.flights import LoadProgress, load_flights
from services.etl.source import ALL_MONTHS
from services.etl.training import export_training_csv
from services.featurestore.slots import read_slot_map
from services.h2o.cluster import H2OCluster
from services.h2o.job import JobSpec, run
from services.registry.card import ModelCard
from services.registry.registry import ModelRegistry, Why
from services.registry.reload import Reload
from services.registry.store import ArtifactStore

SERVING_S: Final = 30.0
"""A replica looks for a new model twice a second and warms it within a second or two."""
POLL_S: Final = 0.1
SPLIT: Final = datetime.date(2013, 10, 1)
"""Train on January to September, test on October to December: the model never sees what it is judged on."""


def load(plan: LocalPlan, progress: Progress, months: range | None = None) -> None:
    """Bring the flights of 2013 into the feature store; running it again changes nothing."""
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        slot_map = read_slot_map(etcd, plan.environment)
    progress.begin("flights", "reading flights, weather and planes of 2013")

    def tell(step: LoadProgress) -> None:
        progress.begin("flights", f"{step.label}: {step.rows:,} of {step.total_rows:,}")

    report = load_flights(plan.all_shards(), slot_map, progress=tell, months=months or ALL_MONTHS)
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in report.rejected.items()) or "none"
    progress.done(
        "flights",
        f"{report.rows:,} feature vectors of {report.entities:,} scheduled flights, {report.outcomes:,} outcomes; "
        f"rejected: {rejected}",
    )


def train_model(plan: LocalPlan, progress: Progress, *, seed: int, split: datetime.date = SPLIT) -> ModelCard:
    """Train on the H2O cloud, register the model and promote it; the API's replicas pick it up by themselves.

    A training that a dead node interrupts runs again from the same files; only a whole model is ever registered.
    """
    version = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    with tempfile.TemporaryDirectory(prefix="breakwater-train-") as scratch:
        progress.begin("training set", f"closed batches, split at {split}")
        cut = export_training_csv(plan.all_shards(), Path(scratch), split)
        progress.done(
            "training set",
            f"{cut.train_rows:,} flights to {cut.max_train:%Y-%m-%d}, {cut.test_rows:,} from {cut.min_test:%Y-%m-%d}",
        )
        progress.begin("h2o", "waiting for the cloud")
        spec = JobSpec(train_csv=cut.train_csv, test_csv=cut.test_csv, seed=seed, version=version)
        with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
            cluster = H2OCluster(etcd, plan.environment)
            model = run(spec, cluster, Path(scratch) / "jobs", tell=lambda what: progress.begin("h2o", what))
        progress.done("h2o", f"{model.card.name} {version}: {model.card.metrics}")
        progress.begin("registry", "registering and promoting")
        with open_registry(plan) as registry:
            who = actor()
            registry.register(
                model.model_zip, model.card, model.golden, contract_schema(), Why(who, f"trained with seed {seed}")
            )
            reload = registry.bring_into_production(
                model.card.name, version, Why(who, "breakwater train promotes what it trained")
            )
        TrainingRecord(
            version=version, commit=commit(), at=datetime.datetime.now(datetime.UTC), snapshots=cut.snapshots
        ).write(plan.state / TRAINING_FILE)
        progress.done("registry", f"{reload.pointer.version} in production, {spoken(reload)}")
    return model.card


@contextlib.contextmanager
def open_registry(plan: LocalPlan) -> Iterator[ModelRegistry]:
    """The environment's model registry."""
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        yield ModelRegistry(plan.registry_endpoints(), etcd, plan.environment, ArtifactStore(plan.artifacts))


def actor() -> str:
    """Who gives the command, for the registry's audit."""
    return f"{getpass.getuser()} on {socket.gethostname()}"


def spoken(reload: Reload) -> str:
    """The generation, and what each live replica does with it."""
    replicas = ", ".join(f"{each.replica} {each.outcome}" for each in reload.replicas) or "no replica lives yet"
    return f"generation {reload.pointer.generation}: {replicas}"


def has_model(plan: LocalPlan) -> bool:
    """Whether a version is in production here."""
    with open_registry(plan) as registry:
        return any(pointer.name == MODEL_NAME for pointer in registry.wanted())


def wait_serving(plan: LocalPlan, progress: Progress) -> None:
    """Return when every replica serves a model; EnvironmentFault when one does not."""
    progress.begin("api", "replicas load and warm the model")
    end = time.monotonic() + SERVING_S
    for replica in plan.of("api"):
        while (trouble := probe.obstacle(replica)) is not None:
            if time.monotonic() > end:
                raise EnvironmentFault(
                    f"{replica.name} serves no model after {SERVING_S:.0f} s ({trouble}); "
                    f"read `breakwater logs {plan.environment} {replica.name}`"
                )
            time.sleep(POLL_S)
    progress.done("api", "every replica serves the model")
