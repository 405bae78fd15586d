"""Log lines around a fault: chosen while the logs are at hand, kept with the run, shown when it is not true."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from experiments.record import RunRecord, WallAnchor, Window
from services.contracts.events import Event

AROUND_FILE: Final = "logs/around.jsonl"

NS_PER_S: Final = 1_000_000_000
BEFORE_NS: Final = 1 * NS_PER_S
AFTER_NS: Final = 5 * NS_PER_S
"""Once the fault is over and what it broke was waited for: a server takes a loop of Patroni's, 5 s, to say so."""

MOST_PER_MEMBER: Final = 200
MOST_BYTES: Final = 4 * 1024 * 1024
"""Only a log's end is read: a run lasts minutes."""
MOST_CHARS: Final = 400

EVERY: Final = "every"
"""Component of a fault that strikes all members (experiments/faults/rolling.py)."""
WITNESSES: Final[Mapping[str, tuple[str, ...]]] = {"api": ("edge",), "redis": ("api",), "etcd": ("postgres",)}
"""Who tells of a fault on another component: the edge routes past replicas, these do without the cache, and Patroni
goes on without etcd in failsafe mode."""

_TIME: Final = r"(?P<time>\d\d:\d\d:\d\d)[.,](?P<fraction>\d{3,9})(?: ?(?P<zone>UTC|GMT|Z|[+-]\d\d:?\d\d))?"
_STAMPS: Final = tuple(
    re.compile(date + _TIME)
    for date in (
        r"^",  # what H2O is built on
        r"^(?P<month>\d\d)-(?P<day>\d\d) ",  # H2O
        r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[ T]",  # everybody else, and a kubelet
        r"(?P<day>\d\d) (?P<month>[A-Z][a-z]{2}) (?P<year>\d{4}) ",  # Redis
    )
)
_STAMP_CHARS: Final = 64
"""A stamp begins a line, or is among the first words of an object."""
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""As Redis writes them, whatever the locale."""
_EVENT: Final = '{"t_ns"'
_HEAD: Final = frozenset({"time", "ts", "level", "logger", "caller", "replica", "message", "msg", "traceback"})
"""Of a line that is a JSON object: said elsewhere or in an order of its own."""
_SECRET: Final = re.compile(r"(?i)(password|passwd|token|secret)(\s*[=:]\s*)\S+")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a member's log. `t_ns` on the run's monotonic clock, through its wall anchor: good to milliseconds."""

    t_ns: int
    member: str
    file: str
    text: str


def affected(run: RunRecord, events: Iterable[Event]) -> list[str]:
    """Whose logs tell of the run's faults; nobody's without one.

    All members of a struck component, for what one loses the others take over; who works with it; and whomever an event
    of the fault names: a second victim has no record of its own.
    """
    struck = {fault.component.split("/", 1)[0] for fault in run.faults}
    if EVERY in struck:
        return list(run.members)
    telling = struck.union(*(WITNESSES.get(component, ()) for component in struck))
    named = {event.member for event in events if event.source == "fault"}
    of_shards = {name for entry in run.shards for name in entry.members}
    return [
        name
        for name in run.members
        if name in named or ("postgres" if name in of_shards else name.split("-", 1)[0]) in telling
    ]


def moments(run: RunRecord, events: Iterable[Event], member: str | None = None) -> list[int]:
    """When something of the fault happened and when the recovery began, ns of the run's clock; none without a fault.

    Of a member: not what happened to another one.
    """
    if run.fault is None:
        return []
    told = (event for event in events if event.source == "fault" or (event.source, event.kind) == ("run", "recovery"))
    others = set(run.members) - {member} if member is not None else set()
    over = [] if run.windows.fault is None else [run.windows.fault[1]]
    return [run.fault.t_ns, *over, *(event.t_ns for event in told if event.member not in others)]


def closest(lines: Iterable[LogLine], at: Sequence[int], most: int) -> list[LogLine]:
    """The lines nearest to any of the moments `at`, `most` of them, in the order of their times."""
    nearest = sorted(lines, key=lambda line: min(abs(line.t_ns - moment) for moment in at))[:most]
    return sorted(nearest, key=lambda line: line.t_ns)


def collect_logs(run_dir: Path, run: RunRecord, events: Sequence[Event], logs: Mapping[str, Sequence[Path]]) -> int:
    """Keep the lines around the fault from each member's log files; returns how many. Nothing without a fault.

    `events` are those of the run and its fault. Where a member wrote more than is kept, what is nearest to them is.
    """
    if run.fault is None:
        return 0
    window = _window(run, events)
    lines = [
        line
        for member, paths in logs.items()
        for line in closest(
            (line for path in paths for line in _lines(path, member, run, window)),
            moments(run, events, member),
            MOST_PER_MEMBER,
        )
    ]
    target = run_dir / AROUND_FILE
    target.parent.mkdir(exist_ok=True)
    ordered = sorted(lines, key=lambda line: line.t_ns)
    target.write_text("".join(json.dumps(asdict(line)) + "\n" for line in ordered), encoding="utf-8")
    return len(lines)


