"""What the gate knows when it judges: facts of one moment, or why a fact could not be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, TypeVar

from experiments.checkers.finding import Verdict
from services.contracts.training import SnapshotWitness


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact that nobody could collect, and why: its item is `unknown`."""

    why: str


Fact = TypeVar("Fact")
Known: TypeAlias = Fact | Missing


class Answer(StrEnum):
    """What became of a TLS handshake. Only an alert of the peer is a refusal; silence is no answer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NONE = "no answer"


@dataclass(frozen=True, slots=True)
class Handshake:
    """One handshake that offered a single version of TLS to an address."""

    address: str
    offered: str
    answer: Answer
    said: str


@dataclass(frozen=True, slots=True)
class SourceScan:
    """Ruff's rules on blocking calls in asynchronous functions, over the services: path, line, message of each.

    `deliberate` are those of the fault hook, which is there to block.
    """

    files: int
    breaches: tuple[str, ...]
    deliberate: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopWatch:
    """What one replica's watchdog counted over a run; None when the replica was restarted meanwhile."""

    replica: str
    pings: int | None
    blocked: int | None


@dataclass(frozen=True, slots=True)
class LoopEvidence:
    """The watchdogs over the last run that loaded the API and struck none of its replicas."""

    run: str
    commit: str | None
    replicas: tuple[LoopWatch, ...]


@dataclass(frozen=True, slots=True)
class Training:
    """The last training: by which code, when, and what each shard's server said of its transaction."""

    version: str
    commit: str | None
    shards: int
    witnesses: tuple[SnapshotWitness, ...]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """A test as JUnit tells it, named with its module; `outcome` is passed, failed or skipped."""

    name: str
    outcome: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class SuiteResults:
    """All cases of the JUnit files; `commits` are those that the files name (None: a file that names none)."""

    files: tuple[str, ...]
    commits: frozenset[str | None]
    cases: tuple[CaseResult, ...]


@dataclass(frozen=True, slots=True)
class ContractUse:
    """Who gets the feature contract from where. `reach` is False for a package that does not import it."""

    contract: str
    fields: int
    reach: Mapping[str, bool]
    copies: tuple[str, ...]
    """Classes elsewhere that declare the contract's fields again: `module.Class (n fields)`."""


@dataclass(frozen=True, slots=True)
class Heap:
    """A JVM's heap beside its limit, MB; `where` says whose, and whether rendered or running."""

    where: str
    running: bool
    heap_mb: int | None
    limit_mb: int | None


@dataclass(frozen=True, slots=True)
class ConsensusTrial:
    """One H2O node was killed. Seconds until each other node's readiness said false (None: it never did)."""

    killed: str
    proven: bool
    evidence: str
    ready_before: Mapping[str, bool]
    false_after_s: Mapping[str, float | None]
    watched_s: float
    ready_again: bool


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run of a variant, judged again from its files. `unlike` says how it was not the scenario's own."""

    scenario: str
    variant: str
    run: str | None
    verdict: Verdict | None
    commit: str | None = None
    age_days: float | None = None
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """The rules over the rendered objects of one environment."""

    environment: str
    rules: int
    objects: int
    breaches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the items look at. Whatever is Missing says why."""

    commit: str | None
    max_age_days: float
    handshakes: Known[tuple[Handshake, ...]]
    scan: Known[SourceScan]
    loops: Known[LoopEvidence]
    training: Known[Training]
    tests: Known[SuiteResults]
    contract: Known[ContractUse]
    heaps: Known[tuple[Heap, ...]]
    consensus: Known[ConsensusTrial]
    runs: Known[tuple[LastRun, ...]]
    policies: Known[tuple[PolicyCheck, ...]]
