"""From a feature vector to the row of doubles that a model takes, and to bytes that are equal for equal rows."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from services.contracts.flights import FlightFeatures
from services.registry import Feature

Row = tuple[float, ...]


class VectorEncoder:
    """Encodes for one model: its order of features, and its levels of categoricals.

    Missing values and levels that the model never saw are NaN, which is how genmodel spells missing.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self._plan = tuple(
            (feature.name, {level: float(index) for index, level in enumerate(feature.domain)})
            if feature.domain is not None
            else (feature.name, None)
            for feature in features
        )
        self._packer = struct.Struct(f"<{len(self._plan)}d")

    def row(self, vector: FlightFeatures) -> Row:
        """Canonical: -0.0 is 0.0, and NaN is always the same NaN."""
        values = []
        for name, levels in self._plan:
            value = getattr(vector, name)
            if value is None:
                values.append(math.nan)
            elif levels is None:
                values.append(value + 0.0)
            else:
                values.append(levels.get(value, math.nan))
        return tuple(values)

    def pack(self, row: Row) -> bytes:
        """Equal rows give equal bytes, in every process."""
        return self._packer.pack(*row)
