"""Locust without a plan: its options, and the plan that follows from them and from the environment."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from loadtests.arrivals import NS_PER_S
from loadtests.plan import PLAN_VARIABLE, LoadError, LoadPlan
from loadtests.profiles import PROFILES

ENVIRONMENT_VARIABLE: Final = "BREAKWATER_ENVIRONMENT"
PLAN_FILE: Final = "load.json"
ANSWER_S: Final = 60
"""`breakwater load-plan` answers within seconds, on a crowded machine within some more."""
LEAD_S: Final = 1.0
"""From the start to the first arrival: workers get their shares meanwhile."""


def add_options(parser: Any) -> None:
    """What a user may choose; all but the environment also in the form of Locust's page."""
    parser.add_argument(
        "--environment", env_var=ENVIRONMENT_VARIABLE, default="", metavar="NAME", include_in_web_ui=False,
        help="Environment to load, which must be up.",
    )  # fmt: skip
    parser.add_argument(
        "--load-profile", choices=list(PROFILES), default="normal",
        help="How the rates change over time: "
        + "; ".join(f"{name}: {profile.title}" for name, profile in PROFILES.items()) + ".",
    )  # fmt: skip
    parser.add_argument("--rate", type=float, default=100.0, help="Predictions per second, of all workers together.")
    parser.add_argument(
        "--write-rate", type=float, default=0.0, help="Writes through the API per second and shard. They stay."
    )
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="How long; 0 for as long as the profile lasts by itself."
    )
    parser.add_argument("--seed", type=int, default=1, help="Arrivals and what is asked for follow from it.")


@dataclass(frozen=True, slots=True)
class Alone:
    """The plan of an environment, from which each start makes its own."""

    template: dict[str, Any]

    @property
    def edge_url(self) -> str:
        return str(self.template["edge_url"])

    def plan(self, options: Namespace) -> LoadPlan:
        """What the options ask for, from now on; LoadError when they ask for too much or for nothing."""
        profile = PROFILES[options.load_profile]
        start_ns = time.monotonic_ns() + int(LEAD_S * NS_PER_S)
        rates = {"predict": options.rate, "write": 0, "write_api": options.write_rate, "read": 0}
        if not (options.rate > 0 or options.write_rate > 0):
            raise LoadError("nothing to send: give --rate or --write-rate a number above 0")
        changes = {
            "rates": rates,
            "profile": options.load_profile,
            "seed": options.seed,
            "run_tag": secrets.randbits(64),
            "start_ns": start_ns,
            "end_ns": start_ns + int((options.seconds or profile.seconds) * NS_PER_S),
        }
        try:
            return LoadPlan.model_validate_json(json.dumps(self.template | changes))
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'the load'}: {item['msg']}" for item in error.errors()
            )
            raise LoadError(f"such a load is not allowed: {wrong}") from error


def of(environment: str, directory: Path) -> Alone:
    """Ask the project's own command about an environment; LoadError with its words when it refuses.

    The plan and the flights that it asks for are written to `directory`.
    """
    if not environment:
        raise LoadError(
            f"which environment? Give --environment NAME or set {ENVIRONMENT_VARIABLE}; "
            f"for a plan that exists set {PLAN_VARIABLE} to its path"
        )
    command = [str(Path(sys.prefix) / "bin" / "breakwater"), "load-plan", environment, "--out", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoadError(f"`breakwater load-plan {environment}` does not answer: {error}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()).removeprefix("\N{BLACK SQUARE} ")
        raise LoadError(said or f"`breakwater load-plan {environment}` ended with {done.returncode}")
    path = directory / PLAN_FILE
    LoadPlan.load(path)
    found: dict[str, Any] = json.loads(path.read_bytes())
    return Alone(found)


def temporary_directory() -> Path:
    """For plan and samples; `forget` it in the end."""
    return Path(tempfile.mkdtemp(prefix="breakwater-locust-"))


def forget(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
