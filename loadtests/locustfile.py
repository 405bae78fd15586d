"""What Locust runs: open-model predictions and API writes through the TLS edge, every operation recorded.

Locust's users are closed loops (a stalled answer holds back the next request), so here a user is one *stream*: it only
waits for arrivals, and each arrival is a greenlet of its own. Verdicts come from the history, never from Locust's exit.
"""

from __future__ import annotations

import itertools
import math
import random
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

import gevent
import orjson
from gevent.pool import Pool
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.arrivals import NS_PER_S, ON_TIME_NS, poisson, uniform
from loadtests.keys import SEGMENT, entity_of, keys_of, value_of, vector_of
from loadtests.launch import Process, http_streams
from loadtests.outcome import Outcome, predicted, unanswered, written
from loadtests.plan import EXIT_USAGE, LoadError, LoadPlan, Sample
from loadtests.record import NO_SHARD, Durability, Error, Kind, Recorder
from services.contracts.events import Event, EventLog


class EdgeTls(ssl.SSLContext):
    """A client's context: the edge proves `name`, or where that is None the host that is connected to."""

    name: str | None

    def __new__(cls, name: str | None) -> EdgeTls:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context.name = name
        return context

    def wrap_socket(self, *arguments: Any, **options: Any) -> Any:
        return super().wrap_socket(
            *arguments, **(options if self.name is None else options | {"server_hostname": self.name})
        )


def _prepare() -> tuple[LoadPlan, dict[str, str], list[Sample], ssl.SSLContext]:
    """All that can be wrong before anything starts; says so and ends the process, as Locust itself would go on idle."""
    try:
        plan = LoadPlan.from_environment()
        headers = {"Authorization": f"Bearer {plan.token()}", "Content-Type": "application/json"}
        tls = EdgeTls(plan.edge_name)
        tls.load_verify_locations(cafile=str(plan.ca_file))
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        return plan, headers, plan.samples() if plan.rates.predict > 0 else [], tls
    except LoadError as error:
        sys.stderr.write(f"{error}\n")
    except OSError as error:
        sys.stderr.write(f"cannot trust the edge by its CA file: {error}\n")
    raise SystemExit(EXIT_USAGE)


PLAN, HEADERS, SAMPLES, TLS = _prepare()
NS_PER_MS: Final = 1_000_000
FLUSH_S: Final = 1.0
"""What a killed process can lose of the history."""
STOP_POLL_S: Final = 0.1
PATIENCE_S: Final = 1.0
"""An answer this long after the deadline is late, and bad, but it says what became of a write, and its connection can
be used again: closing each at the deadline would answer a stall with a storm of TLS handshakes."""
LEAST_IN_FLIGHT: Final = 64
REPEAT_S: Final = 0.1
"""Pause before a write is sent again."""
REPLICA_HEADER: Final = "x-breakwater-replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one arrival sends."""

    shard: int
    body: str
    key: int = 0
    value: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class Session:
    """What the streams of this process share: the history, the end, the count of streams still running."""

    def __init__(self) -> None:
        PLAN.out_dir.mkdir(parents=True, exist_ok=True)
        self.recorder = Recorder(Process.LOCUST.part(PLAN.out_dir), Process.LOCUST)
        self.op_ids = itertools.count(Process.LOCUST << 48)
        self.over = False
        self.running = http_streams(PLAN)
        self.events = EventLog(PLAN.event_log)
        self.models: set[tuple[int, str | None]] = set()
        self.keeper = gevent.spawn(self._keep)

    def _keep(self) -> None:
        """Flush each second; raise `over` when the plan ends."""
        flushed = time.monotonic()
        while not self.over:
            gevent.sleep(STOP_POLL_S)
            self.over = self.over or PLAN.over()
            if time.monotonic() - flushed >= FLUSH_S:
                self.recorder.flush()
                flushed = time.monotonic()

    def over_before(self, due: int) -> bool:
        """Sleep until `due`; True when the load ends first. What is overdue does not sleep, or it would never catch up.

        By sleeping: an Event's `wait` with a timeout was seen to lose its wake-up on a busy machine (gevent 26.9).
        """
        while (wait_s := (due - time.monotonic_ns()) / NS_PER_S) > 0:
            if self.over:
                return True
            gevent.sleep(min(wait_s, STOP_POLL_S))
        return False

    def note_model(self, outcome: Outcome) -> None:
        """Which version each generation was said to be: the history holds the generation alone."""
        named = (outcome.timeline, outcome.version)
        if outcome.version is not None and named not in self.models:
            self.models.add(named)
            self.events.append(Event.now("load", "model_named", None, generation=named[0], version=named[1]))

    def stream_ended(self, environment: Environment) -> None:
        self.running -= 1
        if self.running == 0 and environment.runner is not None:
            gevent.spawn(environment.runner.quit)


