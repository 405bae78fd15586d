"""Small drawing code for the figures: scales, lines that break where nothing was measured, labels kept apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final, Literal

Anchor = Literal["start", "middle", "end"]

CHAR_PX: Final = 6.4
"""Mean width of a character of the 12 px labels, on the generous side: labels are kept apart by this estimate."""

LINE_PX: Final = 14.0
"""Distance of two 12 px labels that do not touch."""


def text_px(words: str) -> float:
    """Estimated width of a label."""
    return len(words) * CHAR_PX


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels, linearly or by logarithm."""

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = (at - low) / (high - low) if high > low else 0.0
        return self.start_px + share * (self.end_px - self.start_px)


@dataclass(slots=True)
class Canvas:
    """An SVG of fixed size; colours and fonts come from the page's style by class."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def rect(self, x: float, y: float, width: float, height: float, style: str, *, radius: float = 0) -> None:
        rounded = f' rx="{radius:g}"' if radius else ""
        size = f'width="{max(width, 0):.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="{style}"{rounded}/>')

    def line(self, start: tuple[float, float], end: tuple[float, float], style: str) -> None:
        (x1, y1), (x2, y2) = start, end
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>')

    def path(self, points: Sequence[tuple[float, float] | None], style: str) -> None:
        """A line through the points; it breaks at each None. A lone point becomes a dot-sized dash."""
        drawn: list[str] = []
        for run in _runs(points):
            first, *rest = run
            drawn.append(f"M{first[0]:.1f} {first[1]:.1f}" + ("".join(f"L{x:.1f} {y:.1f}" for x, y in rest) or "h.1"))
        if drawn:
            self.parts.append(f'<path d="{"".join(drawn)}" class="{style}"/>')

    def text(self, x: float, y: float, words: str, style: str, *, anchor: Anchor = "start") -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def strong_text(self, x: float, y: float, *, strong: str, words: str, anchor: Anchor = "start") -> None:
        """A number and what it is of."""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="axis" text-anchor="{anchor}">'
            f'<tspan class="strong">{escape(strong)}</tspan> {escape(words)}</text>'
        )

    def render(self, label: str, style: str) -> str:
        """The element; `label` says in words what it shows, for those who do not see it."""
        box = f"0 0 {self.width:g} {self.height:g}"
        head = f'<svg viewBox="{box}" class="{style}" role="img" aria-label="{escape(label)}">'
        return head + "".join(self.parts) + "</svg>"


def _runs(points: Sequence[tuple[float, float] | None]) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for point in (*points, None):
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []


def spread(wanted: Sequence[float], *, low: float, high: float, gap: float = LINE_PX) -> list[float]:
    """Positions in the order of the wanted ones, `gap` apart or more, within the bounds, and moved as little as can be.

    Least squares: labels that would touch form a block around the mean of their places (pool adjacent violators).
    """
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    blocks: list[tuple[float, int]] = []
    for rank, at in enumerate(order):
        mean, size = wanted[at] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    ceiling = max(low, high - (len(order) - 1) * gap)
    bases = [min(max(mean, low), ceiling) for mean, size in blocks for _ in range(size)]
    result = [0.0] * len(wanted)
    for rank, at in enumerate(order):
        result[at] = bases[rank] + rank * gap
    return result


@dataclass(frozen=True, slots=True)
class Placed:
    """A label beside a vertical mark: which row it stands in and on which side."""

    row: int
    anchor: Anchor


def place_marks(marks: Sequence[tuple[float, str]], *, low: float, high: float, margin: float = 6.0) -> list[Placed]:
    """Rows and sides for labels of vertical marks (x, words), so that none covers another or leaves the figure."""
    taken: list[list[tuple[float, float]]] = []
    placed: list[Placed] = []
    for x, words in marks:
        need = text_px(words) + margin
        sides: list[tuple[Anchor, tuple[float, float]]] = [("start", (x, x + need)), ("end", (x - need, x))]
        fitting = [side for side in sides if side[1][0] >= low and side[1][1] <= high] or sides[:1]
        placed.append(_first_free(fitting, taken))
    return placed


def _first_free(sides: list[tuple[Anchor, tuple[float, float]]], taken: list[list[tuple[float, float]]]) -> Placed:
    row = 0
    while True:
        if row == len(taken):
            taken.append([])
        for anchor, (start, end) in sides:
            if all(end <= other[0] or start >= other[1] for other in taken[row]):
                taken[row].append((start, end))
                return Placed(row, anchor)
        row += 1


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides a span into at most `most` parts."""
    if span <= 0:
        return 1.0
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
