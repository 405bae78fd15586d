"""The report's figures: operations per second, bad operations, latency, and recovery by layer; each wide and narrow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from experiments.checkers.fault import NS_PER_MS, NS_PER_S
from experiments.checkers.recovery import Layer, Recovery
from experiments.history import History
from experiments.record import RunRecord, Window
from experiments.report.series import Bins, Series, latencies, rates, strips, watched
from experiments.report.svg import LINE_PX, Canvas, Scale, nice_step, place_marks, spread
from experiments.report.words import duration_ms


@dataclass(frozen=True, slots=True)
class Shape:
    """A figure's size class in px: one for a page, one for a telephone."""

    style: str
    width: float
    left: float
    right: float
    ticks: int


WIDE: Final = Shape("wide", 1040, 64, 150, 10)
NARROW: Final = Shape("narrow", 400, 56, 122, 5)

S_MS: Final = 1000
MARK_ROW_PX: Final = 16.0
LABEL_SHIFT_PX: Final = 5.0
"""A label moved further than this from its line's end gets a thin line to it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, drawn as a vertical line with words."""

    t_ns: int
    words: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The time axis that all figures of a run share. `zero_ns` is the fault, or the start when there was none."""

    window: Window
    zero_ns: int
    fault: Window | None
    outage: Window | None
    bins: Bins

    @classmethod
    def of(cls, run: RunRecord, history: History, recovery: Recovery | None) -> Frame | None:
        """None when there is nothing to draw."""
        window = watched(run, history)
        if window is None or window[0] >= window[1]:
            return None
        zero = run.fault.t_ns if run.fault is not None else window[0]
        outage = None if recovery is None else (zero, zero + recovery.total_ns)
        return cls(window, zero, run.windows.fault, outage, Bins.of(window))

    def x(self, shape: Shape) -> Scale:
        return Scale(self.window[0], self.window[1], shape.left, shape.width - shape.right)


Draw = Callable[[Shape], str]


def both(draw: Draw) -> str:
    """The wide and the narrow form; the page's style shows one of them."""
    return draw(WIDE) + draw(NARROW)


def rate_chart(history: History, run: RunRecord, frame: Frame) -> str:
    series = rates(history, run, frame.bins)
    top = max((value for line in series for value in line.values if value is not None), default=0.0)
    step = nice_step(max(top, 1.0), 3)
    high = step * math.ceil(max(top, 1.0) / step)

    def draw(shape: Shape) -> str:
        canvas = Canvas(shape.width, 138)
        x, y = frame.x(shape), Scale(0, high, 112, 8)
        _bands(canvas, frame, x, 2, 112)
        for tick in range(round(high / step) + 1):
            _level(canvas, shape, y(tick * step), f"{tick * step:g}")
        _lines(canvas, shape, frame, series, (x, y))
        _time_axis(canvas, shape, frame, 112)
        return canvas.render("good operations per second over the run: " + _say(series, "/s"), shape.style)

    return both(draw)


def latency_chart(history: History, run: RunRecord, frame: Frame, marks: Sequence[Mark]) -> str:
    series = latencies(history, run, frame.bins)
    values = [value for line in series for value in line.values if value is not None and value > 0]
    low = 10.0 ** math.floor(math.log10(min(values, default=1.0)))
    high = 10.0 ** math.ceil(math.log10(max(values, default=10.0)) + 1e-9)
    high = max(high, low * 10)

    def draw(shape: Shape) -> str:
        x = frame.x(shape)
        inside = [mark for mark in marks if frame.window[0] <= mark.t_ns <= frame.window[1]]
        placed = place_marks([(x(mark.t_ns), mark.words) for mark in inside], low=0, high=shape.width)
        head = MARK_ROW_PX * (max((place.row for place in placed), default=-1) + 1) + 6
        bottom = head + 150
        canvas = Canvas(shape.width, bottom + 26)
        y = Scale(low, high, bottom, head, log=True)
        _bands(canvas, frame, x, head - 4, bottom)
        for power in range(round(math.log10(high / low)) + 1):
            level = low * 10**power
            _level(canvas, shape, y(level), _round(level))
        for mark, place in zip(inside, placed, strict=True):
            at, baseline = x(mark.t_ns), MARK_ROW_PX * (place.row + 1) - 4
            canvas.line((at, baseline - 9), (at, bottom), "mark")
            canvas.text(at + (5 if place.anchor == "start" else -5), baseline, mark.words, "said", anchor=place.anchor)
        _lines(canvas, shape, frame, series, (x, y))
        _time_axis(canvas, shape, frame, bottom)
        return canvas.render("latency over the run, log scale: " + _say(series, " ms"), shape.style)

    return both(draw)


