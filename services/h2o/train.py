"""Train the flight-delay model on an H2O cloud and bring home its MOJO, card and golden rows."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import h2o
from h2o.estimators import H2OGradientBoostingEstimator
from h2o.exceptions import H2OError as ClientError

from services.contracts.flights import CATEGORICAL, FEATURES, MODEL_NAME, TARGET
from services.h2o.errors import TrainingRefused
from services.h2o.trained import TrainedModel
from services.registry.card import Feature, Metrics, ModelCard, Rows, TrainingWindow, sha256_of
from services.registry.golden import Golden, GoldenRow

__all__ = ["EVENT_TIME", "TrainedModel", "train"]

TREES = 50
DEPTH = 5
"""At 50 trees of depth 5 one row scores in 2 to 4 us, and 245,000 rows train in 14 s on two cores (one node)."""

LEARN_RATE = 0.1
GOLDEN_ROWS = 32
"""Test rows whose predictions by H2O itself are kept: whoever loads the artifact can see that it says the same."""
EVENT_TIME = "event_time"
"""Column with the scheduled departure, ISO 8601 with offset. It orders the parts and is no feature."""


def train(train_csv: Path, test_csv: Path, url: str, out_dir: Path, *, seed: int, version: str) -> TrainedModel:
    """Train on one file, measure on the other, write out_dir/{model.zip,model.json,golden.json}.

    Both files have a header with the contract's features, `late` (0 or 1) and `event_time`; empty is missing.
    The same files, seed, trees, nodes and number of H2O threads give the same model. Jobs may share a cloud: each
    uses keys of its own and removes them.
    Raises TrainingRefused when a column is missing, when max(train) < min(test) does not hold, or when the server
    gave another model than asked for; errors of H2O's own client pass through.
    """
    train_span, test_span = _span(train_csv), _span(test_csv)
    if not train_span[1] < test_span[0]:
        raise TrainingRefused(
            f"{train_csv} ends at {train_span[1].isoformat()}, {test_csv} starts at {test_span[0].isoformat()}: "
            "training must end before testing starts"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):  # it advertises later releases, which export no MOJO
        h2o.connect(url=url, verbose=False, strict_version_check=True)
    h2o.no_progress()
    job = f"breakwater_{uuid.uuid4().hex[:12]}"
    try:
        training, test = _upload(train_csv, f"{job}_train"), _upload(test_csv, f"{job}_test")
        model = H2OGradientBoostingEstimator(
            model_id=f"{job}_model",
            ntrees=TREES,
            max_depth=DEPTH,
            learn_rate=LEARN_RATE,
            seed=seed,
            distribution="bernoulli",
            ignore_const_cols=False,  # a column that is constant in this window stays part of the contract
        )
        model.train(x=list(FEATURES), y=TARGET, training_frame=training)
        model_zip = Path(model.download_mojo(path=str(out_dir / "model.zip")))
        performance = model.model_performance(test)
        card = ModelCard(
            name=MODEL_NAME,
            version=version,
            sha256=sha256_of(model_zip),
            features=_features(model._model_json["output"]),
            target=TARGET,
            threshold=model.default_threshold(),
            metrics=Metrics(auc=performance.auc(), logloss=performance.logloss(), prior=_prior(training)),
            rows=Rows(train=training.nrow, test=test.nrow),
            window=TrainingWindow(
                train_start=train_span[0], train_end=train_span[1], test_start=test_span[0], test_end=test_span[1]
            ),
            seed=seed,
            trainer=f"h2o {h2o.__version__} gbm {TREES}x{DEPTH}",
        )
        golden = _golden(model, test_csv, f"{job}_golden")
    finally:
        for key in ("model", "train", "test", "golden"):
            with contextlib.suppress(ClientError):  # a cloud that is gone has nothing to remove
                h2o.remove(f"{job}_{key}")
        h2o.connection().close()
    (out_dir / "model.json").write_text(card.to_json())
    (out_dir / "golden.json").write_text(golden.to_json())
    return TrainedModel(model_zip, card, golden)


def _span(path: Path) -> tuple[datetime, datetime]:
    """First and last event time of a file, after checking that it has every column that training needs."""
    with path.open(newline="") as lines:
        reader = csv.reader(lines)
        header = next(reader, [])
        if missing := {*FEATURES, TARGET, EVENT_TIME} - set(header):
            raise TrainingRefused(f"{path} lacks the columns {', '.join(sorted(missing))}: build it again")
        column = header.index(EVENT_TIME)
        moments = {row[column] for row in reader}
    if not moments:
        raise TrainingRefused(f"{path} has no rows: choose another window")
    times = [datetime.fromisoformat(moment) for moment in moments]
    if any(time.tzinfo is None for time in times):
        raise TrainingRefused(f"{path} has event times without an offset from UTC: write them with one")
    return min(times), max(times)


def _upload(path: Path, key: str) -> Any:
    types = {feature: "enum" if feature in CATEGORICAL else "real" for feature in FEATURES} | {TARGET: "enum"}
    return h2o.upload_file(str(path), destination_frame=key, header=1, col_types=types)


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


def _prior(frame: Any) -> float:
    return float(frame[TARGET].asnumeric().mean(return_frame=False)[0])
