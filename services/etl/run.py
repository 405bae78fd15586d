"""The steps of a walk-forward run: `python -m services.etl.run CONFIG STEP`, the order on standard input.

Each step leaves its answer in the run's directory as the last thing it does and gives it again when it is asked again:
whoever kills a step, Mage or the machine loses no more than that step, and nothing is done twice. Rows and models stay
in files; what goes through Mage is small JSON.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from services.contracts.events import Event, EventLog
from services.contracts.flights import MODEL_NAME, contract_schema
from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient, EtcdError
from services.etl import promotion, snapshot, splits
from services.etl.errors import EtlError, NoTrainingData
from services.etl.splits import Split
from services.etl.transform import Features, transform
from services.featurestore.errors import FeatureStoreError
from services.h2o import job
from services.h2o.cluster import H2OCluster
from services.h2o.errors import H2OError
from services.h2o.specs import EnsembleSpec, JobSpec, SplitSpec
from services.h2o.trained import BINARY, COMPARISON, Comparison, TrainedModel
from services.registry.card import Rows, TrainingWindow
from services.registry.errors import RegistryError
from services.registry.published import open_version
from services.registry.registry import ModelRegistry
from services.registry.store import ArtifactStore, write_whole

EVENTS: Final = "events.jsonl"
CUT: Final = "load.json"
OUTCOME: Final = "promote.json"
"""Answers of the first and the last step."""
KEPT_RUNS: Final = 10
"""Directories of the newest runs that stay, with models and reasons; their rows go as soon as the run is done."""


class RunConfig(BaseModel):
    """etl.json: where everything is. `directory` gets one directory per run, `cache` copies of remote artifacts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    member: str
    etcd: tuple[str, ...] = Field(min_length=1)
    shards: tuple[ShardEndpoints, ...] = Field(min_length=1)
    registry: ShardEndpoints
    artifacts: str
    directory: Path


