"""Train one split's flight-delay model on an H2O cloud and bring home its MOJO, card and golden rows."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Final

import h2o
from h2o.estimators import H2OGradientBoostingEstimator

from services.contracts.flights import EVENT_TIME, FEATURES, TARGET
from services.h2o import client
from services.h2o.errors import TrainingRefused
from services.h2o.trained import BINARY, TrainedModel
from services.registry.card import Rows, TrainingWindow

__all__ = ["TrainedModel", "train"]

TREES: Final = 20
DEPTH: Final = 5
LEARN_RATE: Final = 0.2
"""Eleven splits of a year train in about a minute on two cores, and the ensemble of three is 60 trees to score."""


def train(
    train_csv: Path,
    test_csv: Path,
    url: str,
    out_dir: Path,
    *,
    seed: int,
    version: str,
    cover_csv: Path | None = None,
) -> TrainedModel:
    """Train on one file, measure on the other, write out_dir/{model.zip,model.json,golden.json,model.bin}.

    All files have a header with the contract's features, `late` (0 or 1) and `event_time`; empty is missing.
    Of `cover_csv` only the levels count (SplitSpec).
    model.bin is H2O's own form of the model, from which a cloud of the same release takes it up again.
    The same files, seed, trees, nodes and number of H2O threads give the same model. Jobs may share a cloud: each
    uses keys of its own and removes them.
    Raises TrainingRefused when a column is missing, when max(train) < min(test) does not hold, when the cloud has too
    little memory or is of another release, or when it gave another model than asked for; errors of H2O's own client
    pass through.
    """
    train_span, test_span = _span(train_csv), _span(test_csv)
    if not train_span[1] < test_span[0]:
        raise TrainingRefused(
            f"{train_csv} ends at {train_span[1].isoformat()}, {test_csv} starts at {test_span[0].isoformat()}: "
            "training must end before testing starts"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    with client.connected(url, (train_csv, test_csv)) as job:
        training = client.upload(train_csv, job.key("train"))
        if cover_csv is not None:
            training = client.with_levels_of(client.upload(cover_csv, job.key("cover")), training, job.key("covered"))
        test = client.upload(test_csv, job.key("test"))
        model = H2OGradientBoostingEstimator(
            model_id=job.key("model"),
            ntrees=TREES,
            max_depth=DEPTH,
            learn_rate=LEARN_RATE,
            seed=seed,
            distribution="bernoulli",
            ignore_const_cols=False,  # a column that is constant in this window stays part of the contract
        )
        model.train(x=list(FEATURES), y=TARGET, training_frame=training)
        trained = client.bring_home(
            model,
            out_dir,
            version=version,
            seed=seed,
            trainer=f"gbm {TREES}x{DEPTH}",
            rows=Rows(train=training.nrow, test=test.nrow),
            window=TrainingWindow(
                train_start=train_span[0], train_end=train_span[1], test_start=test_span[0], test_end=test_span[1]
            ),
            prior=client.share_of_late(training),
            test=test,
            test_csv=test_csv,
            job=job,
        )
        Path(h2o.download_model(model, path=str(out_dir))).rename(out_dir / BINARY)
    return trained


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
