"""What every training does through H2O's client: connect to the right cloud, upload rows, bring a model home."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h2o
import urllib3
from h2o.exceptions import H2OConnectionError
from h2o.exceptions import H2OError as ClientError

from services.contracts.flights import CATEGORICAL, FEATURES, MODEL_NAME, TARGET
from services.coordination.tls import AUTHORITY
from services.h2o.errors import TrainingRefused
from services.h2o.trained import ARTIFACT, CARD, GOLDEN, TrainedModel
from services.registry.card import Feature, Metrics, ModelCard, Rows, TrainingWindow, sha256_of
from services.registry.golden import Golden, GoldenRow

GOLDEN_ROWS: Final = 32
"""Test rows whose predictions by H2O itself are kept: whoever loads the artifact can see that it says the same."""
HEAP_PER_BYTE: Final = 6
"""Heap that a training needs for each byte of its files: parsed twice over, working copies of a forest, and the garbage
between two collections. The whole year (36 MB) trains in 200 MB."""
ASK_S: Final = 5.0
CLOUD_RELEASE: Final = re.compile(r"H2O is version ([^,\s]+)")
"""What H2O's client says, among advice, of a cloud that it does not fit."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training's keys on the cloud, all under a name of its own: jobs may share a cloud."""

    name: str = field(default_factory=lambda: f"breakwater_{uuid.uuid4().hex[:12]}")
    keys: list[str] = field(default_factory=list)

    def key(self, what: str) -> str:
        """A new key, which is removed when the job ends."""
        self.keys.append(f"{self.name}_{what}")
        return self.keys[-1]


@contextlib.contextmanager
def connected(url: str, files: Iterable[Path]) -> Iterator[Job]:
    """A connection to the cloud behind `url` for a training on `files`; removes what the job made when it ends.

    Over https the environment names the authority to trust, as for etcd.
    Raises TrainingRefused when the cloud runs another release of H2O, has too little heap for the files, or cannot be
    trusted.
    """
    authority = _authority() if url.startswith("https:") else None
    _refuse_too_little(url, sum(path.stat().st_size for path in files), authority)
    job = Job()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it advertises later releases, which export no MOJO
            h2o.connect(url=url, cacert=authority, verbose=False, strict_version_check=True)
    except H2OConnectionError as error:
        release = CLOUD_RELEASE.search(str(error))
        if release is None:
            raise
        raise TrainingRefused(
            f"the cloud at {url} runs H2O {release[1]}, another release than the client's {h2o.__version__}: "
            "install the same on both sides, then `breakwater down` and `up`"
        ) from error
    h2o.no_progress()
    try:
        yield job
    finally:
        for key in reversed(job.keys):
            with contextlib.suppress(ClientError):  # a cloud that is gone has nothing to remove
                h2o.remove(key)
        h2o.connection().close()


def upload(path: Path, key: str) -> Any:
    types = {feature: "enum" if feature in CATEGORICAL else "real" for feature in FEATURES} | {TARGET: "enum"}
    return h2o.upload_file(str(path), destination_frame=key, header=1, col_types=types)


def with_levels_of(cover: Any, rows: Any, key: str) -> Any:
    """The rows under a new key; their categories have all levels of the cover's, in the cover's order."""
    return h2o.assign(cover.rbind(rows)[cover.nrow :, :], key)


def bring_home(
    model: Any,
    out_dir: Path,
    *,
    version: str,
    seed: int,
    trainer: str,
    rows: Rows,
    window: TrainingWindow,
    prior: float,
    test: Any,
    test_csv: Path,
    job: Job,
) -> TrainedModel:
    """Write out_dir/{model.zip,model.json,golden.json}: MOJO, card with metrics on the test rows, golden rows."""
    model_zip = Path(model.download_mojo(path=str(out_dir / ARTIFACT)))
    performance = model.model_performance(test)
    card = ModelCard(
        name=MODEL_NAME,
        version=version,
        sha256=sha256_of(model_zip),
        features=_features(model._model_json["output"]),
        target=TARGET,
        threshold=model.default_threshold(),
        metrics=Metrics(auc=performance.auc(), logloss=performance.logloss(), prior=prior),
        rows=rows,
        window=window,
        seed=seed,
        trainer=f"h2o {h2o.__version__} {trainer}",
    )
    golden = _golden(model, test_csv, job.key("golden"))
    (out_dir / CARD).write_text(card.to_json())
    (out_dir / GOLDEN).write_text(golden.to_json())
    return TrainedModel(model_zip, card, golden)


def share_of_late(frame: Any) -> float:
    return float(frame[TARGET].asnumeric().mean(return_frame=False)[0])


def _authority() -> str:
    authority = os.environ.get(AUTHORITY)
    if not authority:
        raise TrainingRefused(f"H2O is reached by https, but {AUTHORITY} is not set: let it name its PEM file")
    return authority


def _refuse_too_little(url: str, file_bytes: int, authority: str | None) -> None:
    with urllib3.PoolManager(retries=False, timeout=ASK_S, ca_certs=authority) as http:
        answer = http.request("GET", f"{url}/3/Cloud?skip_ticks=true")
    heap = sum(int(node["max_mem"]) for node in json.loads(answer.data)["nodes"])
    needed = file_bytes * HEAP_PER_BYTE
    if heap < needed:
        raise TrainingRefused(
            f"the split's files have {file_bytes / 1e6:.0f} MB and need about {needed / 1e6:.0f} MB of heap, the cloud "
            f"at {url} has {heap / 1e6:.0f} MB: raise breakwater:h2o memory_mb or nodes"
        )


def _golden(model: Any, test_csv: Path, key: str) -> Golden:
    """The first test rows with what H2O itself predicts for them (the probability of being late)."""
    with test_csv.open(newline="") as lines:
        rows = list(itertools.islice(csv.DictReader(lines), GOLDEN_ROWS))
    inputs = [[row[name] or None for name in FEATURES] for row in rows]
    types = ["enum" if name in CATEGORICAL else "real" for name in FEATURES]
    frame = h2o.H2OFrame(
        inputs, destination_frame=key, header=-1, column_names=list(FEATURES), column_types=types, na_strings=[""]
    )
    predicted = model.predict(frame)
    answers = predicted.as_data_frame(use_pandas=False, header=False)
    h2o.remove(predicted)
    return Golden(
        rows=tuple(
            GoldenRow(
                features={
                    name: value if value is None or name in CATEGORICAL else float(value)
                    for name, value in zip(FEATURES, row, strict=True)
                },
                probability=float(answer[-1]),
            )
            for row, answer in zip(inputs, answers, strict=True)
        )
    )


def _features(output: Mapping[str, Any]) -> tuple[Feature, ...]:
    """Inputs in the model's own order; H2O appends the response, which is no input."""
    features = tuple(
        Feature(name=name, domain=tuple(domain) if domain else None)
        for name, domain in zip(output["names"], output["domains"], strict=True)
        if name != TARGET
    )
    if {feature.name for feature in features} != set(FEATURES):
        raise TrainingRefused(
            f"H2O trained on {[feature.name for feature in features]}, not on the contract's features"
        )
    return features