_session: list[Session] = []


def _start(**_: Any) -> None:
    _session.append(Session())


def _finish(environment: Environment, **_: Any) -> None:
    """Also after SIGTERM: what is in flight is recorded as such before the history closes."""
    for session in _session:
        session.over = True
        session.keeper.join()
        for stream in HttpStream.started:
            stream.finish()
        session.recorder.close()
    environment.process_exit_code = 0 if len(HttpStream.started) == http_streams(PLAN) else 1


events.test_start.add_listener(_start)  # type: ignore[no-untyped-call]
events.quitting.add_listener(_finish)  # type: ignore[no-untyped-call]


def _verified_tls(cafile: str | None = None) -> ssl.SSLContext:
    """Trusts the environment's own CA and nothing else; `cafile` is the client library's default, not wanted here."""
    del cafile
    return TLS


def _json(body: Mapping[str, object]) -> str:
    return orjson.dumps(body).decode()


def _longest_s(deadline_ms: int) -> float:
    """How long an operation can stay in flight: connecting may take the deadline, and so may the answer."""
    return 2 * deadline_ms / 1000 + PATIENCE_S


def _in_flight(rate: float, deadline_ms: int) -> int:
    """Connections and greenlets of one stream: enough for every arrival of a stall that lasts."""
    return max(LEAST_IN_FLIGHT, math.ceil(rate * _longest_s(deadline_ms)))


class HttpStream(FastHttpUser):
    """One open-model stream with its own connections, so that a stalled one holds back no other."""

    abstract = True
    insecure = False
    ssl_context_factory = staticmethod(_verified_tls)
    max_retries = 0
    max_redirects = 0
    started: Final[list[HttpStream]] = []

    kind: Kind
    path: str
    deadline_ms: int

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.session = _session[-1]
        self.pool = Pool(self.concurrency)
        HttpStream.started.append(self)

    def arrivals(self) -> Iterator[int]:
        raise NotImplementedError

    def operation(self) -> Operation:
        raise NotImplementedError

    def judge(self, status: int, body: bytes, headers: Mapping[str, str]) -> Outcome:
        raise NotImplementedError

    @task
    def run_stream(self) -> None:
        """Hand each arrival to a greenlet at its due time; one that cannot be handed over is recorded NOT_SENT."""
        for offset in self.arrivals():
            due = PLAN.start_ns + offset
            if due >= PLAN.end_ns or self.session.over_before(due):
                break
            operation = self.operation()
            now = time.monotonic_ns()
            if now - due > ON_TIME_NS or self.pool.free_count() == 0:
                outcome = Outcome(Error.NOT_SENT, Durability.NONE if self.kind is Kind.PREDICT else Durability.FAIL)
                self.record(operation, due, now, now, outcome)
            else:
                self.pool.spawn(self.perform, operation, due)
        self.finish()
        self.session.stream_ended(self.environment)
        raise StopUser

    def finish(self) -> None:
        """Wait for what is in flight; what outlasts every deadline is stopped and recorded as unanswered."""
        end = time.monotonic() + _longest_s(self.deadline_ms)
        while len(self.pool) and time.monotonic() < end:
            gevent.sleep(STOP_POLL_S)
        self.pool.kill()

    def perform(self, operation: Operation, due: int) -> None:
        start = time.monotonic_ns()
        outcome = unanswered(TimeoutError(), is_write=self.kind is Kind.WRITE_API)
        try:
            outcome = self.ask(operation, due)
        finally:
            self.record(operation, due, start, time.monotonic_ns(), outcome)

    def ask(self, operation: Operation, due: int) -> Outcome:
        """Send it and judge the answer; `due` is for those who send it again."""
        del due
        headers = {**HEADERS, **operation.headers}
        response: Any = self.client.request("POST", self.path, data=operation.body, headers=headers)
        if response.status_code == 0:
            return unanswered(response.error, is_write=self.kind is Kind.WRITE_API)
        return self.judge(response.status_code, response.content or b"", response.headers)

    def record(self, operation: Operation, due: int, start: int, end: int, outcome: Outcome) -> None:
        in_time = end - due <= self.deadline_ms * NS_PER_MS
        good = outcome.error is Error.NONE
        self.session.recorder.add(
            op_id=next(self.session.op_ids),
            kind=self.kind,
            shard=operation.shard,
            key=operation.key,
            value=operation.value or outcome.value,
            sched_ns=due,
            start_ns=start,
            end_ns=end,
            durability=outcome.durability,
            available=good and in_time,
            error=Error.LATE if good and not in_time else outcome.error,
            server=PLAN.server(outcome.member),
            timeline=outcome.timeline,
        )