class Order(BaseModel):
    """Which run, as Mage knows it. `month` only for the step that trains one split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: int = Field(ge=1)
    ordered_at: datetime
    seed: int = Field(ge=0)
    month: str | None = None

    @field_validator("ordered_at")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        return value if value.tzinfo else value.replace(tzinfo=UTC)  # Mage keeps UTC without saying so

    @property
    def version(self) -> str:
        """The same for every attempt of the run, and of no other run."""
        return f"{self.ordered_at:%Y%m%d-%H%M%S}-{self.run}"


class Run:
    """One run's directory, and the steps that fill it."""

    def __init__(self, config: RunConfig, order: Order) -> None:
        self._config = config
        self._order = order
        self._directory = config.directory / order.version
        self._directory.mkdir(parents=True, exist_ok=True)
        self._events = EventLog(self._directory / EVENTS)

    def answer(self, step: str) -> str:
        """The step's answer as JSON, from this attempt or from the one that finished before."""
        name = f"{step}-{self._order.month}" if step == "train" else step
        done = self._directory / f"{name}.json"
        with (self._directory / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Mage is known to run a block twice at once (mage-ai#5619)
            if not done.exists():
                try:
                    found = STEPS[step](self)
                except Exception as error:
                    self._say("failed", step=name, error=" ".join(str(error).split()))
                    raise
                write_whole(done, found.encode())
            return done.read_text()

    def load(self) -> str:
        self._forget_old_runs()
        cut = snapshot.take(self._config.shards, self._path("cut.tsv"))
        self._say("loaded", rows=cut.rows, batches=len(cut.batches))
        return cut.model_dump_json()

    def transform(self) -> str:
        features = transform(self._path("cut.tsv"), self._path("features.csv"), self._path("rejected.jsonl"))
        self._say("transformed", rows=features.rows, months=len(features.months), rejected=features.rejected)
        return features.model_dump_json()

    def split(self) -> str:
        """The splits, and the rows whose levels all of their models know: those of every month that one learns from."""
        features = self._features()
        planned = splits.walk_forward(features.months)
        known = self._path("known.csv")
        splits.write_rows(self._path("features.csv"), features, planned[-1].train, known)
        splits.write_cover(known, self._path("cover.csv"))
        known.unlink()
        self._say("planned", splits=len(planned))
        return json.dumps([split.month for split in planned])

    def train(self) -> str:
        """One split as one job of the cloud; its own rows are gone again afterwards."""
        features, split = self._features(), self._split()
        train_csv, test_csv = (self._path(f"{side}-{split.month}.csv") for side in ("train", "test"))
        splits.write_rows(self._path("features.csv"), features, split.train, train_csv)
        splits.write_rows(self._path("features.csv"), features, [split.test], test_csv)
        self._say("split_begun", month=split.month)
        spec = SplitSpec(
            train_csv=train_csv,
            test_csv=test_csv,
            cover_csv=self._path("cover.csv"),
            seed=self._order.seed,
            version=self._order.version,
        )
        model = self._on_the_cloud(spec, self._path(f"split-{split.month}"), split.month)
        for path in (train_csv, test_csv):
            path.unlink()
        self._say("split_trained", month=split.month, rows=model.card.rows.train, **model.card.metrics.model_dump())
        return model.card.metrics.model_dump_json()

    def combine(self) -> str:
        features = self._features()
        plan = splits.ensemble_of(splits.walk_forward(features.months))
        blend, test = (self._path(f"{name}.csv") for name in ("blend", "test"))
        learned = features.months[:-1]
        splits.write_rows(self._path("features.csv"), features, [plan.blend], blend)
        splits.write_rows(self._path("features.csv"), features, [plan.test], test)
        newest = self._trained(plan.bases[-1])
        spec = EnsembleSpec(
            bases=tuple(self._trained(split).model_zip.with_name(BINARY) for split in plan.bases),
            cover_csv=self._path("cover.csv"),
            blend_csv=blend,
            test_csv=test,
            serving=self._serving(),
            rows=Rows(train=sum(month.rows for month in learned), test=plan.test.rows),
            window=TrainingWindow(
                train_start=learned[0].first,
                train_end=plan.blend.last,
                test_start=plan.test.first,
                test_end=plan.test.last,
            ),
            prior=newest.card.metrics.prior,
            seed=self._order.seed,
            version=self._order.version,
        )
        model = self._on_the_cloud(spec, self._path("ensemble"), "ensemble")
        self._say("combined", bases=[split.month for split in plan.bases], **model.card.metrics.model_dump())
        return model.card.to_json()

    def promote(self) -> str:
        place = self._path("ensemble")
        model = TrainedModel.read(place)
        comparison = Comparison.model_validate_json((place / COMPARISON).read_bytes())
        with self._registry() as registry:
            outcome = promotion.carry_out(
                registry,
                model,
                comparison,
                contract_schema(),
                actor=f"mage run {self._order.run} on {self._config.member}",
                origin=f"walk-forward run {self._order.run} with seed {self._order.seed}",
            )
        for name in ("cut.tsv", "features.csv", "blend.csv", "test.csv", "cover.csv"):
            self._path(name).unlink(missing_ok=True)
        self._say("promoted" if outcome.promoted else "kept", version=outcome.version, reason=outcome.reason)
        return outcome.model_dump_json()

    def _features(self) -> Features:
        return Features.model_validate_json(self._path("transform.json").read_bytes())

    def _split(self) -> Split:
        planned = splits.walk_forward(self._features().months)
        for split in planned:
            if split.month == self._order.month:
                return split
        raise NoTrainingData(f"no split is tested on {self._order.month}: {[split.month for split in planned]} are")

    def _trained(self, split: Split) -> TrainedModel:
        return TrainedModel.read(self._path(f"split-{split.month}"))

    def _on_the_cloud(self, spec: JobSpec, place: Path, what: str) -> TrainedModel:
        """Run the job until it is done; `place` then has what the last attempt made, whole."""
        with contextlib.closing(EtcdClient(self._config.etcd)) as etcd:
            cluster = H2OCluster(etcd, self._config.environment)
            jobs = place.with_name(f"{place.name}.jobs")
            made = job.run(spec, cluster, jobs, tell=lambda said: self._say("job", what=what, said=said))
        shutil.rmtree(place, ignore_errors=True)
        made.model_zip.parent.rename(place)
        shutil.rmtree(jobs, ignore_errors=True)
        return TrainedModel.read(place)

    def _serving(self) -> Path | None:
        """The artifact that serves now, as a file; None when nothing does."""
        with self._registry() as registry:
            for pointer in registry.wanted():
                if pointer.name == MODEL_NAME:
                    return open_version(self._store(), pointer.manifest, pointer.name, pointer.version).artifact
        return None

    @contextlib.contextmanager
    def _registry(self) -> Iterator[ModelRegistry]:
        with contextlib.closing(EtcdClient(self._config.etcd)) as etcd:
            yield ModelRegistry(self._config.registry, etcd, self._config.environment, self._store())

    def _store(self) -> ArtifactStore:
        return ArtifactStore(self._config.artifacts, cache=self._config.directory / "artifacts")

    def _forget_old_runs(self) -> None:
        runs = sorted(path for path in self._config.directory.iterdir() if (path / EVENTS).exists())
        for path in runs[:-KEPT_RUNS]:
            shutil.rmtree(path, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _say(self, kind: str, **data: Any) -> None:
        self._events.append(Event.now("training", kind, self._config.member, **data))


STEPS: Final[dict[str, Callable[[Run], str]]] = {
    "load": Run.load,
    "transform": Run.transform,
    "split": Run.split,
    "train": Run.train,
    "combine": Run.combine,
    "promote": Run.promote,
}


def main(arguments: list[str]) -> int:
    match arguments:
        case [path, step] if step in STEPS:
            try:
                config = RunConfig.model_validate_json(Path(path).read_bytes())
                answer = Run(config, Order.model_validate_json(sys.stdin.read())).answer(step)
            except (EtlError, FeatureStoreError, H2OError, RegistryError, EtcdError, psycopg.Error) as error:
                sys.stdout.write(" ".join(str(error).split()) + "\n")
                return 1
            except (OSError, ValidationError) as error:
                sys.stdout.write(f"{path}: {error}\n")
                return 1
            sys.stdout.write(answer + "\n")
            return 0
        case _:
            sys.stderr.write(f"usage: python -m services.etl.run CONFIG {{{','.join(STEPS)}}}\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
