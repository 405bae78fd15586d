"""Combine the splits' models on an H2O cloud into one, and measure it and what serves on rows that neither decided on.

A stacked ensemble: a non-negative logistic regression over the logits of the models' predictions, fitted on the blend
rows, which no base has learned from. It is one MOJO, so whoever serves models needs to know nothing of it
(docs/adr/0013).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2o
from h2o.estimators import H2OStackedEnsembleEstimator
from h2o.exceptions import H2OError as ClientError

from services.contracts.flights import FEATURES, TARGET
from services.h2o import client
from services.h2o.errors import TrainingRefused
from services.h2o.specs import EnsembleSpec
from services.h2o.trained import COMPARISON, Comparison, Measured, TrainedModel


def combine(spec: EnsembleSpec, url: str, out_dir: Path) -> TrainedModel:
    """Write out_dir/{model.zip,model.json,golden.json,comparison.json}; raises TrainingRefused as `train` does."""
    window = spec.window
    if not window.train_end < window.test_start:
        raise TrainingRefused(
            f"the ensemble learns until {window.train_end.isoformat()} and is tested from "
            f"{window.test_start.isoformat()}: training must end before testing starts"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    files = (spec.cover_csv, spec.blend_csv, spec.test_csv)
    with client.connected(url, files) as job, _loaded(spec.bases) as models:
        cover, blend, test = (client.upload(path, job.key(path.stem)) for path in files)
        ensemble = H2OStackedEnsembleEstimator(
            model_id=job.key("model"),
            base_models=models,
            metalearner_algorithm="glm",
            metalearner_transform="Logit",
            seed=spec.seed,
        )
        ensemble.train(x=list(FEATURES), y=TARGET, training_frame=cover, blending_frame=blend)
        trained = client.bring_home(
            ensemble,
            out_dir,
            version=spec.version,
            seed=spec.seed,
            trainer=f"stacked ensemble of {len(models)} gbm",
            rows=spec.rows,
            window=window,
            prior=spec.prior,
            test=test,
            test_csv=spec.test_csv,
            job=job,
        )
        comparison = Comparison(
            serving=None if spec.serving is None else _measure_serving(spec.serving, test, job),
            constant=Measured(auc=0.5, logloss=_logloss_of_constant(spec.prior, client.share_of_late(test))),
        )
        (out_dir / COMPARISON).write_text(comparison.model_dump_json(indent=2))
    return trained


@contextlib.contextmanager
def _loaded(bases: tuple[Path, ...]) -> Iterator[list[Any]]:
    """The bases on this cloud, under the names that they were trained with; removed at the end."""
    models = [h2o.upload_model(str(path)) for path in bases]
    try:
        yield models
    finally:
        for model in models:
            with contextlib.suppress(ClientError):  # a cloud that is gone has nothing to remove
                h2o.remove(model.model_id)


def _measure_serving(artifact: Path, test: Any, job: client.Job) -> Measured:
    model = h2o.upload_mojo(str(artifact), model_id=job.key("serving"))
    performance = model.model_performance(test)
    return Measured(auc=performance.auc(), logloss=performance.logloss())


def _logloss_of_constant(prior: float, share: float) -> float:
    """What somebody gets who always answers the training's share of late flights."""
    return -(share * math.log(prior) + (1 - share) * math.log(1 - prior))