def bad_chart(history: History, run: RunRecord, frame: Frame) -> str:
    """One strip for each shard: how many operations of a bin were not good."""
    rows = strips(history, run, frame.bins)
    most = max((count for row in rows for count in (*row.bad, *row.unsent)), default=0)

    def draw(shape: Shape) -> str:
        pitch = 26.0
        bottom = pitch * len(rows) + 4
        canvas = Canvas(shape.width, bottom + 26)
        x, bar = frame.x(shape), Scale(0, max(most, 1), 0, pitch - 8)
        _bands(canvas, frame, x, 2, bottom)
        for at, row in enumerate(rows):
            base = pitch * (at + 1)
            canvas.line((shape.left, base), (shape.width - shape.right, base), "grid")
            canvas.text(shape.left - 8, base - 4, row.name, "axis", anchor="end")
            for style, counts in (("unsent", row.unsent), ("bad", row.bad)):
                for index, number in enumerate(counts):
                    if number:
                        start = x(frame.bins.start_ns + index * frame.bins.width_ns)
                        end = x(frame.bins.start_ns + (index + 1) * frame.bins.width_ns)
                        height = max(2.0, bar(number))
                        canvas.rect(start, base - height, max(end - start - 0.6, 1.5), height, style)
            said = row.words if shape is WIDE else row.bad_words
            canvas.text(shape.width - shape.right + 10, base - 4, said, "strong" if row.total_bad else "axis")
        _time_axis(canvas, shape, frame, bottom)
        label = "bad operations over the run: " + "; ".join(f"{row.name} {row.words}" for row in rows)
        return canvas.render(label, shape.style)

    return both(draw)


def waterfall(recovery: Recovery) -> str:
    """Recovery by layer, each bar starting where the one before ended."""
    total = recovery.total_ns / NS_PER_MS
    step = nice_step(max(total, 0.001), 4)

    def draw(shape: Shape) -> str:
        narrow = shape is NARROW
        pitch, left = (40.0, 2.0) if narrow else (24.0, 90.0)
        bottom = pitch * len(recovery.layers) + 4
        canvas = Canvas(shape.width, bottom + 22)
        x = Scale(0, total, left, shape.width - (24 if narrow else 300))
        for tick in range(int(total / step + 1e-9) + 1):
            canvas.line((x(tick * step), 0), (x(tick * step), bottom), "grid")
            canvas.text(
                x(tick * step),
                bottom + 16,
                _round(tick * step),
                "axis",
                anchor="start" if narrow and not tick else "middle",
            )
        for at, layer in enumerate(recovery.layers):
            _layer(canvas, x, layer, at, narrow=narrow, top=pitch * at + 2)
        words = ", ".join(f"{layer.name} {_length(layer)}" for layer in recovery.layers)
        return canvas.render(f"recovery by layer: {words}", shape.style)

    return both(draw)


def _layer(canvas: Canvas, x: Scale, layer: Layer, at: int, *, narrow: bool, top: float) -> None:
    start, end = x(layer.start_ns / NS_PER_MS), x(layer.end_ns / NS_PER_MS)
    if narrow:
        canvas.strong_text(2, top + 12, strong=f"{layer.name} {_length(layer)}", words=layer.seen or "")
        top += 18
    else:
        canvas.text(x.start_px - 12, top + 13, layer.name, "axis", anchor="end")
        canvas.strong_text(end + 8, top + 13, strong=_length(layer), words=layer.seen or "; the next layer includes it")
    if layer.seen is not None:
        canvas.rect(start, top + 3, max(end - start, 1.5), 12, f"w{at}", radius=2)
    else:
        canvas.line((start, top + 2), (start, top + 16), "mark")