def read_logs(run_dir: Path) -> tuple[LogLine, ...]:
    """The lines that were kept; none when nothing was collected."""
    try:
        text = (run_dir / AROUND_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    return tuple(LogLine(**json.loads(line)) for line in text.splitlines())


def _window(run: RunRecord, events: Sequence[Event]) -> Window:
    """From just before the fault until it is over for all; of a run that was cut off in it, all that there is."""
    at = moments(run, events)
    return min(at) - BEFORE_NS, sys.maxsize if run.windows.fault is None else max(at) + AFTER_NS


def _lines(path: Path, member: str, run: RunRecord, window: Window) -> Iterator[LogLine]:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - MOST_BYTES))
        content = log.read().decode(errors="replace")
    for text in content.splitlines():
        placed = _event(text, run) or _stamped(text, run.wall_anchor)
        if placed is not None and window[0] <= placed[0] < window[1]:
            t_ns, rest = placed
            masked = _SECRET.sub(r"\1\2***", _object(text) or _object(rest) or rest)
            yield LogLine(t_ns, member, path.name, masked[:MOST_CHARS])


def _event(text: str, run: RunRecord) -> tuple[int, str] | None:
    """When an event line (services/contracts/events.py) was written, and the line; None for any other line.

    Neither is it one by another machine's clock: when that was, by the run's, nobody knows.
    """
    if not text.startswith(_EVENT):
        return None
    try:
        event = Event.from_line(text)
    except ValueError:
        return None
    return (event.t_ns, text) if event.clock_id == run.clock_id else None


def _stamped(text: str, anchor: WallAnchor) -> tuple[int, str] | None:
    """When a line with a wall clock's stamp was written, ns of the run's clock, and what follows the stamp."""
    for pattern in _STAMPS:
        stamp = pattern.search(text[:_STAMP_CHARS])
        if stamp is not None:
            unix_ns = _unix_ns(stamp.groupdict(), anchor.unix_ns)
            rest = text[stamp.end() :].strip()
            return None if unix_ns is None else (unix_ns - anchor.unix_ns + anchor.monotonic_ns, rest)
    return None


def _object(text: str) -> str | None:
    """A line that is a JSON object (the API's, etcd's, an event), as people read one; None when it is none."""
    if not text.startswith("{"):
        return None
    try:
        line: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    if "kind" in line and isinstance(data := line.get("data"), dict):
        return " ".join((f"{line.get('source')} {line['kind']}", *(f"{name}={value}" for name, value in data.items())))
    head = " ".join(str(line[name]) for name in ("level", "logger", "caller") if name in line)
    rest = " ".join(f"{name}={value}" for name, value in line.items() if name not in _HEAD)
    *_, last = str(line.get("traceback", "")).splitlines() or [""]
    return " ".join(part for part in (f"{head}: {line.get('message', line.get('msg', ''))}", rest, last) if part)


def _unix_ns(stamp: Mapping[str, str | None], near_ns: int) -> int | None:
    """The stamp's instant; None for what only looks like one.

    Without a zone it is this machine's local time, as Python's logging, Redis and H2O write it. H2O leaves out the
    year, and before it has read its settings the date: then it is the instant nearest to `near_ns`, when the run began.
    """
    near_s = near_ns / NS_PER_S
    try:
        time = datetime.time.fromisoformat(str(stamp["time"]))
        zone = _zone(stamp["zone"])
        dates = _dates(stamp, datetime.datetime.fromtimestamp(near_s, tz=zone).date())
    except ValueError:
        return None
    instants = [datetime.datetime.combine(date, time, zone).timestamp() for date in dates]
    if not instants:
        return None
    return int(min(instants, key=lambda at: abs(at - near_s))) * NS_PER_S + int(str(stamp["fraction"]).ljust(9, "0"))


def _zone(word: str | None) -> datetime.tzinfo | None:
    """None for local time."""
    if word is None:
        return None
    return datetime.UTC if word.isalpha() else datetime.datetime.strptime(word, "%z").tzinfo


def _dates(stamp: Mapping[str, str | None], near: datetime.date) -> list[datetime.date]:
    """The dates that a stamp may mean, `near` one of which it was written; ValueError where it names no month."""
    day, month, year = (stamp.get(name) for name in ("day", "month", "year"))
    if day is None or month is None:
        return [near + datetime.timedelta(days=days) for days in (-1, 0, 1)]
    number = int(month) if month.isdigit() else _MONTHS.index(month) + 1
    dates = []
    for candidate in (int(year),) if year is not None else (near.year - 1, near.year, near.year + 1):
        with contextlib.suppress(ValueError):  # 29 February is in one of four years
            dates.append(datetime.date(candidate, number, int(day)))
    return dates
