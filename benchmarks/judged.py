"""The promises about speed, each beside what was measured. A missed one is printed as missed; it fails nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import contest, stack
from benchmarks.measured import Measured

FEATURE_FOR_FEATURE: Final = 5.0
ALL_ON: Final = 3.0
"""Times the best peer's requests a second."""
RATE_KEPT: Final = 0.99
"""Below that share of the asked rate, latencies are those of a smaller load, and the promise is not kept."""


@dataclass(frozen=True, slots=True)
class Promise:
    text: str
    measured: str
    kept: bool

    @property
    def word(self) -> str:
        return "kept" if self.kept else "missed"


@dataclass(frozen=True, slots=True)
class Bound:
    """For a step of stack.py. Milliseconds; no error at all."""

    step: str
    rate: int
    p95_ms: float
    p99_ms: float | None = None


BOUNDS: Final = (
    Bound("cache hit", 1_000, 20, 50),
    Bound("new key", 1_000, 20, 50),
    Bound("cache hit", 5_000, 100),
    Bound("feature read", stack.ENTITY_RATE, 10),
    Bound("feature write", stack.WRITE_RATE, 50),
)


def of_contest(results: tuple[contest.Result, ...]) -> list[Promise]:
    best = contest.best_peer(results)
    times = contest.ratios(results)
    found = []
    for each in results:
        if each.rival.kind != "ours":
            continue
        wanted = ALL_ON if each.rival.token else FEATURE_FOR_FEATURE
        ours, theirs = each.total.p99_ms, best.total.p99_ms
        ratio = times[each.rival.name]
        found.append(
            Promise(
                f"{each.rival.name}: ≥ {wanted:.0f} times {best.rival.name}, at lower p99",
                f"{ratio.median:.1f} ({ratio.lowest:.1f} to {ratio.highest:.1f}), p99 {ours:.1f} and {theirs:.1f} ms",
                ratio.median >= wanted and ours < theirs,
            )
        )
    return found


def of_stack(steps: Sequence[stack.Step]) -> list[Promise]:
    asked = {(bound.step, bound.rate): bound for bound in BOUNDS}
    return [_judge(asked[step.name, step.rate], step) for step in steps if (step.name, step.rate) in asked]


def _judge(bound: Bound, step: stack.Step) -> Promise:
    measured = step.measured
    text = f"{bound.step} at {bound.rate:,}/s: p95 < {bound.p95_ms:.0f} ms"
    if bound.p99_ms is not None:
        text += f", p99 < {bound.p99_ms:.0f} ms"
    if step.entities:
        text += f", {step.entities:,} entities"
    return Promise(
        text,
        f"p95 {measured.p95_ms:.1f}, p99 {measured.p99_ms:.1f} ms at {measured.rate:,.0f}/s, {measured.errors} errors",
        within(measured, bound),
    )


def within(measured: Measured, bound: Bound) -> bool:
    return (
        measured.errors == 0
        and measured.rate >= RATE_KEPT * bound.rate
        and measured.p95_ms < bound.p95_ms
        and (bound.p99_ms is None or measured.p99_ms < bound.p99_ms)
    )
