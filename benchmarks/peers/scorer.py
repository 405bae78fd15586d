"""The scorer that every peer is given: H2O's genmodel by JPype, one row at a time. Runs in the peers' environments."""

from __future__ import annotations

import os
from collections.abc import Iterable

import jpype


class Scorer:
    """The model of BENCH_MOJO, scored by the genmodel runtime of BENCH_GENMODEL. One thread at a time."""

    def __init__(self) -> None:
        if not jpype.isJVMStarted():
            jpype.startJVM(
                "-Xrs",
                "-Xmx128m",
                "-XX:+UseSerialGC",
                classpath=[os.environ["BENCH_GENMODEL"]],
                convertStrings=False,
            )
        self._model = jpype.JClass("hex.genmodel.MojoModel").load(os.environ["BENCH_MOJO"])
        self._row = jpype.JArray(jpype.JDouble, 1)
        self._predictions = self._row([0.0] * int(self._model.getPredsSize()))

    def score(self, row: Iterable[float]) -> float:
        """The probability of being late."""
        return float(self._model.score0(self._row(row), self._predictions)[2])
