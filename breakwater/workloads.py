"""Load the real data and train the model on it: services composed over a running local environment."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import socket
import time
from collections.abc import Iterator
from typing import Final

from breakwater import training_lines as lines
from experiments.commit import commit
from infra.environment import EnvironmentFault
from infra.local import probe
from infra.local.plan import LocalPlan
from infra.local.runtime import Progress
from services.contracts.events import Event
from services.contracts.flights import MODEL_NAME
from services.contracts.training import TRAINING_FILE, TrainingRecord
from services.coordination.etcd import EtcdClient
from services.etl import orders
from services.etl.flights import LoadProgress, load_flights
from services.etl.orders import Office
from services.etl.promotion import Outcome
from services.etl.source import ALL_MONTHS
from services.featurestore.slots import read_slot_map
from services.registry.registry import ModelRegistry
from services.registry.reload import Reload
from services.registry.store import ArtifactStore

SERVING_S: Final = 30.0
"""A replica looks for a new model twice a second and warms it within a second or two."""
POLL_S: Final = 0.1


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


def train_model(plan: LocalPlan, progress: Progress, *, seed: int) -> Outcome:
    """Order a walk-forward run from Mage and follow it to its end; the API's replicas pick up by themselves what it
    brings into production. Whoever ends this command does not end the run."""
    if not plan.topology.mage.enabled:
        raise EnvironmentFault(
            f"{plan.environment} has no Mage, which trains: set breakwater:mage enabled: true in "
            f"Pulumi.{plan.environment}.yaml, then `breakwater down {plan.environment}` and `up`"
        )
    office = Office(plan.mage_url, plan.mage_endpoints(), plan.runs_dir)
    progress.begin("mage", "waiting for it to take orders")
    order = orders.place(office, seed=seed)
    progress.done("mage", f"walk-forward run {order.run} is ordered, version {order.version}")

    def tell(event: Event) -> None:
        what = lines.of(event)
        if what is None:
            progress.begin("mage", f"run {order.run}: {event.kind.replace('_', ' ')} {event.data.get('month', '')}")
        else:
            progress.done(*what)

    outcome = orders.follow(office, order, tell)
    TrainingRecord(
        version=order.version,
        commit=commit(),
        at=datetime.datetime.now(datetime.UTC),
        snapshots=orders.cut_of(office, order).snapshots,
    ).write(plan.state / TRAINING_FILE)
    return outcome


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
