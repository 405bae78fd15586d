"""Log lines around a fault: chosen while the logs are at hand, kept with the run, shown when it is not true."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from experiments.record import RunRecord

AROUND_FILE: Final = "logs/around.jsonl"

NS_PER_S: Final = 1_000_000_000
BEFORE_NS: Final = 1 * NS_PER_S
AFTER_NS: Final = 30 * NS_PER_S
"""From just before the fault until a failover without a warden would be over."""

MOST_PER_MEMBER: Final = 200
MOST_BYTES: Final = 4 * 1024 * 1024
"""Only a log's end is read: a run lasts minutes."""
MOST_CHARS: Final = 400

_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)[.,](\d{3})(?: ?(UTC|GMT|Z|\+00:00))?")
_HEAD: Final = frozenset({"time", "level", "logger", "replica", "message", "traceback"})
"""Of a line that is a JSON object: said elsewhere or in an order of its own."""
_SECRET: Final = re.compile(r"(?i)(password|passwd|token|secret)(\s*[=:]\s*)\S+")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a member's log. `t_ns` on the run's monotonic clock, through its wall anchor: good to milliseconds."""

    t_ns: int
    member: str
    file: str
    text: str


def collect_logs(run_dir: Path, run: RunRecord, logs: Mapping[str, Sequence[Path]]) -> int:
    """Keep the lines around the fault from each member's log files; returns how many. Nothing without a fault."""
    if run.fault is None:
        return 0
    window = (run.fault.t_ns - BEFORE_NS, run.fault.t_ns + AFTER_NS)
    lines = [
        line
        for member, paths in logs.items()
        for line in [line for path in paths for line in _lines(path, member, run, window)][:MOST_PER_MEMBER]
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


def _lines(path: Path, member: str, run: RunRecord, window: tuple[int, int]) -> Iterator[LogLine]:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - MOST_BYTES))
        content = log.read().decode(errors="replace")
    for text in content.splitlines():
        stamp = _STAMP.search(text[:64])
        if stamp is None:
            continue
        t_ns = _unix_ns(stamp) - run.wall_anchor.unix_ns + run.wall_anchor.monotonic_ns
        if window[0] <= t_ns < window[1]:
            masked = _SECRET.sub(r"\1\2***", _object(text) or text[stamp.end() :].strip())
            yield LogLine(t_ns, member, path.name, masked[:MOST_CHARS])


def _object(text: str) -> str | None:
    """A line that is a JSON object (services/api/logs.py), as people read one; None when it is none."""
    if not text.startswith("{"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    head = " ".join(str(line[name]) for name in ("level", "logger") if name in line)
    rest = " ".join(f"{name}={value}" for name, value in line.items() if name not in _HEAD)
    *_, last = str(line.get("traceback", "")).splitlines() or [""]
    return " ".join(part for part in (f"{head}: {line.get('message', '')}", rest, last) if part)


def _unix_ns(stamp: re.Match[str]) -> int:
    """A stamp without a zone is this machine's local time, as Python's logging writes it."""
    date, time, millis, zone = stamp.groups()
    at = datetime.datetime.fromisoformat(f"{date}T{time}")
    at = at.replace(tzinfo=datetime.UTC) if zone else at.astimezone()
    return int(at.timestamp()) * NS_PER_S + int(millis) * 1_000_000
