"""What the gate says: every item's outcome, what is waived, and the exit code; also read as staging's evidence."""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from experiments.checkers.finding import Verdict, merge
from experiments.commit import same
from experiments.errors import ExperimentError, fields
from experiments.gate.facts import Facts
from experiments.gate.items import ITEMS, Item, Outcome
from experiments.gate.waivers import Waiver
from experiments.verdict import EXIT_CODES


class EvidenceError(ExperimentError):
    """Another environment's evidence cannot be read as what a gate wrote."""


@dataclass(frozen=True, slots=True)
class Line:
    """An item with its outcome; `evidence` names the environment that it was examined in."""

    item: Item
    outcome: Outcome
    evidence: str
    waiver: Waiver | None = None

    @property
    def counts_as(self) -> Verdict:
        """What it does to the gate's verdict: a waived line holds nothing up."""
        return Verdict.TRUE if self.waiver is not None else self.outcome.verdict


class Subject(BaseModel):
    """What was examined: evidence of another environment counts only for the same commit, topology and images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    commit: str | None
    topology: str
    """sha256 of the environment's topology."""
    images: dict[str, str] = {}
    """Image of each container by name of the image, with digest where the topology names one; empty: no images."""


class StoredOutcome(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    demand: str
    verdict: Verdict
    seen: str
    evidence: str
    waived_until: datetime.date | None
    waived_because: str | None


class GateFile(BaseModel):
    """gate.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")
    at: AwareDatetime
    subject: Subject
    verdict: Verdict
    exit_code: int
    items: tuple[StoredOutcome, ...]
    ignored_waivers: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> GateFile | None:
        """None when there is no such file; EvidenceError when it is none of ours."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise EvidenceError(f"{path} is no result of `breakwater gate`: {fields(error)}") from error


@dataclass(frozen=True, slots=True)
class GateJudgement:
    """All lines in the checklist's order."""

    subject: Subject
    at: datetime.datetime
    lines: tuple[Line, ...]
    ignored: tuple[str, ...]
    """Waivers that do not count any more, in words."""

    @property
    def verdict(self) -> Verdict:
        return merge(line.counts_as for line in self.lines)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def stored(self) -> GateFile:
        return GateFile(
            at=self.at,
            subject=self.subject,
            verdict=self.verdict,
            exit_code=self.exit_code,
            items=tuple(_stored(line) for line in self.lines),
            ignored_waivers=self.ignored,
        )

    def to_json(self) -> dict[str, Any]:
        return self.stored().model_dump(mode="json", by_alias=True)

    def write(self, path: Path) -> None:
        """In one step; the directory is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".json.new")
        fresh.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")
        fresh.replace(path)


def _stored(line: Line) -> StoredOutcome:
    return StoredOutcome(
        id=line.item.id,
        demand=line.item.demand,
        verdict=line.outcome.verdict,
        seen=line.outcome.seen,
        evidence=line.evidence,
        waived_until=line.waiver.expires if line.waiver else None,
        waived_because=line.waiver.reason if line.waiver else None,
    )


@dataclass(frozen=True, slots=True)
class Staging:
    """What production takes over: the other environment's result, and what that environment is now."""

    path: Path
    result: GateFile | None
    now: Subject


def judge_gate(
    facts: Facts,
    subject: Subject,
    at: datetime.datetime,
    *,
    waivers: Collection[Waiver] = (),
    staging: Staging | None = None,
    items: Sequence[Item] = ITEMS,
) -> GateJudgement:
    """Every item judged; with `staging` the items that need faults or load are taken from there. Pure."""
    today = at.date()
    own = [waiver for waiver in waivers if waiver.environment == subject.environment]
    holding: Mapping[str, Waiver] = {waiver.item: waiver for waiver in own if waiver.holds(today)}
    lines: list[Line] = []
    ignored = [f"waiver of {w.item} expired on {w.expires}: {w.reason}" for w in own if not w.holds(today)]
    for item in items:
        if staging is not None and item.from_staging:
            outcome, evidence = _taken(item, subject, staging, at, facts.max_age_days), staging.now.environment
        else:
            outcome, evidence = item.examine(facts), subject.environment
        waiver = holding.get(item.id)
        if waiver is not None and outcome.verdict is Verdict.TRUE:
            ignored.append(f"waiver of {item.id} is not needed any more: remove it")
            waiver = None
        lines.append(Line(item, outcome, evidence, waiver))
    return GateJudgement(subject, at, tuple(lines), tuple(ignored))


def _taken(item: Item, subject: Subject, staging: Staging, at: datetime.datetime, max_age_days: float) -> Outcome:
    """Staging's word on an item, unless it is of something else than what is about to be deployed."""
    name, result, now = staging.now.environment, staging.result, staging.now
    if result is None:
        return Outcome(
            Verdict.UNKNOWN, f"no evidence of {name}: run `breakwater gate {name}` ({staging.path} is missing)"
        )
    then = result.subject
    age_days = (at - result.at) / datetime.timedelta(days=1)
    loose = sorted(name for name, image in subject.images.items() if "@sha256:" not in image)
    different = sorted(
        name for name in subject.images.keys() | then.images if subject.images.get(name) != then.images.get(name)
    )
    doubts = (
        (then.environment != name, f"{staging.path} is of {then.environment}, not of {name}"),
        (not same(then.commit, subject.commit), f"{name} was examined at {then.commit}, this is {subject.commit}"),
        (then.topology != now.topology, f"the topology of {name} has changed since its gate"),
        (
            not subject.images or bool(loose),
            f"images without a digest cannot be told apart: {', '.join(loose) or 'all'}",
        ),
        (bool(different), f"{name} ran other images: {', '.join(different)}"),
        (not 0 <= age_days <= max_age_days, f"evidence of {name} is older than {max_age_days:g} days"),
    )
    for doubtful, words in doubts:
        if doubtful:
            return Outcome(Verdict.UNKNOWN, words)
    stored = next((entry for entry in result.items if entry.id == item.id), None)
    if stored is None:
        return Outcome(Verdict.UNKNOWN, f"the gate of {name} did not examine this")
    return Outcome(stored.verdict, f"{name}: {stored.seen}")
