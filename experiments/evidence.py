"""What a run left behind besides its history: events, final reads, the journal; what is missing is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from experiments.errors import RunFileError
from experiments.history import FinalReads
from services.contracts.events import Event, read_events

EVENTS_FILE: Final = "events.jsonl"
JOURNAL_FILE: Final = "journal.json"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Read once, then handed to every checker. `final` and `journal` are None when the run has none."""

    events: tuple[Event, ...] = ()
    final: FinalReads | None = None
    journal: dict[str, Any] | None = None
    missing: tuple[str, ...] = ()
    """Why each absent part is absent, in words."""

    def first(
        self, source: str, kind: str, *, after_ns: int, test: Callable[[Event], bool] = lambda _: True
    ) -> Event | None:
        """The earliest event of a source and kind at or after an instant."""
        fitting = (e for e in self.events if e.source == source and e.kind == kind and e.t_ns >= after_ns and test(e))
        return min(fitting, key=lambda event: event.t_ns, default=None)


def load_evidence(run_dir: Path) -> Evidence:
    """Whatever of the evidence a run directory holds; what is missing or broken is named, never guessed."""
    missing: list[str] = []
    events: tuple[Event, ...] = ()
    final: FinalReads | None = None
    journal: dict[str, Any] | None = None
    try:
        events = tuple(sorted(_events(run_dir / EVENTS_FILE), key=lambda event: event.t_ns))
    except RunFileError as error:
        missing.append(str(error))
    try:
        final = FinalReads.load(run_dir)
    except RunFileError as error:
        missing.append(str(error))
    try:
        journal = _journal(run_dir / JOURNAL_FILE)
    except RunFileError as error:
        missing.append(str(error))
    return Evidence(events, final, journal, tuple(missing))


def _events(path: Path) -> Iterator[Event]:
    try:
        yield from read_events(path)
    except FileNotFoundError as error:
        raise RunFileError(f"{path.name} is missing: nobody observed the run") from error
    except ValueError as error:
        raise RunFileError(f"{path.name} holds a line that is no event: {error}") from error


def _journal(path: Path) -> dict[str, Any]:
    try:
        journal = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFileError(f"{path.name} is missing: the experiment did not end by itself") from error
    except ValueError as error:
        raise RunFileError(f"{path.name} is cut off or is no JSON: {error}") from error
    if not isinstance(journal, dict):
        raise RunFileError(f"{path.name} is no journal: it holds a {type(journal).__name__}")
    return journal
