"""One small training, for experiments: `python -m infra.local.training ENVIRONMENT DIRECTORY NAME SEED EVENTS`.

It takes the way of every training (closed batches, the H2O cloud, run again when the cloud is lost) and registers
nothing. What becomes of it is appended to the file EVENTS, for whoever judges a run.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Final

from infra.environment import EnvironmentFault
from infra.local.plan import LocalPlan
from infra.stack import local_plan
from services.contracts.events import Event, EventLog
from services.coordination.etcd import EtcdClient, EtcdError
from services.etl import snapshot, splits
from services.etl.errors import EtlError
from services.etl.transform import transform
from services.featurestore.errors import FeatureStoreError
from services.h2o.cluster import H2OCluster
from services.h2o.errors import H2OError
from services.h2o.job import run
from services.h2o.specs import SplitSpec
from services.h2o.trained import TrainedModel

SOURCE: Final = "training"
TRAIN_ROWS: Final = 5000
"""The last flights of the first month; tested on the first ones of the second."""
SEEDED_ROWS: Final = 997
"""Up to so many more, by the seed, which draws nothing in such a training: other rows make another model."""
TEST_ROWS: Final = 1000
"""Few: the same trees grow in as many rounds between the nodes, which is what a fault can interrupt."""
EXIT_USAGE: Final = 3
EXPECTED: Final = (EnvironmentFault, EtcdError, EtlError, FeatureStoreError, H2OError, OSError)


def cut(plan: LocalPlan, directory: Path, seed: int) -> tuple[Path, Path]:
    """train.csv and test.csv in `directory`, made once: every training of a run learns from the very same files."""
    train_csv, test_csv = directory / "train.csv", directory / "test.csv"
    if not test_csv.exists():
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            rows, features_csv = Path(scratch, "cut.tsv"), Path(scratch, "features.csv")
            snapshot.take(plan.all_shards(), rows)
            features = transform(rows, features_csv, Path(scratch, "rejected.jsonl"))
            split = splits.walk_forward(features.months)[0]
            for months, whole in ((split.train, train_csv), ([split.test], test_csv)):
                splits.write_rows(features_csv, features, months, Path(scratch, whole.name))
            with Path(scratch, train_csv.name).open("rb") as lines, train_csv.open("wb") as out:
                out.write(next(lines))
                out.writelines(deque(lines, TRAIN_ROWS + seed % SEEDED_ROWS))
            with Path(scratch, test_csv.name).open("rb") as lines, test_csv.open("wb") as out:
                out.writelines(itertools.islice(lines, 1 + TEST_ROWS))
    return train_csv, test_csv


def train(plan: LocalPlan, directory: Path, name: str, seed: int, log: EventLog) -> TrainedModel:
    """Train and tell; the artifact is below `directory`/`name`. Raises what the job raises, after telling of it."""
    attempts: list[str] = []

    def tell(what: str) -> None:
        attempts.append(what)
        log.append(Event.now(SOURCE, "attempt", name, what=what))

    try:
        train_csv, test_csv = cut(plan, directory, seed)
        log.append(Event.now(SOURCE, "begun", name))
        spec = SplitSpec(train_csv=train_csv, test_csv=test_csv, seed=seed, version=name)
        with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
            model = run(spec, H2OCluster(etcd, plan.environment), directory / name, tell=tell)
    except EXPECTED as error:
        log.append(Event.now(SOURCE, "failed", name, error=str(error)))
        raise
    log.append(
        Event.now(
            SOURCE,
            "trained",
            name,
            clouds=sum(" again " not in what for what in attempts),
            metrics=model.card.metrics.model_dump(),
            golden=[row.probability for row in model.golden.rows],
        )
    )
    return model


def main(arguments: list[str]) -> int:
    try:
        environment, place, name, seed, events = arguments
        directory, number = Path(place), int(seed)
    except ValueError:
        sys.stderr.write("usage: python -m infra.local.training ENVIRONMENT DIRECTORY NAME SEED EVENTS\n")
        return EXIT_USAGE
    with contextlib.closing(EventLog(Path(events))) as log:
        try:
            train(local_plan(environment), directory, name, number, log)
        except EXPECTED as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
