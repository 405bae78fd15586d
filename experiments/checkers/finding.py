"""What a checker says: a value against its target, a verdict, and what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from typing import Final

from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise

EXHIBIT_ROWS: Final = 20
"""A report shows this many rows of an exhibit and says how many there are; the history holds them all."""

Cell = str | int | float | None


class Verdict(StrEnum):
    """Worst first: `false` is proof of a broken promise, `unknown` is no proof of anything, `true` is proof."""

    FALSE = "false"
    UNKNOWN = "unknown"
    TRUE = "true"

    def worse(self, other: Verdict) -> Verdict:
        order = list(Verdict)
        return min(self, other, key=order.index)


def merge(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of them; nothing judged is nothing known."""
    listed = list(verdicts)
    return reduce(Verdict.worse, listed) if listed else Verdict.UNKNOWN


@dataclass(frozen=True, slots=True)
class Exhibit:
    """Rows that show why: lost keys, the operations in a gap. `total` counts those that are not shown, too."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise judged. `value` is None when nothing was measured; `n` samples, in words `out_of`."""

    value: float | None
    target: float
    verdict: Verdict
    n: int
    out_of: str
    reason: str
    evidence: tuple[Exhibit, ...] = ()


Checker = Callable[[History, Evidence, Promise, RunRecord], Finding]
"""Pure: no clock, no I/O, the same answer for the same stored run."""


def unknown(
    promise: Promise, reason: str, *, value: float | None = None, n: int = 0, out_of: str = "nothing measured"
) -> Finding:
    """The answer when the run proves neither that the promise was kept nor that it was broken."""
    return Finding(value, promise.target, Verdict.UNKNOWN, n, out_of, reason)


def measured(
    promise: Promise, value: float, *, n: int, out_of: str, reason: str, evidence: tuple[Exhibit, ...] = ()
) -> Finding:
    """True or false by the promise's own comparison."""
    verdict = Verdict.TRUE if promise.kept(value) else Verdict.FALSE
    return Finding(value, promise.target, verdict, n, out_of, reason, evidence)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 write`, `11,842 writes`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
