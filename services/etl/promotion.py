"""When a new ensemble goes into production: the stated rule, and the registry's steps, which may be repeated."""

from __future__ import annotations

import contextlib
from typing import Final

from pydantic import BaseModel, ConfigDict

from services.h2o.trained import Comparison, TrainedModel
from services.registry.card import Metrics
from services.registry.errors import PointerPending
from services.registry.registry import ModelRegistry, Stage, Why

MIN_GAIN: Final = 0.001
"""Log loss by which the new model has to be better than the one that serves, on the same rows. A test month has some
27,000 rows; the loss of two models on so many differs by a third of this through chance alone."""


class Decision(BaseModel):
    """What becomes of a version, and why; kept in the registry's audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promote: bool
    reason: str


class Outcome(BaseModel):
    """How a run ended. `serving`: generation and replicas when it was promoted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    stage: Stage
    promoted: bool
    reason: str
    metrics: Metrics


def decide(candidate: Metrics, comparison: Comparison) -> Decision:
    """Promote what predicts better than always the same answer, and better than what serves by `MIN_GAIN`.

    Both are measured on the same rows: the last month, which the candidate has never seen. What serves may have been
    trained on it; that is in its favour, never in the candidate's.
    """
    if not candidate.logloss < comparison.constant.logloss:
        return Decision(
            promote=False,
            reason=f"log loss {candidate.logloss:.4f} is not better than that of always the same answer, "
            f"{comparison.constant.logloss:.4f}",
        )
    if comparison.serving is None:
        return Decision(promote=True, reason=f"log loss {candidate.logloss:.4f}; nothing serves yet")
    gain = comparison.serving.logloss - candidate.logloss
    said = f"log loss {candidate.logloss:.4f} against {comparison.serving.logloss:.4f} of what serves, on the same rows"
    if gain < MIN_GAIN:
        return Decision(promote=False, reason=f"{said}: not better by {MIN_GAIN}")
    return Decision(promote=True, reason=f"{said}: better by {gain:.4f}")


def carry_out(
    registry: ModelRegistry, model: TrainedModel, comparison: Comparison, contract: str, *, actor: str, origin: str
) -> Outcome:
    """Register the model and, where the rule says so, bring it into production; repeating it changes nothing.

    Raises what the registry raises; nothing is half registered then.
    """
    card = model.card
    decision = decide(card.metrics, comparison)
    registered = registry.register(model.model_zip, card, model.golden, contract, Why(actor, origin))
    if decision.promote and registered.stage in {"registered", "staging"}:
        with contextlib.suppress(PointerPending):  # decided: the reconciler moves the pointer within its interval
            registry.bring_into_production(card.name, card.version, Why(actor, decision.reason))
    return Outcome(
        version=card.version,
        stage=registry.version(card.name, card.version).stage,
        promoted=decision.promote,
        reason=decision.reason,
        metrics=card.metrics,
    )