class Predictor(HttpStream):
    """Predictions: each for a really loaded flight, half by its vector and half by entity id and time."""

    fixed_count = 1
    abstract = PLAN.rates.predict == 0
    kind = Kind.PREDICT
    path = "/v1/predict"
    deadline_ms = PLAN.deadlines_ms.predict
    connection_timeout = deadline_ms / 1000
    network_timeout = connection_timeout + PATIENCE_S
    concurrency = _in_flight(PLAN.rates.predict, deadline_ms)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.choice = random.Random(f"{PLAN.seed}/predict/choice")  # noqa: S311 - a repeatable choice, not a secret
        self.requests: list[Operation] = []
        for number, sample in enumerate(SAMPLES):
            shard = PLAN.slot_map.shard_of(UUID(sample.entity_id))
            by_entity = {"entity_id": sample.entity_id, "event_time": sample.event_time}
            self.requests.append(Operation(shard=NO_SHARD, key=number, body=_json({"features": sample.features})))
            self.requests.append(Operation(shard=shard, key=number, body=_json(by_entity)))

    def arrivals(self) -> Iterator[int]:
        return poisson(PLAN.rates.predict, f"{PLAN.seed}/predict")

    def operation(self) -> Operation:
        return self.choice.choice(self.requests)

    def judge(self, status: int, body: bytes, headers: Mapping[str, str]) -> Outcome:
        outcome = predicted(status, body, headers.get(REPLICA_HEADER))
        self.session.note_model(outcome)
        return outcome


class ApiWriter(HttpStream):
    """Writes of one shard through edge and API."""

    fixed_count = len(PLAN.shards)
    abstract = PLAN.rates.write_api == 0
    kind = Kind.WRITE_API
    path = "/v1/features"
    deadline_ms = PLAN.deadlines_ms.write
    connection_timeout = deadline_ms / 1000
    network_timeout = connection_timeout + PATIENCE_S
    concurrency = _in_flight(PLAN.rates.write_api, deadline_ms)
    shards: Final = itertools.cycle(endpoints.shard for endpoints in PLAN.shards)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.shard = next(self.shards)
        self.keys = keys_of(PLAN.run_tag, Process.LOCUST, self.shard, PLAN.slot_map)

    def arrivals(self) -> Iterator[int]:
        return uniform(PLAN.rates.write_api, f"{PLAN.seed}/write_api/{self.shard}")

    def operation(self) -> Operation:
        key = next(self.keys)
        value = value_of(PLAN.run_tag, key)
        entity = str(entity_of(PLAN.run_tag, key))
        body = {
            "entity_id": entity,
            "event_time": PLAN.write_event_time.isoformat(),
            "segment": SEGMENT,
            "features": vector_of(value, PLAN.write_event_time),
        }
        headers = {"Idempotency-Key": entity}
        return Operation(shard=self.shard, key=key, value=value, body=_json(body), headers=headers)

    def ask(self, operation: Operation, due: int) -> Outcome:
        """Once, or until it is acknowledged or its deadline is over, as docs/errors.md tells clients to do.

        What an attempt may have done stays possible: a write is acknowledged by one attempt, or of unknown outcome
        when any of them was.
        """
        deadline = due + self.deadline_ms * NS_PER_MS
        outcome = super().ask(operation, due)
        unknown = outcome.durability is Durability.UNKNOWN
        while PLAN.repeat_writes and outcome.durability is not Durability.OK and time.monotonic_ns() < deadline:
            gevent.sleep(REPEAT_S)
            outcome = super().ask(operation, due)
            unknown = unknown or outcome.durability is Durability.UNKNOWN
        if unknown and outcome.durability is Durability.FAIL:
            return replace(outcome, durability=Durability.UNKNOWN)
        return outcome

    def judge(self, status: int, body: bytes, headers: Mapping[str, str]) -> Outcome:
        return written(status, body)
