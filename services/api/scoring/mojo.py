"""One H2O model (MOJO), scored by the genmodel runtime in this process: the same numbers as H2O itself."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jpype

from services.api.scoring.errors import ModelRefused
from services.api.scoring.vector import Row
from services.registry import ModelCard

BINOMIAL_PREDICTIONS = 3
"""score0 of a binomial model gives its own decision, then the probabilities of no and yes."""


class Score(NamedTuple):
    """`late` is the model's own decision, at the threshold of its best F1 in training."""

    probability: float
    late: bool


class MojoScorer:
    """A loaded model. One thread at a time; dropping the last reference frees it."""

    def __init__(self, artifact: Path, card: ModelCard) -> None:
        """Load and compare with the card; ModelRefused says what differs. Needs the JVM; blocks for 10 to 100 ms."""
        try:
            model = jpype.JClass("hex.genmodel.MojoModel").load(str(artifact))
        except jpype.JException as error:
            raise ModelRefused(f"genmodel cannot load {artifact}: {error}; publish a MOJO") from error
        _check(model, card)
        self._score_each = _bulk_operator(model)
        self._width = len(card.features)
        self._as_list = jpype.JClass("java.util.Arrays").asList
        self.calls = 0
        """How often it has been asked."""

    def score(self, rows: Sequence[Row]) -> list[Score]:
        """Scores in the order of the rows: all of them in one call into Java.

        Rows go to Java and predictions come back in one piece each: value by value took as long as scoring them.
        """
        self.calls += 1
        values = memoryview(array("d", chain.from_iterable(rows)).tobytes())
        table = jpype.JArray.of(values.cast("d", (len(rows), self._width)))
        self._as_list(table).replaceAll(self._score_each)  # each row by its predictions, in place
        predictions: Any = memoryview(table).tolist()
        return [Score(probability, decision == 1) for decision, _, probability in predictions]


def _bulk_operator(model: Any) -> Any:
    """`row -> score0(row, new double[3])` as a Java function, so that a batch is one call from Python.

    Every call into Java lets go of the interpreter lock and takes it back; beside a busy event loop each of these can
    wait for several milliseconds (64 calls of one row took up to 239 ms, one call of 64 rows up to 21 ms).
    """
    handles = jpype.JClass("java.lang.invoke.MethodHandles")
    vector = jpype.JClass("double[]").class_
    signature = jpype.JClass("java.lang.invoke.MethodType").methodType(vector, vector, vector)
    score0 = handles.publicLookup().findVirtual(jpype.JClass("hex.genmodel.MojoModel"), "score0", signature)
    length = jpype.JArray(jpype.JObject)([jpype.JInt(BINOMIAL_PREDICTIONS)])
    fresh = handles.insertArguments(handles.arrayConstructor(vector), 0, length)
    return jpype.JClass("java.lang.invoke.MethodHandleProxies").asInterfaceInstance(
        jpype.JClass("java.util.function.UnaryOperator"),
        handles.collectArguments(score0.bindTo(model), 1, fresh),
    )


def _check(model: Any, card: ModelCard) -> None:
    category = str(model.getModelCategory())
    if category != "Binomial" or model.getPredsSize() != BINOMIAL_PREDICTIONS:
        raise ModelRefused(f"{card.name} {card.version} is a {category} model: publish a binomial one")
    names = [str(name) for name in model.getNames()][: model.nfeatures()]
    domains = [model.getDomainValues(index) for index in range(len(names))]
    actual = [(name, domain and tuple(map(str, domain))) for name, domain in zip(names, domains, strict=True)]
    for (name, domain), feature in zip(actual, card.features, strict=False):
        if (name, domain) != (feature.name, feature.domain):
            raise ModelRefused(
                f"{card.name} {card.version}: the artifact's feature {name} is not its card's {feature.name}, or has "
                "other levels: publish artifact and card of one training"
            )
    if len(actual) != len(card.features):
        raise ModelRefused(
            f"{card.name} {card.version}: the artifact has {len(actual)} features, its card {len(card.features)}: "
            "publish artifact and card of one training"
        )
