"""`chaos run FILE` alone: what `breakwater verify` does around Chaos Toolkit, done from inside it.

Every scenario file names this module as its control, so that its faults meet load and leave what a verdict is made of.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any, Final

from chaoslib import PayloadEncoder
from chaoslib.exceptions import InterruptExecution

from experiments.errors import ScenarioError
from experiments.evidence import JOURNAL_FILE
from experiments.run import Order, recorded
from experiments.scenario import Scenario
from infra.stack import locked

NOTHING_TO_UNDO: Final = 30
"""Chaos Toolkit ends without rollbacks on this exit code (chaoslib.exit): what is in force is another run's."""

logger = logging.getLogger("chaostoolkit")
_begun: Final[list[tuple[contextlib.ExitStack, Path]]] = []
"""The run that goes on: Chaos Toolkit hands nothing from one of the two to the other."""


def before_experiment_control(context: dict[str, Any], configuration: dict[str, Any]) -> None:
    """Begin a run; `run_dir`, where runs are kept, becomes the directory of this one.

    Chaos Toolkit goes on after whatever goes wrong in a control. Here that ends it, before anything was touched.
    """
    try:
        order = ordered(context, configuration)
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(order.environment))
            begun = stack.enter_context(recorded(order, passed=logger.info))
            _begun.append((stack.pop_all(), begun.directory))
    except InterruptExecution:
        raise
    except Exception as error:
        logger.critical("not begun: %s", error)
        logger.debug("why", exc_info=True)
        raise SystemExit(NOTHING_TO_UNDO) from error
    configuration["run_dir"] = str(begun.directory)


def after_experiment_control(context: dict[str, Any], state: dict[str, Any]) -> None:
    """End the run that was begun, if one was: end load, read what is there in the end, keep everything."""
    if not _begun:
        return
    stack, directory = _begun.pop()
    try:
        with contextlib.suppress(KeyboardInterrupt), stack:
            _keep(state, directory)
    except Exception as error:
        logger.critical("%s is not whole and will judge as unknown: %s", directory, error)
        logger.debug("why", exc_info=True)
    logger.info("Chaos Toolkit's status is no verdict: `breakwater check %s` judges the run", directory)


def _keep(journal: dict[str, Any], directory: Path) -> None:
    """Chaos Toolkit writes its own elsewhere, and later. An interruption, which it has swallowed, is raised again."""
    (directory / JOURNAL_FILE).write_text(json.dumps(journal, indent=2, cls=PayloadEncoder))
    if journal["status"] == "interrupted":
        raise KeyboardInterrupt


def ordered(experiment: dict[str, Any], configuration: dict[str, Any]) -> Order:
    """The run that an experiment's file and its configuration, with what `--var` changed in it, come to.

    Its scenario has the phases that will be: a shorter run is none of the file as it stands. ScenarioError when a value
    is not of the file's kind, or fits no variant.
    """
    if experiment.get("dry"):
        raise ScenarioError("a run without its faults proves nothing; leave --dry out, `chaos validate` reads the file")
    scenario = Scenario.parse({key: part for key, part in experiment.items() if key != "dry"}, experiment["title"])
    for name, stated in scenario.configuration.items():
        if isinstance(configuration[name], str) != isinstance(stated, str):
            raise ScenarioError(
                f"{name} is {configuration[name]!r}, but must be like {stated!r}: a number is `--var {name}:int=1`"
            )
    own = scenario.breakwater
    variant = next((name for name, gives in own.variants.items() if gives.items() <= configuration.items()), None)
    if variant is None:
        raise ScenarioError(f"no variant of {own.id} has these values; there is {own.variants}")
    return Order(
        environment=configuration["environment"],
        scenario=scenario.with_load(**{name: configuration[name] for name in own.load.phases}),
        variant=variant,
        seed=configuration["seed"],
        out=Path(configuration["run_dir"]).resolve(),
    )