def _round(ms: float) -> str:
    """A round number of an axis: `0.1 ms`, `10 ms`, `20 s`."""
    return f"{ms / S_MS:g} s" if ms >= S_MS else f"{ms:g} ms"


def _length(layer: Layer) -> str:
    return "not observed" if layer.seen is None else duration_ms((layer.end_ns - layer.start_ns) / NS_PER_MS)


def _bands(canvas: Canvas, frame: Frame, x: Scale, top: float, bottom: float) -> None:
    """The time in which the fault was held, and within it the time until the next acknowledged write."""
    for window, style in ((frame.fault, "band"), (frame.outage, "outage")):
        if window is not None:
            start, end = x(max(window[0], frame.window[0])), x(min(window[1], frame.window[1]))
            canvas.rect(start, top, max(end - start, 1), bottom - top, style)


def _level(canvas: Canvas, shape: Shape, y: float, words: str) -> None:
    canvas.line((shape.left, y), (shape.width - shape.right, y), "grid")
    canvas.text(shape.left - 8, y + 4, words, "axis", anchor="end")


def _lines(canvas: Canvas, shape: Shape, frame: Frame, series: Sequence[Series], scales: tuple[Scale, Scale]) -> None:
    """The lines with their names at their ends, moved apart where they would touch."""
    x, y = scales
    ends: list[tuple[Series, float]] = []
    for line in series:
        points = [
            None if value is None else (x(frame.bins.middle_ns(at)), y(value)) for at, value in enumerate(line.values)
        ]
        canvas.path(points, f"line {line.style}")
        tail = [value for value in line.values[-20:] if value is not None]
        if tail:
            ends.append((line, y(sorted(tail)[len(tail) // 2])))
    low, high = min(y.start_px, y.end_px), max(y.start_px, y.end_px)
    edge = shape.width - shape.right
    places = spread([at for _, at in ends], low=low, high=high, gap=LINE_PX)
    for (line, wanted), at in zip(ends, places, strict=True):
        if abs(at - wanted) > LABEL_SHIFT_PX:
            canvas.line((edge + 1, wanted), (edge + 7, at), "lead")
        canvas.text(edge + 10, at + 4, line.name, f"label {line.style}")


def _time_axis(canvas: Canvas, shape: Shape, frame: Frame, bottom: float) -> None:
    x = frame.x(shape)
    step = nice_step((frame.window[1] - frame.window[0]) / NS_PER_S, shape.ticks)
    canvas.line((shape.left, bottom), (shape.width - shape.right, bottom), "grid")
    first = math.ceil((frame.window[0] - frame.zero_ns) / NS_PER_S / step - 1e-9)
    last = math.floor((frame.window[1] - frame.zero_ns) / NS_PER_S / step + 1e-9)
    for tick in range(first, last + 1):
        at = x(frame.zero_ns + tick * step * NS_PER_S)
        sign = "+" if tick > 0 else "\N{MINUS SIGN}"
        words = f"{sign}{abs(tick * step):g} s" if tick else ("fault" if frame.outage or frame.fault else "0 s")
        canvas.line((at, bottom), (at, bottom + 4), "tick")
        canvas.text(at, bottom + 18, words, "axis", anchor="middle")


def _say(series: Sequence[Series], unit: str) -> str:
    """The lines in words: their median."""
    parts: list[str] = []
    for line in series:
        values = sorted(value for value in line.values if value is not None)
        if values:
            parts.append(f"{line.name} typically {values[len(values) // 2]:.0f}{unit}, at most {values[-1]:.0f}{unit}")
    return "; ".join(parts)
