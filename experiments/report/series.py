"""What the figures draw: the history cut into equal bins of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from experiments.checkers.fault import NS_PER_MS, NS_PER_S
from experiments.history import History, Mask
from experiments.record import RunRecord, ShardRecord, Window
from loadtests.record import NO_SHARD, Error, Kind

BINS: Final = 180
"""Bins of a figure, about: enough to see a dip of half a per cent of the run, few enough to have samples in each."""

NICE_BINS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

MIN_SAMPLES: Final = 5
"""Fewer operations in a bin have no quantile worth drawing."""

WRITES: Final = (Kind.WRITE, Kind.WRITE_API)


@dataclass(frozen=True, slots=True)
class Bins:
    """Equal bins of a window. Times in ns of the run's clock."""

    start_ns: int
    width_ns: int
    count: int

    @classmethod
    def of(cls, window: Window) -> Bins:
        span_s = (window[1] - window[0]) / NS_PER_S
        width_s = next((width for width in NICE_BINS_S if span_s / width <= BINS), NICE_BINS_S[-1])
        width_ns = round(width_s * NS_PER_S)
        return cls(window[0], width_ns, max(1, (window[1] - window[0]) // width_ns))

    @property
    def width_s(self) -> float:
        return self.width_ns / NS_PER_S

    @property
    def window(self) -> Window:
        return (self.start_ns, self.start_ns + self.count * self.width_ns)

    def middle_ns(self, index: int) -> int:
        return self.start_ns + index * self.width_ns + self.width_ns // 2

    def counts(self, times_ns: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[int]:
        inside = (times_ns - self.start_ns) // self.width_ns
        inside = inside[(inside >= 0) & (inside < self.count)]
        counted: list[int] = np.bincount(inside, minlength=self.count).tolist()
        return counted


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a value for each bin, None where too little was measured. `style` is its class in the page."""

    name: str
    style: str
    values: tuple[float | None, ...]


def watched(run: RunRecord, history: History) -> Window | None:
    """What the figures show: the run's phases, or all of the history when none was recorded."""
    if run.windows.whole is not None:
        return run.windows.whole
    return (int(history.sched_ns[0]), int(history.end_ns.max()) + 1) if len(history) else None


def shard_style(shard: int, run: RunRecord) -> str:
    return "s1" if run.fault is not None and shard == run.fault.shard else "s2"


def _written(run: RunRecord) -> list[ShardRecord]:
    """The shards that the load writes to, the struck one last."""
    if not run.rates.write and not run.rates.write_api:
        return []
    return sorted(run.shards, key=lambda entry: shard_style(entry.shard, run), reverse=True)


def by_replica(history: History, run: RunRecord) -> list[tuple[str, History]]:
    """Predictions by the replica that answered, for the replicas that the load saw answering any."""
    predicted = history.of(Kind.PREDICT)
    found = [(name, history.where(predicted & (history.server == run.members.index(name)))) for name in run.replicas]
    return [(name, rows) for name, rows in found if len(rows)]


def _replica_style(at: int, name: str, run: RunRecord) -> str:
    """The struck one has a colour of its own; the others' lines differ in strength."""
    struck = run.fault is not None and name == run.fault.member
    return "s1" if struck else "s2 thin" if at else "s2"


def rates(history: History, run: RunRecord, bins: Bins) -> list[Series]:
    """Good answers per second, at the time when they came: of each shard, or of each replica where none is written."""
    good = history.where(history.available)
    listed: list[Series] = []
    for entry in _written(run):
        ended = good.end_ns[good.of(*WRITES) & (good.shard == entry.shard)]
        values = tuple(number / bins.width_s for number in bins.counts(ended))
        listed.append(Series(f"writes, shard {entry.shard}", shard_style(entry.shard, run), values))
    for at, (name, rows) in enumerate([] if listed else by_replica(good, run)):
        values = tuple(number / bins.width_s for number in bins.counts(rows.end_ns))
        listed.append(Series(name, _replica_style(at, name, run), values))
    ended = good.end_ns[good.of(Kind.PREDICT)]
    listed.append(Series("predictions", "s0", tuple(number / bins.width_s for number in bins.counts(ended))))
    return listed


def latencies(history: History, run: RunRecord, bins: Bins) -> list[Series]:
    """Latency quantiles in ms, counted from the scheduled time, for whatever was answered or given up.

    Of each shard, or of each replica where none is written.
    """
    listed: list[Series] = []
    history = history.where(sent(history))
    for entry in _written(run):
        rows = history.where(history.of(*WRITES) & (history.shard == entry.shard))
        style = shard_style(entry.shard, run)
        listed.append(Series(f"write p99, shard {entry.shard}", style, _quantile(rows, bins, 99)))
    for at, (name, rows) in enumerate([] if listed else by_replica(history, run)):
        listed.append(Series(f"p99, {name}", _replica_style(at, name, run), _quantile(rows, bins, 99)))
    rows = history.where(history.of(Kind.PREDICT))
    listed.append(Series("predict p99", "s0", _quantile(rows, bins, 99)))
    listed.append(Series("predict p50", "s0 thin", _quantile(rows, bins, 50)))
    return listed


def sent(history: History) -> Mask:
    """Operations that the load did send."""
    mask: Mask = history.error != int(Error.NOT_SENT)
    return mask


NO_SHARD_WORD: Final = "none"


@dataclass(frozen=True, slots=True)
class Strip:
    """One shard's (or the shard-less predictions') operations that were not good; counts for each bin."""

    name: str
    bad: list[int]
    unsent: list[int]
    total_bad: int
    total_unsent: int
    total: int

    @property
    def bad_words(self) -> str:
        return f"{self.total_bad:,} of {self.total:,}"

    @property
    def words(self) -> str:
        return self.bad_words + (f", {self.total_unsent:,} unsent" if self.total_unsent else "")


def strips(history: History, run: RunRecord, bins: Bins) -> list[Strip]:
    """What was not good on each shard, for predictions by vector, which belong to none, and by who answered.

    Who answered is known of answers only, so a replica has a strip when the load noted that.
    """
    listed: list[Strip] = []
    shown = history.within(bins.window)
    groups = [(f"shard {entry.shard}", shown.shard == entry.shard) for entry in run.shards]
    groups.append(("no shard", shown.shard == NO_SHARD))
    chosen = [(name, shown.where(mask)) for name, mask in groups]
    for name, rows in [*chosen, *by_replica(shown, run)]:
        bad = rows.sched_ns[~rows.available & sent(rows)]
        unsent = rows.sched_ns[~sent(rows)]
        strip = Strip(name, bins.counts(bad), bins.counts(unsent), len(bad), len(unsent), int(sent(rows).sum()))
        listed.append(strip)
    return listed


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Operations of one kind that failed alike on one shard; `first_ns` and `last_ns` are when they were due."""

    kind: str
    shard: str
    error: str
    count: int
    first_ns: int
    last_ns: int


def errors(history: History, bins: Bins) -> list[ErrorGroup]:
    """What went wrong while the figures show, most frequent first."""
    shown = history.within(bins.window)
    bad = shown.where(~shown.available & sent(shown))
    groups: dict[tuple[str, int, int], list[int]] = {}
    for kind, shard, error, due in zip(
        bad.kind, bad.shard.tolist(), bad.error.tolist(), bad.sched_ns.tolist(), strict=True
    ):
        groups.setdefault((kind, shard, error), []).append(due)
    listed = [
        ErrorGroup(
            kind,
            NO_SHARD_WORD if shard == NO_SHARD else str(shard),
            Error(error).name.lower().replace("_", " "),
            len(due),
            due[0],
            due[-1],
        )
        for (kind, shard, error), due in groups.items()
    ]
    return sorted(listed, key=lambda group: -group.count)


def _quantile(rows: History, bins: Bins, percent: float) -> tuple[float | None, ...]:
    # Rows are sorted by their scheduled time, so that each bin is one slice.
    edges = bins.start_ns + bins.width_ns * np.arange(bins.count + 1, dtype=np.int64)
    cuts = np.searchsorted(rows.sched_ns, edges)
    latency = rows.latency_ns
    return tuple(
        float(np.percentile(latency[start:end], percent)) / NS_PER_MS if end - start >= MIN_SAMPLES else None
        for start, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
    )
