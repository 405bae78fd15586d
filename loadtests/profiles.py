"""Load profiles: how the rates of arrivals change over time, as multiples of the rates that were asked for.

A profile never draws anything itself. It maps arrivals of a constant rate to the times at which the changing rate has
seen as many (time change of a point process), so that a Poisson process stays Poisson, an even one stays even at every
rate, and one seed stays one schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from loadtests.arrivals import NS_PER_S

LONGEST_S: Final = 4 * 3600
"""No load runs longer, whatever its plan says: a forgotten process must not load a machine over night."""

ProfileName = Literal["normal", "peak", "ramp", "soak"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A factor over time, straight between `points` of (share of the load's duration, factor); nothing outside."""

    title: str
    seconds: float
    """How long it lasts where nobody says otherwise."""
    points: tuple[tuple[float, float], ...]

    @property
    def highest(self) -> float:
        return max(factor for _, factor in self.points)

    @property
    def constant(self) -> bool:
        return all(factor == 1 for _, factor in self.points)


PROFILES: Final[Mapping[ProfileName, Profile]] = {
    "normal": Profile("the rates as they are", 60, ((0, 1), (1, 1))),
    # a rush: as long at the top as it takes to see a queue grow, and time afterwards to see it gone
    "peak": Profile(
        "three times the rates in the middle", 60, ((0, 1), (0.3, 1), (0.4, 3), (0.6, 3), (0.7, 1), (1, 1))
    ),
    # as many operations as `normal`, but somewhere on the way is the rate at which it breaks
    "ramp": Profile("evenly from nothing to twice the rates", 60, ((0, 0), (1, 2))),
    # what leaks or wears out needs time, not rate
    "soak": Profile("the rates for an hour, which begin and end gently", 3600, ((0, 0), (0.05, 1), (0.95, 1), (1, 0))),
}


@dataclass(frozen=True, slots=True)
class Course:
    """A profile over the load's own time, `start_ns` to `end_ns` of one clock."""

    profile: Profile
    start_ns: int
    end_ns: int

    def amount(self, begin_ns: int, end_ns: int) -> float:
        """Seconds at the constant rate that bring as many arrivals as the profile does between two times.

        Times a rate it is the number of arrivals due in them; outside its own time a constant profile goes on, as its
        arrivals do until somebody ends them, and any other is over.
        """
        if self.profile.constant:
            return (end_ns - begin_ns) / NS_PER_S
        return self._until(end_ns) - self._until(begin_ns)

    def factor(self, at_ns: int) -> float:
        """What the rates are multiplied with at a time."""
        if self.profile.constant:
            return 1.0
        share = (at_ns - self.start_ns) / (self.end_ns - self.start_ns)
        for (left, low), (right, high) in pairwise(self.profile.points):
            if left <= share <= right:
                return low + (high - low) * (share - left) / (right - left)
        return 0.0

    def shaped(self, arrivals: Iterator[int]) -> Iterator[int]:
        """The offsets of a constant rate as offsets of the changing one; they end where the profile does.

        A constant profile hands them on as they are, to the last bit and without an end.
        """
        return arrivals if self.profile.constant else self._changed(arrivals)

    def _changed(self, arrivals: Iterator[int]) -> Iterator[int]:
        pieces = _pieces(self.profile, (self.end_ns - self.start_ns) / NS_PER_S)
        piece = next(pieces, None)
        due = 0
        for offset in arrivals:
            wanted = offset / NS_PER_S
            while piece is not None and wanted > piece.before + piece.brings:
                piece = next(pieces, None)
            if piece is None:
                return
            due = max(due, int(piece.when(wanted) * NS_PER_S))  # rounding where two parts meet must not go back
            yield due

    def _until(self, at_ns: int) -> float:
        """Seconds at the constant rate that the profile has brought by then."""
        total = 0.0
        for piece in _pieces(self.profile, (self.end_ns - self.start_ns) / NS_PER_S):
            gone = (at_ns - self.start_ns) / NS_PER_S - piece.begin_s
            if gone <= 0:
                break
            total = piece.before + piece.amount(min(gone, piece.lasts_s))
        return total


@dataclass(frozen=True, slots=True)
class _Piece:
    """One straight part: from `begin_s` on for `lasts_s`, the factor going from `low` to `high`."""

    begin_s: float
    lasts_s: float
    low: float
    high: float
    before: float
    """Seconds at the constant rate that all earlier parts brought."""

    @property
    def slope(self) -> float:
        return (self.high - self.low) / self.lasts_s

    @property
    def brings(self) -> float:
        return (self.low + self.high) / 2 * self.lasts_s

    def amount(self, gone_s: float) -> float:
        """What the part has brought after `gone_s` of its own time."""
        return self.low * gone_s + self.slope * gone_s**2 / 2

    def when(self, wanted: float) -> float:
        """The time at which as much has been brought: the root of a parabola, in the form that subtracts nothing."""
        lacking = wanted - self.before
        if lacking <= 0:
            return self.begin_s
        root = math.sqrt(max(0.0, self.low**2 + 2 * self.slope * lacking))
        return self.begin_s + min(self.lasts_s, 2 * lacking / (self.low + root))


def _pieces(profile: Profile, seconds: float) -> Iterator[_Piece]:
    before = 0.0
    for (left, low), (right, high) in pairwise(profile.points):
        piece = _Piece(left * seconds, (right - left) * seconds, low, high, before)
        before += piece.brings
        yield piece
