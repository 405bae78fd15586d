"""A scenario file: a Chaos Toolkit experiment with its load and promises, read so strictly that no misspelt key passes.

Chaos Toolkit ignores keys that it does not know, so that a misspelt `rollbacks` is an experiment without rollbacks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypedDict

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from experiments.errors import ScenarioError, fields
from experiments.record import Rates, Strict
from infra.environment import Capability
from infra.topology import Component
from loadtests.profiles import PROFILES

SCENARIO_FILE: Final = "scenario.json"

Compare = Literal["<", "<=", "==", ">="]
Param = float | int | str | bool
Seconds = Annotated[float, Field(gt=0)]
Phase = Annotated[float, Field(ge=0)]
"""Seconds of a phase that a load without a fault does not have."""


class Promise(Strict):
    """One line of the promises table: what is measured, by which checker, against which target."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    why: str | None = None
    """One sentence: why it is promised, and why with this bound. None in runs that were stored before it was asked for;
    the linter wants it of every file."""
    checker: str
    target: float
    unit: str
    compare: Compare
    params: dict[str, Param] = Field(default_factory=dict)
    variants: tuple[str, ...] | None = None

    def kept(self, value: float) -> bool:
        """Whether a measured value keeps the promise."""
        match self.compare:
            case "<":
                return value < self.target
            case "<=":
                return value <= self.target
            case "==":
                return value == self.target
            case ">=":
                return value >= self.target

    def number(self, name: str, default: float) -> float:
        """A numeric parameter; ScenarioError when the scenario gave something else."""
        given = self.params.get(name, default)
        if isinstance(given, bool | str):
            raise ScenarioError(f"promise {self.id}: parameter {name} must be a number, not {given!r}")
        return float(given)


