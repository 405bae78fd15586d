"""Bars as SVG, for the page of results: no library, readable in a light and in a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

ROW_PX: Final = 30
BAR_PX: Final = 18
NAME_PX: Final = 230
VALUE_PX: Final = 190
WIDTH_PX: Final = 860
TOP_PX: Final = 34
COLOURS: Final = {"ours": "#1f7a4d", "peer": "#8a8f98", "limit": "#c9a227"}


@dataclass(frozen=True, slots=True)
class Bar:
    """`kind` chooses the colour; `note` stands after the bar."""

    name: str
    kind: str
    value: float
    note: str


def bars(title: str, values: Sequence[Bar]) -> str:
    """One bar below the other, all on one scale from zero."""
    longest = max(bar.value for bar in values)
    scale = (WIDTH_PX - NAME_PX - VALUE_PX) / longest
    height = TOP_PX + ROW_PX * len(values)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" font-family="sans-serif" '
        f'font-size="13" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH_PX}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for number, bar in enumerate(values):
        top = TOP_PX + number * ROW_PX
        middle = top + BAR_PX - 4
        end = NAME_PX + bar.value * scale
        lines += [
            f'<text x="{NAME_PX - 8}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect x="{NAME_PX}" y="{top}" width="{bar.value * scale:.1f}" height="{BAR_PX}" '
            f'fill="{COLOURS[bar.kind]}"/>',
            f'<text x="{end + 6:.1f}" y="{middle}">{escape(bar.note)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
