"""What a scenario file may say wrongly with the right keys: Chaos Toolkit would find out during the run, if ever."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from experiments.checkers import CHECKERS
from experiments.scenario import Activity, Given, Scenario

OURS: Final = "experiments."
"""Only our own functions keep deadlines and leave records."""
REFERENCE: Final = re.compile(r"\$\{([^}]*)\}")
ALONE: Final[JsonValue] = {"name": "breakwater", "provider": {"type": "python", "module": "experiments.alone"}}
"""The control that `chaos run` on the file alone goes by."""


def problems(scenario: Scenario) -> list[str]:
    """Everything that is wrong, in words; nothing when the scenario can be run."""
    activities = _activities(scenario)
    found = [problem for activity in activities for problem in _function(activity)]
    names = [activity.name for activity in activities]
    found += [f"two activities are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    found += [*_references(scenario), *_alone(scenario)]
    for promise in scenario.breakwater.promises:
        if promise.checker not in CHECKERS:
            found.append(f"promise {promise.id} names checker {promise.checker!r}, which does not exist")
        if not promise.why:
            found.append(f"promise {promise.id} does not say why it is promised, and why with this bound")
    return found


def _activities(scenario: Scenario) -> list[Activity]:
    hypothesis = scenario.hypothesis.probes if scenario.hypothesis is not None else []
    return [*hypothesis, *scenario.method, *scenario.rollbacks]


def _function(activity: Activity) -> Iterator[str]:
    provider = activity.provider
    name = f"{provider.module}.{provider.func}"
    if not provider.module.startswith(OURS):
        yield f"{activity.name!r} calls {name}, which is not below {OURS}"
        return
    try:
        function = getattr(importlib.import_module(provider.module), provider.func)
    except (ImportError, AttributeError):
        yield f"{activity.name!r} calls {name}, which does not exist"
        return
    try:
        inspect.signature(function).bind(**provider.arguments)
    except TypeError as error:
        yield f"{activity.name!r} calls {name} wrongly: {error}"


def _references(scenario: Scenario) -> Iterator[str]:
    """Every `${...}` is the runner's or given by each variant."""
    known = set(Given.__annotations__)
    for variant, settings in scenario.breakwater.variants.items():
        hidden = sorted(settings.keys() & known)
        if hidden:
            yield f"variant {variant} gives {', '.join(hidden)}, which is given already"
    for activity in _activities(scenario):
        for name in REFERENCE.findall(json.dumps(activity.provider.arguments)):
            if name in known:
                continue
            lacking = [v for v, settings in scenario.breakwater.variants.items() if name not in settings]
            if lacking:
                yield f"{activity.name!r} refers to ${{{name}}}, which nobody gives in variant {', '.join(lacking)}"


def _alone(scenario: Scenario) -> Iterator[str]:
    """`chaos run` alone has all that the runner would give, with phases and first variant as they are, and its control.

    A load test is as long as somebody says, so it is no file to be run by itself and has neither.
    """
    own = scenario.breakwater
    variant, settings = next(iter(own.variants.items()))
    stated, controls = scenario.configuration, [] if own.faults is None else [ALONE]
    wanted = set() if own.faults is None else {*Given.__annotations__, *settings}
    if lacking := sorted(wanted - stated.keys()):
        yield f"configuration lacks {', '.join(lacking)}"
    if strange := sorted(stated.keys() - wanted):
        yield f"configuration gives {', '.join(strange)}, which neither the runner nor variant {variant} gives"
    for name, value in {**own.load.phases, **settings}.items():
        if name in stated and stated[name] != value:
            yield f"configuration gives {name} as {stated[name]}, which is {value}"
    if scenario.controls != controls:
        yield f"controls must be {json.dumps(controls)}"
