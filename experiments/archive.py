"""The runs that a directory holds: found, read and put in order of time; what cannot be read is named."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.errors import RunFileError
from experiments.record import RUN_FILE, RunRecord
from experiments.verdict import VERDICT_FILE


@dataclass(frozen=True)
class StoredRun:
    """One run directory."""

    directory: Path
    record: RunRecord

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def began(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.record.wall_anchor.unix_ns / 1e9, datetime.UTC)

    @property
    def kind(self) -> tuple[str, str, str]:
        """Runs of one kind can be compared: environment, scenario, variant."""
        return (self.record.environment, self.record.scenario, self.record.variant)

    @cached_property
    def verdict(self) -> dict[str, Any] | None:
        """verdict.json as it was written; None when the run was not judged. RunFileError when it is damaged."""
        path = self.directory / VERDICT_FILE
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunFileError(
                f"{path} is no JSON: {error}; judge it again: breakwater check {self.directory}"
            ) from error
        if not isinstance(found, dict) or not isinstance(found.get("promises"), list):
            raise RunFileError(f"{path} is no verdict; judge it again: breakwater check {self.directory}")
        return found


@dataclass(frozen=True, slots=True)
class Archive:
    """`runs` newest first; `unreadable` says of every other run directory what is wrong with it."""

    runs: tuple[StoredRun, ...]
    unreadable: tuple[str, ...]

    def of_kind(self, run: StoredRun) -> Iterator[StoredRun]:
        """The other runs of the same kind, newest first."""
        return (other for other in self.runs if other.kind == run.kind and other.directory != run.directory)


def archive(out: Path) -> Archive:
    """Every run directory directly below `out`; an absent `out` holds none."""
    found: list[StoredRun] = []
    unreadable: list[str] = []
    for path in sorted(out.glob(f"*/{RUN_FILE}")):
        directory = path.parent
        if directory.is_symlink():
            continue  # `latest` names a run that is listed by its own name
        try:
            found.append(stored_run(directory))
        except RunFileError as error:
            unreadable.append(str(error))
    return Archive(
        tuple(sorted(found, key=lambda run: run.record.wall_anchor.unix_ns, reverse=True)), tuple(unreadable)
    )


def stored_run(directory: Path) -> StoredRun:
    """One run by its directory; RunFileError when it is none."""
    real = directory.resolve()
    return StoredRun(real, RunRecord.read(real))
