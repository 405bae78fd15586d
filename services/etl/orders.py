"""Order a walk-forward run from Mage by its API and follow it: what each step says, and how it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import psycopg
import urllib3
from pydantic import BaseModel, ConfigDict, ValidationError

from services.contracts.events import Event, read_events
from services.contracts.shards import ShardEndpoints
from services.etl import mage_runs
from services.etl.errors import OrderRefused, RunFailed
from services.etl.promotion import Outcome
from services.etl.run import CUT, EVENTS, OUTCOME, Order
from services.etl.snapshot import Cut
from services.featurestore.errors import ShardUnavailable
from services.featurestore.sessions import session

STARTING_S: Final = 180.0
"""Mage imports for 10 s and migrates its tables as long; a crowded machine gets its time."""
ASK_S: Final = 10.0
RUN_S: Final = 3600.0
"""A run that takes longer hangs: a year trains in about a minute, and a cloud that is lost five times in ten."""
POLL_S: Final = 0.5
HTTP_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Office:
    """Where orders are taken: Mage's own address, its database, and the directory of the runs."""

    url: str
    database: ShardEndpoints
    runs: Path


class _Taken(BaseModel):
    """What Mage answers to an order, as far as it matters."""

    model_config = ConfigDict(frozen=True)

    id: int
    execution_date: datetime


def place(office: Office, *, seed: int, timeout_s: float = STARTING_S) -> Order:
    """Order a run; returns as soon as Mage has it written down. It waits for its turn when another one is under way.

    Waits for a Mage that is starting; OrderRefused when it does not start, or does not take the order.
    """
    trigger = _wait_trigger(office, time.monotonic() + timeout_s)
    url = f"{office.url}/api/pipeline_schedules/{trigger.id}/api_trigger"  # the token in a header: URLs are logged
    headers = {"Authorization": f"Bearer {trigger.token}"}
    try:
        answer = urllib3.request(
            "POST",
            url,
            json={"pipeline_run": {"variables": {"seed": seed}}},
            headers=headers,
            timeout=ASK_S,
            retries=False,
        )
        taken = _Taken.model_validate(json.loads(answer.data).get("pipeline_run"))
    except (urllib3.exceptions.HTTPError, ValueError, ValidationError, AttributeError) as error:
        raise OrderRefused(
            f"Mage at {office.url} did not take the order ({type(error).__name__}): see its log and `breakwater status`"
        ) from error
    return Order.model_validate({"run": taken.id, "ordered_at": taken.execution_date, "seed": seed})


def follow(office: Office, order: Order, tell: Callable[[Event], None], *, timeout_s: float = RUN_S) -> Outcome:
    """Tell what the steps say until the run ends; RunFailed says which step failed and why. Ends nothing when it is
    interrupted: the run goes on."""
    end = time.monotonic() + timeout_s
    said = _Said(office.runs / order.version / EVENTS)
    while True:
        status = _status(office, order.run)
        for event in said.news():
            tell(event)
        match status:
            case "COMPLETED":
                return Outcome.model_validate_json((office.runs / order.version / OUTCOME).read_bytes())
            case "FAILED" | "CANCELLED":
                raise RunFailed(
                    f"walk-forward run {order.run} {status.lower()}: {said.failure or _noted(office, order)}"
                )
        if time.monotonic() > end:
            raise RunFailed(
                f"walk-forward run {order.run} has not ended after {timeout_s:.0f} s: {_see(office, order)}"
            )
        time.sleep(POLL_S)


def cut_of(office: Office, order: Order) -> Cut:
    """What the run was trained on; OSError before it has taken its cut."""
    return Cut.model_validate_json((office.runs / order.version / CUT).read_bytes())


class _Said:
    """The events of a run that have not been told yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = 0
        self.failure: str | None = None

    def news(self) -> Iterator[Event]:
        events = list(read_events(self._path)) if self._path.exists() else []
        for event in events[self._told :]:
            self._told += 1
            if event.kind == "failed":
                self.failure = f"{event.data['step']}: {event.data['error']}"
            yield event


def _noted(office: Office, order: Order) -> str:
    """What Mage itself noted, where the failure was no step's."""
    with session(office.database, application_name=mage_runs.APPLICATION) as connection:
        noted = mage_runs.failure(connection, order.run)
    return f"{noted or 'no block failed'}; {_see(office, order)}"


def _see(office: Office, order: Order) -> str:
    return f"see {office.runs / order.version} and the log of mage"


def _wait_trigger(office: Office, end_s: float) -> mage_runs.Trigger:
    why = "its database does not answer"
    while True:
        try:
            with session(office.database, application_name=mage_runs.APPLICATION) as connection:
                trigger = mage_runs.trigger(connection)
            why = "its scheduler has not read the pipeline yet"
            if trigger is not None and _serves(office.url):
                return trigger
            if trigger is not None:
                why = "its web server does not answer"
        except (ShardUnavailable, psycopg.Error) as error:
            why = str(error)
        if time.monotonic() > end_s:
            raise OrderRefused(f"Mage at {office.url} takes no orders: {why}; see `breakwater status` and its log")
        time.sleep(POLL_S)


def _serves(url: str) -> bool:
    try:
        return urllib3.request("GET", f"{url}/api/status", timeout=ASK_S, retries=False).status == HTTP_OK
    except urllib3.exceptions.HTTPError:
        return False


def _status(office: Office, run: int) -> mage_runs.Status | None:
    """None while the database changes its primary: the run goes on meanwhile."""
    try:
        with session(office.database, application_name=mage_runs.APPLICATION) as connection:
            return mage_runs.status(connection, run)
    except (ShardUnavailable, psycopg.Error):
        return None
