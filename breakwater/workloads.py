"""Load the real data and train the model on it: services composed over a running local environment."""

from __future__ import annotations

import contextlib
import datetime
import tempfile
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

import urllib3
from h2o.exceptions import H2OError as ClientError

from infra.environment import EnvironmentFault
from infra.local.plan import LOOPBACK, LocalPlan, MemberPlan
from infra.local.probe import get_json
from infra.local.runtime import Progress
from services.coordination.etcd import EtcdClient
from services.etl.flights import LoadProgress, load_flights
from services.etl.source import ALL_MONTHS
from services.etl.training import export_training_csv
from services.featurestore.slots import read_slot_map
from services.h2o.server import H2OServer, running, stop
from services.h2o.train import train
from services.registry.card import ModelCard
from services.registry.errors import NoModel
from services.registry.files import FileRegistry

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
    """Train on a real H2O server, publish the MOJO; the API's replicas pick it up by themselves."""
    topology = plan.topology.h2o
    version = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    with tempfile.TemporaryDirectory(prefix="breakwater-train-") as scratch:
        progress.begin("training set", f"closed batches, split at {split}")
        cut = export_training_csv(plan.all_shards(), Path(scratch), split)
        progress.done(
            "training set",
            f"{cut.train_rows:,} flights to {cut.max_train:%Y-%m-%d}, {cut.test_rows:,} from {cut.min_test:%Y-%m-%d}",
        )
        server = H2OServer(directory=plan.state / "h2o", port=plan.h2o_port, heap_mb=topology.heap_mb)
        server.directory.mkdir(mode=0o700, exist_ok=True)
        if stop(server):
            progress.note("a server that an earlier training left behind is stopped")
        progress.begin("h2o", "starting a server and training")
        with _client_errors(server), running(server) as url:
            model = train(cut.train_csv, cut.test_csv, url, Path(scratch) / "model", seed=seed, version=version)
        pointer = FileRegistry(plan.models_dir).publish(model.model_zip, model.card)
    metrics = model.card.metrics
    progress.done("h2o", f"{pointer.name} {pointer.version}: {metrics}")
    return model.card


@contextlib.contextmanager
def _client_errors(server: H2OServer) -> Iterator[None]:
    """What H2O's own client raises, as one line; usually its server died, for want of memory."""
    try:
        yield
    except ClientError as error:
        raise EnvironmentFault(
            f"training failed, H2O said: {' '.join(str(error).split())[:400]}; read {server.log}, see that "
            f"{server.heap_mb} MB of heap are free, then train again"
        ) from error


def has_model(plan: LocalPlan) -> bool:
    """Whether a model has been published here."""
    try:
        FileRegistry(plan.models_dir).pointer()
    except NoModel:
        return False
    return True


def wait_serving(plan: LocalPlan, progress: Progress) -> None:
    """Return when every replica serves a model; EnvironmentFault when one does not."""
    progress.begin("api", "replicas load and warm the model")
    end = time.monotonic() + SERVING_S
    for replica in plan.of("api"):
        while (trouble := _not_serving(replica)) is not None:
            if time.monotonic() > end:
                raise EnvironmentFault(
                    f"{replica.name} serves no model after {SERVING_S:.0f} s ({trouble}); "
                    f"read `breakwater logs {plan.environment} {replica.name}`"
                )
            time.sleep(POLL_S)
    progress.done("api", "every replica serves the model")


def _not_serving(replica: MemberPlan) -> str | None:
    """Why a replica serves no model; None when it does."""
    try:
        status, answer = get_json(f"http://{LOOPBACK}:{replica.port}/readyz")
    except (OSError, urllib3.exceptions.HTTPError) as error:
        return f"not answering: {type(error).__name__}"
    return None if status == HTTPStatus.OK else str(answer.get("reason") or status)