class LoadProfile(Strict):
    """What runs while the fault happens, and how long each phase is at least (seconds)."""

    rates: Rates
    begins: Literal["before-fault", "with-fault"] = "before-fault"
    """With the fault: whose action then says when, and the undisturbed load comes after it."""
    warm_up_s: Seconds
    """Load before anything is measured: pools grow, caches fill, code is compiled."""
    baseline_s: Seconds
    settle_s: Phase
    """How much longer the load may run undisturbed until its last `baseline_s` were steady."""
    fault_s: Phase
    recovery_s: Phase
    flights_per_shard: Annotated[int, Field(ge=1, le=5000)] = 500
    """Loaded flights that predictions and reads ask for. The default: more than a cache and an index page answer, and
    read in a moment; fewer are hotter."""
    write_deadline_ms: Annotated[int, Field(ge=1, le=60_000)] = 1000
    """From the scheduled time until the acknowledgement."""
    repeat_writes: bool = False
    """Whether clients of the API repeat a write with its idempotency key until its deadline, as docs/errors.md says."""

    @property
    def longest_s(self) -> float:
        """All phases after the warm-up, if each lasts as long as it may."""
        return sum(self.phases.values())

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of each phase after the warm-up, as `${...}` of the method names it."""
        names = ("baseline_s", "settle_s", "fault_s", "recovery_s")
        return {name: getattr(self, name) for name in names}


class Faults(Strict):
    """What the environment must allow and be able to do, asked before anything starts.

    `capabilities` are those of every variant; `variants` names what one of them needs besides.
    """

    component: Component | Annotated[tuple[Component, ...], Field(min_length=1)]
    """Several, for a scenario that strikes several."""
    capabilities: Annotated[tuple[Capability, ...], Field(min_length=1)]
    variants: dict[str, tuple[Capability, ...]] = Field(default_factory=dict)

    @property
    def components(self) -> tuple[Component, ...]:
        return (self.component,) if isinstance(self.component, str) else self.component


Probe = Literal["postgres", "etcd", "machine", "replicas", "h2o", "models", "pools"]
"""Observers that run beside the load (experiments/probes)."""


class Extension(Strict):
    """Our own part of the experiment. Each variant gives its own values for `${...}` of the method."""

    name: Literal["breakwater"]
    id: str
    title: str
    faults: Faults | None = None
    """None for a load test: a load that nothing disturbs, whose variants are the load's profiles."""
    probes: Annotated[tuple[Probe, ...], Field(min_length=1)]
    variants: Annotated[dict[str, dict[str, Param]], Field(min_length=1)]
    demo: tuple[str, ...] = ()
    """Variants that `breakwater demo` runs."""
    load: LoadProfile
    promises: Annotated[tuple[Promise, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Extension:
        ids = [promise.id for promise in self.promises]
        if len(set(ids)) < len(ids):
            raise ValueError(f"promise ids must differ: {sorted(name for name in ids if ids.count(name) > 1)}")
        if self.faults is None:
            strange = self.variants.keys() - set(PROFILES)
            if strange:
                raise ValueError(f"without faults the variants are load profiles, not {sorted(strange)}")
        elif strange := self.faults.variants.keys() - self.variants:
            raise ValueError(f"faults name variants that the scenario lacks: {sorted(strange)}")
        elif not min(self.load.settle_s, self.load.fault_s, self.load.recovery_s) > 0:
            raise ValueError("load needs more than 0 s for settle_s, fault_s and recovery_s where there are faults")
        strange = set(self.demo) - set(self.variants)
        if strange:
            raise ValueError(f"demo names variants that the scenario lacks: {sorted(strange)}")
        for promise in self.promises:
            unknown = set(promise.variants or ()) - set(self.variants)
            if unknown:
                raise ValueError(f"promise {promise.id} names variants that the scenario lacks: {sorted(unknown)}")
        return self


class Given(TypedDict):
    """What the runner gives to every scenario, as `${...}`; the victim follows from seed or shard."""

    environment: str
    run_dir: str
    seed: int
    shard: int
    baseline_s: float
    settle_s: float
    fault_s: float
    recovery_s: float


class _Toolkit(BaseModel):
    """Base of Chaos Toolkit's own parts: their keys, no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Provider(_Toolkit):
    """Only Python: it has no shell, and each of our functions keeps its own deadline."""

    type: Literal["python"]
    module: str
    func: str
    arguments: dict[str, JsonValue] = {}
    secrets: list[str] = []


class Pauses(_Toolkit):
    before: float | str = 0
    after: float | str = 0


class Activity(_Toolkit):
    type: Literal["action", "probe"]
    name: str
    provider: Provider
    tolerance: JsonValue = None
    pauses: Pauses | None = None
    background: bool = False
    controls: list[JsonValue] = []


class Hypothesis(_Toolkit):
    title: str
    probes: list[Activity]
    controls: list[JsonValue] = []


class RollbackStrategy(_Toolkit):
    strategy: Literal["always"]
    """Rollbacks must also run after a failed method; every other strategy can leave the fault in place."""


class Runtime(_Toolkit):
    rollbacks: RollbackStrategy


class Scenario(_Toolkit):
    """The whole file, as Chaos Toolkit gets it."""

    title: str
    description: str
    tags: list[str] = []
    contributions: dict[str, Literal["none", "low", "medium", "high"]] = {}
    configuration: dict[str, JsonValue] = {}
    secrets: dict[str, JsonValue] = {}
    controls: list[JsonValue] = []
    hypothesis: Hypothesis | None = Field(default=None, alias="steady-state-hypothesis")
    method: list[Activity] = []
    rollbacks: list[Activity] = []
    runtime: Runtime | None = None
    extensions: tuple[Extension]

    @property
    def breakwater(self) -> Extension:
        return self.extensions[0]

    def promises_of(self, variant: str) -> tuple[Promise, ...]:
        """The promises that hold for a variant, in the file's order; ScenarioError for a variant it does not have."""
        if variant not in self.breakwater.variants:
            known = ", ".join(self.breakwater.variants)
            raise ScenarioError(f"{self.breakwater.id} has no variant {variant!r}; it has {known}")
        return tuple(p for p in self.breakwater.promises if p.variants is None or variant in p.variants)

    def with_load(self, **changes: float) -> Scenario:
        """The same scenario with other numbers in its load; its promises stay as they are."""
        own = self.breakwater
        load = own.load.model_copy(update=changes)
        return self.model_copy(update={"extensions": (own.model_copy(update={"load": load}),)})

    @classmethod
    def parse(cls, document: object, where: str) -> Scenario:
        """A scenario from its parsed document; ScenarioError names every key that does not belong."""
        try:
            # In JSON mode the strict parts take lists for tuples, which is what YAML has.
            return cls.model_validate_json(json.dumps(document))
        except TypeError as error:
            raise ScenarioError(f"{where} is not a scenario: {error}") from error
        except ValidationError as error:
            raise ScenarioError(f"{where} is not a scenario: {fields(error)}") from error

    @classmethod
    def read(cls, path: Path) -> Scenario:
        """Read a .yaml scenario, or the scenario.json that a run keeps (1e-06 is a number in JSON, not in YAML)."""
        try:
            text = path.read_text(encoding="utf-8")
            document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except FileNotFoundError as error:
            raise ScenarioError(f"{path} does not exist") from error
        except (yaml.YAMLError, ValueError) as error:
            raise ScenarioError(f"{path} is not {path.suffix.removeprefix('.').upper()}: {error}") from error
        return cls.parse(document, str(path))

    def document(self) -> dict[str, Any]:
        """The plain document, to hand to Chaos Toolkit and to keep as scenario.json."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
