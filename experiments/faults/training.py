"""Actions on a training: one that nothing disturbs, for comparison, and one that a fault is to meet half-way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import urllib3

from experiments.errors import ExperimentError
from experiments.evidence import EVENTS_FILE
from experiments.run import ends_with_us
from infra.environment import Environment
from infra.stack import open_environment
from services.contracts.events import Event, read_events

SOURCE: Final = "training"
UNDISTURBED: Final = "undisturbed"
DISTURBED: Final = "disturbed"
UNDER_WAY: Final = (0.10, 0.90)
"""Parts of a job's work: before, hardly anything is lost; after, the job may end before the fault shows."""
TRAINED_S: Final = 120.0
"""A training takes 10 s on two free cores; beside load and a cloud that reforms, several times that."""
BEGUN_S: Final = 60.0
ANSWER_S: Final = 1.0
POLL_S: Final = 0.05


def undisturbed(environment: str, run_dir: str, seed: int, training: bool) -> dict[str, Any]:
    """Train to the end with nothing in the way, as the measure for the other one; nothing when the variant does not."""
    if not training:
        return {"trained": False}
    train_to_end(environment, run_dir, UNDISTURBED, seed)
    return {"trained": True}


def train_to_end(environment: str, run_dir: str, name: str, seed: int) -> Path:
    """Train with nothing in the way; the directory of what came of it. ExperimentError when nothing did."""
    process = _start(environment, run_dir, name, seed)
    try:
        code = process.wait(TRAINED_S)
    except subprocess.TimeoutExpired as error:
        process.terminate()
        raise ExperimentError(f"a training that nothing disturbs did not end within {TRAINED_S:.0f} s") from error
    if code:
        raise ExperimentError(f"a training that nothing disturbs failed: {_outcome(run_dir, name)}")
    return next((Path(run_dir) / SOURCE / name).glob("attempt-*"))


def begin(environment: str, run_dir: str, seed: int, training: bool) -> dict[str, Any]:
    """Start the same training again and return as soon as its job is 10 to 90 % done."""
    if not training:
        return {"progress": None}
    target = open_environment(environment)
    process = _start(environment, run_dir, DISTURBED, seed)
    end = time.monotonic() + BEGUN_S
    while time.monotonic() < end and process.poll() is None:
        done = progress(target)
        if done is not None and UNDER_WAY[0] <= done <= UNDER_WAY[1]:
            return {"progress": done}
        time.sleep(POLL_S)
    raise ExperimentError(f"the training was never seen half-way: {_outcome(run_dir, DISTURBED)}")


def end(run_dir: str, training: bool) -> dict[str, Any]:
    """Wait until the training has ended one way or the other; a checker judges which."""
    give_up = time.monotonic() + TRAINED_S
    while training and time.monotonic() < give_up:
        outcome = _outcome(run_dir, DISTURBED)
        if outcome is not None:
            return {"outcome": outcome}
        time.sleep(POLL_S)
    return {"outcome": None}


def progress(target: Environment) -> float | None:
    """How far the job that builds a model is, 0 to 1, by the first node that answers; None when there is none."""
    for node in target.members("h2o"):
        try:
            answer = urllib3.request("GET", f"{node.url}/3/Jobs", timeout=ANSWER_S, retries=False)
            jobs = json.loads(answer.data)["jobs"]
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
            continue
        models = [job for job in jobs if job["status"] == "RUNNING" and str(job["dest"]["name"]).endswith("_model")]
        return float(models[0]["progress"]) if models else None
    return None


def _start(environment: str, run_dir: str, name: str, seed: int) -> subprocess.Popen[bytes]:
    """Below everything that serves, as the H2O nodes are; it ends with the experiment."""
    directory = Path(run_dir) / SOURCE
    directory.mkdir(exist_ok=True)
    events = Path(run_dir) / EVENTS_FILE
    command = [sys.executable, "-m", "infra.local.training", environment, str(directory), name, str(seed), str(events)]
    with (Path(run_dir) / "logs" / f"training-{name}.log").open("wb") as out:
        return subprocess.Popen(
            [*ends_with_us(signal.SIGTERM), "nice", "-n", "10", *command], stdout=out, stderr=subprocess.STDOUT
        )


def _outcome(run_dir: str, name: str) -> str | None:
    """`trained` or `failed: why`; None while neither was told."""

    def told(event: Event) -> bool:
        return (event.source, event.member) == (SOURCE, name) and event.kind in {"trained", "failed"}

    last = next((event for event in read_events(Path(run_dir) / EVENTS_FILE) if told(event)), None)
    return None if last is None else f"{last.kind}: {last.data['error']}" if last.kind == "failed" else last.kind
