"""Compare a run with a baseline, promise by promise, against the noise of repeated runs. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from experiments.checkers.finding import Verdict

LEAST_REPEATS: Final = 4
"""Fewer other runs than this say nothing of how much a figure moves by itself."""
DEVIATIONS: Final = 3.0
SIGMA: Final = 1.4826
"""A median absolute deviation times this is a standard deviation, for normal noise; three of them are no accident."""
MATTERS: Final = 0.05
"""A change of less than this share of the target decides nothing, however quiet the repeats were."""


class Change(StrEnum):
    """Worst first."""

    REGRESSION = "regression"
    UNKNOWN = "cannot tell"
    IMPROVEMENT = "improvement"
    NONE = "no change"


EXIT_CODES: Final = {Change.REGRESSION: 1, Change.UNKNOWN: 2, Change.IMPROVEMENT: 0, Change.NONE: 0}


@dataclass(frozen=True, slots=True)
class Measured:
    """A promise of a judged run, as verdict.json tells it."""

    id: str
    title: str
    verdict: Verdict
    value: float | None
    compare: str
    target: float
    unit: str

    @classmethod
    def all_of(cls, document: Mapping[str, Any]) -> dict[str, Measured]:
        """The promises of a verdict.json by id, in its order; KeyError or ValueError when it is none."""
        return {
            str(entry["id"]): cls(
                str(entry["id"]),
                str(entry["title"]),
                Verdict(entry["verdict"]),
                None if entry["value"] is None else float(entry["value"]),
                str(entry["compare"]),
                float(entry["target"]),
                str(entry["unit"]),
            )
            for entry in document["promises"]
        }

    def badness(self) -> float | None:
        """Grows as the promise gets worse: the value, its negative where more is better, or how far off it is."""
        if self.value is None:
            return None
        match self.compare:
            case ">=":
                return -self.value
            case "==":
                return abs(self.value - self.target)
            case _:
                return self.value


@dataclass(frozen=True, slots=True)
class Compared:
    """One promise beside its baseline. `noise` is what the figure moves by itself, in the promise's unit."""

    promise: Measured
    baseline: Measured | None
    noise: float | None
    repeats: int
    change: Change
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All promises, in the order of the run."""

    promises: tuple[Compared, ...]

    @property
    def change(self) -> Change:
        """The worst; a comparison of nothing tells nothing."""
        order = list(Change)
        return min((entry.change for entry in self.promises), key=order.index, default=Change.UNKNOWN)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.change]

    def to_json(self) -> dict[str, Any]:
        return {
            "change": self.change.value,
            "exit_code": self.exit_code,
            "promises": [asdict(e) for e in self.promises],
        }


def compare(
    run: Mapping[str, Measured], baseline: Mapping[str, Measured], repeats: Sequence[Mapping[str, Measured]]
) -> Comparison:
    """Judge every promise of `run` against `baseline`; `repeats` are further runs of the same kind.

    A promise that the baseline kept and the run breaks is a regression whatever the noise.
    """
    return Comparison(
        tuple(
            _compared(promise, baseline.get(name), [repeat[name] for repeat in repeats if name in repeat])
            for name, promise in run.items()
        )
    )


def _compared(promise: Measured, before: Measured | None, repeats: Sequence[Measured]) -> Compared:
    noise, counted = _noise(promise, repeats)
    change, reason = _judged(promise, before, noise, counted)
    return Compared(promise, before, noise, counted, change, reason)


def _judged(promise: Measured, before: Measured | None, noise: float | None, counted: int) -> tuple[Change, str]:
    if before is None:
        return Change.UNKNOWN, "the baseline does not have this promise"
    if (promise.compare, promise.target, promise.unit) != (before.compare, before.target, before.unit):
        return Change.UNKNOWN, f"the baseline promised {before.compare} {before.target:g} {before.unit}"
    broke = Verdict.FALSE in (promise.verdict, before.verdict) and promise.verdict is not before.verdict
    if broke and Verdict.UNKNOWN not in (promise.verdict, before.verdict):
        worse = promise.verdict is Verdict.FALSE
        return (
            (Change.REGRESSION, "kept before, broken now") if worse else (Change.IMPROVEMENT, "broken before, kept now")
        )
    now, then = promise.badness(), before.badness()
    if Verdict.UNKNOWN in (promise.verdict, before.verdict) or now is None or then is None:
        which = "the run" if promise.verdict is Verdict.UNKNOWN or now is None else "the baseline"
        return Change.UNKNOWN, f"{which} did not measure it"
    return _moved(now - then, promise, noise, counted)


def _moved(worse_by: float, promise: Measured, noise: float | None, counted: int) -> tuple[Change, str]:
    """By how much the figure moved, beside what decides anything and what it moves by itself."""
    least = MATTERS * abs(promise.target)
    direction = f"{abs(worse_by):.3g} {promise.unit} {'worse' if worse_by > 0 else 'better'}"
    if abs(worse_by) <= least:
        return Change.NONE, "no difference" if not worse_by else f"{direction}: less than decides anything"
    if noise is None and worse_by < 0:
        return Change.NONE, f"{direction}, or its noise, which {counted} other runs do not tell"
    if noise is None:
        return (
            Change.UNKNOWN,
            f"{direction}, but {counted} other runs do not tell its noise; {LEAST_REPEATS} are needed",
        )
    if abs(worse_by) <= noise:
        return Change.NONE, f"{direction}: within its noise of {noise:.3g} {promise.unit}"
    return (
        Change.REGRESSION if worse_by > 0 else Change.IMPROVEMENT
    ), f"{direction}: more than its noise of {noise:.3g}"


def _noise(promise: Measured, repeats: Iterable[Measured]) -> tuple[float | None, int]:
    """Three robust standard deviations of the repeats' figures, and how many counted; None when they are too few.

    By the median absolute deviation: one run of a machine that stood still must not excuse every later one.
    """
    figures = [
        found
        for repeat in repeats
        if repeat.verdict is not Verdict.UNKNOWN
        and (repeat.compare, repeat.target) == (promise.compare, promise.target)
        and (found := repeat.badness()) is not None
    ]
    if len(figures) < LEAST_REPEATS:
        return None, len(figures)
    middle = statistics.median(figures)
    return DEVIATIONS * SIGMA * statistics.median(abs(figure - middle) for figure in figures), len(figures)
