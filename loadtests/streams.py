"""Open-model streams through the TLS edge, every operation judged and, where there is a history, recorded.

Locust's users are closed loops (a stalled answer holds back the next request), so a stream is none of them: it only
waits for arrivals, and each arrival is a greenlet of its own.
"""

from __future__ import annotations

import itertools
import math
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import gevent
import orjson
from gevent.lock import RLock
from gevent.pool import Group, Pool
from locust import FastHttpUser
from locust.env import Environment

from loadtests.arrivals import NS_PER_S, ON_TIME_NS, poisson, uniform
from loadtests.keys import SEGMENT, entity_of, keys_of, value_of, vector_of
from loadtests.outcome import Outcome, predicted, read_back, unanswered, written
from loadtests.plan import LoadError, LoadPlan, Sample
from loadtests.record import NO_SHARD, Durability, Error, Kind, Recorder
from loadtests.share import Assignment
from services.contracts.events import Event, EventLog

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
AGES_S: Final = (0.01, 3.0)
"""A read asks for a write that was acknowledged so long before it, drawn so that short and long ages are as frequent in
every decade: standbys are late by milliseconds, and after a failure by seconds."""
KNOWN: Final = 1024
"""Acknowledged writes that are remembered to be read: more than three seconds of them, or the last that there were."""
REPLICA_HEADER: Final = "x-breakwater-replica"


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


@dataclass(frozen=True, slots=True)
class Access:
    """What a process needs to be let in and to ask for something."""

    headers: Mapping[str, str]
    tls: ssl.SSLContext
    samples: list[Sample]

    @classmethod
    def to(cls, plan: LoadPlan) -> Access:
        """Read it from the plan's files; LoadError for all of them that can be wrong before anything starts."""
        headers = {"Authorization": f"Bearer {plan.token()}", "Content-Type": "application/json"}
        tls = EdgeTls(plan.edge_name)
        try:
            tls.load_verify_locations(cafile=str(plan.ca_file))
        except OSError as error:
            raise LoadError(f"cannot trust the edge by its CA file: {error}") from error
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        return cls(headers, tls, plan.samples() if plan.rates.predict > 0 else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one arrival sends. `query` is of its URL, with the question mark."""

    shard: int
    body: str = ""
    query: str = ""
    key: int = 0
    value: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class Session:
    """One load from its start to its end: its streams, and what they share (the history, the end)."""

    def __init__(self, environment: Environment, assignment: Assignment, access: Access) -> None:
        """LoadError when this load was recorded before: a second one would overwrite its history."""
        self.environment = environment
        self.plan = plan = assignment.plan
        self.share = share = assignment.share
        self.access = access
        self.over = False
        self.op_ids = itertools.count(share.process << 48)
        self.recorder: Recorder | None = None
        self.events: EventLog | None = None
        if assignment.recorded:
            part = share.part(plan.out_dir)
            if part.exists():
                raise LoadError(f"{part} is there already: a plan is carried out once; write another one")
            plan.out_dir.mkdir(parents=True, exist_ok=True)
            self.recorder = Recorder(part, share.process)
            self.events = EventLog(plan.event_log)
        self.models: set[tuple[int, str | None]] = set()
        self.streams: list[HttpStream] = [Predictor(self)] if plan.rates.predict > 0 else []
        if plan.rates.write_api > 0:
            for writer in [ApiWriter(self, endpoints.shard) for endpoints in plan.shards]:
                self.streams.append(writer)
                if plan.rates.read_api > 0:
                    self.streams.append(ApiReader(self, writer))
        self._closing = RLock()
        self._closed = False
        self._keeper = gevent.spawn(self._keep)
        self._running = Group()
        for stream in self.streams:
            greenlet = gevent.Greenlet(stream.send)
            greenlet.link_exception(self._broken)
            self._running.start(greenlet)

    def join(self) -> None:
        """Return when every stream has ended and each of its operations has its outcome."""
        self._running.join()

    def close(self) -> None:
        """End the load if it still runs; what is in flight is recorded as such before the history closes."""
        with self._closing:
            if self._closed:
                return
            self.over = True
            self._keeper.join()
            for stream in self.streams:
                stream.finish()
            self._running.join()
            if self.recorder is not None and self.events is not None:
                self.recorder.close()
                self.events.close()
            self._closed = True

    def _broken(self, _: gevent.Greenlet) -> None:
        """A defect of ours ended a stream; its trace is in the log, and the exit code says so too."""
        self.environment.process_exit_code = 1

    def _keep(self) -> None:
        """Flush each second; raise `over` when the plan ends."""
        flushed = time.monotonic()
        while not self.over:
            gevent.sleep(STOP_POLL_S)
            self.over = self.over or self.plan.over()
            if self.recorder is not None and time.monotonic() - flushed >= FLUSH_S:
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
        if self.events is not None and outcome.version is not None and named not in self.models:
            self.models.add(named)
            self.events.append(Event.now("load", "model_named", None, generation=named[0], version=named[1]))


def _json(body: Mapping[str, object]) -> str:
    return orjson.dumps(body).decode()


def longest_s(deadline_ms: int) -> float:
    """How long an operation can stay in flight: connecting may take the deadline, and so may the answer."""
    return 2 * deadline_ms / 1000 + PATIENCE_S


def _in_flight(rate: float, deadline_ms: int) -> int:
    """Connections and greenlets of one stream: enough for every arrival of a stall that lasts."""
    return max(LEAST_IN_FLIGHT, math.ceil(rate * longest_s(deadline_ms)))


def _trust(tls: ssl.SSLContext) -> Callable[..., ssl.SSLContext]:
    """The client library gives its own CA file, which is not wanted here."""
    return lambda cafile=None: tls


class HttpStream(FastHttpUser):
    """One stream with its own connections, so that a stalled one holds back no other. Locust never starts it itself."""

    abstract = True
    insecure = False
    max_retries = 0
    max_redirects = 0

    kind: Kind
    path: str
    method = "POST"

    def __init__(self, session: Session, *, rate: float, deadline_ms: int) -> None:
        plan = session.plan
        self.session = session
        self.deadline_ms = deadline_ms
        self.host = plan.edge_url
        self.connection_timeout = deadline_ms / 1000
        self.network_timeout = self.connection_timeout + PATIENCE_S
        self.concurrency = _in_flight(rate * plan.course.profile.highest / session.share.count, deadline_ms)
        self.ssl_context_factory = _trust(session.access.tls)
        self.pool = Pool(self.concurrency)
        super().__init__(session.environment)

    def arrivals(self) -> Iterator[int]:
        """When the whole load's operations are due at the plan's rate; nanoseconds from its start."""
        raise NotImplementedError

    def operation(self) -> Operation:
        raise NotImplementedError

    def judge(self, status: int, body: bytes, headers: Mapping[str, str]) -> Outcome:
        raise NotImplementedError

    def send(self) -> None:
        """Hand each arrival to a greenlet at its due time; one that cannot be handed over is recorded NOT_SENT."""
        plan = self.session.plan
        for offset in self.session.share.of(plan.course.shaped(self.arrivals())):
            due = plan.start_ns + offset
            if due >= plan.end_ns or self.session.over_before(due):
                break
            operation = self.operation()
            now = time.monotonic_ns()
            if now - due > ON_TIME_NS or self.pool.free_count() == 0:
                outcome = Outcome(Error.NOT_SENT, Durability.FAIL if self.kind is Kind.WRITE_API else Durability.NONE)
                self.record(operation, due, now, now, outcome)
                self.show_unsent()
            else:
                self.pool.spawn(self.perform, operation, due)
        self.finish()

    def show_unsent(self) -> None:
        """A failure without a time on Locust's own page, which knows nothing of what was due."""
        why = LoadError("not sent: this process was late, or had as much in flight as it can")
        self.environment.events.request.fire(
            request_type=self.method, name=self.path, response_time=None, response_length=0, exception=why
        )

    def finish(self) -> None:
        """Wait for what is in flight; what outlasts every deadline is stopped and recorded as unanswered."""
        end = time.monotonic() + longest_s(self.deadline_ms)
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
        headers = {**self.session.access.headers, **operation.headers}
        response: Any = self.client.request(
            self.method, self.path + operation.query, name=self.path, data=operation.body or None, headers=headers
        )
        if response.status_code == 0:
            return unanswered(response.error, is_write=self.kind is Kind.WRITE_API)
        return self.judge(response.status_code, response.content or b"", response.headers)

    def record(self, operation: Operation, due: int, start: int, end: int, outcome: Outcome) -> None:
        in_time = end - due <= self.deadline_ms * NS_PER_MS
        good = outcome.error is Error.NONE
        if self.session.recorder is None:
            return
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
            server=self.session.plan.server(outcome.member),
            timeline=outcome.timeline,
        )


class Predictor(HttpStream):
    """Predictions: each for a really loaded flight, half by its vector and half by entity id and time."""

    kind = Kind.PREDICT
    path = "/v1/predict"

    def __init__(self, session: Session) -> None:
        plan = session.plan
        super().__init__(session, rate=plan.rates.predict, deadline_ms=plan.deadlines_ms.predict)
        requests: list[Operation] = []
        for number, sample in enumerate(session.access.samples):
            shard = plan.slot_map.shard_of(UUID(sample.entity_id))
            by_entity = {"entity_id": sample.entity_id, "event_time": sample.event_time}
            requests.append(Operation(shard=NO_SHARD, key=number, body=_json({"features": sample.features})))
            requests.append(Operation(shard=shard, key=number, body=_json(by_entity)))
        # the whole load's choices, of which a worker takes those of its own arrivals
        choice = random.Random(f"{plan.seed}/predict/choice")  # noqa: S311 - a repeatable choice, not a secret
        self.chosen = session.share.of(choice.choice(requests) for _ in itertools.count())

    def arrivals(self) -> Iterator[int]:
        plan = self.session.plan
        return poisson(plan.rates.predict, f"{plan.seed}/predict")

    def operation(self) -> Operation:
        return next(self.chosen)

    def judge(self, status: int, body: bytes, headers: Mapping[str, str]) -> Outcome:
        outcome = predicted(status, body, headers.get(REPLICA_HEADER))
        self.session.note_model(outcome)
        return outcome


class ApiWriter(HttpStream):
    """Writes of one shard through edge and API."""

    kind = Kind.WRITE_API
    path = "/v1/features"

    def __init__(self, session: Session, shard: int) -> None:
        plan = session.plan
        super().__init__(session, rate=plan.rates.write_api, deadline_ms=plan.deadlines_ms.write)
        self.shard = shard
        self.keys = keys_of(plan.run_tag, session.share.process, shard, plan.slot_map)
        self.acknowledged: deque[tuple[int, int]] = deque(maxlen=KNOWN)
        """When (monotonic ns) and under which key, in the order of the acknowledgements."""

    def arrivals(self) -> Iterator[int]:
        plan = self.session.plan
        return uniform(plan.rates.write_api, f"{plan.seed}/write/{self.shard}", beside=plan.rates.write or None)

    def operation(self) -> Operation:
        plan = self.session.plan
        key = next(self.keys)
        value = value_of(plan.run_tag, key)
        entity = str(entity_of(plan.run_tag, key))
        body = {
            "entity_id": entity,
            "event_time": plan.write_event_time.isoformat(),
            "segment": SEGMENT,
            "features": vector_of(value, plan.write_event_time),
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
        while (
            self.session.plan.repeat_writes
            and outcome.durability is not Durability.OK
            and time.monotonic_ns() < deadline
        ):
            gevent.sleep(REPEAT_S)
            outcome = super().ask(operation, due)
            unknown = unknown or outcome.durability is Durability.UNKNOWN
        if unknown and outcome.durability is Durability.FAIL:
            return replace(outcome, durability=Durability.UNKNOWN)
        return outcome

    def judge(self, status: int, body: bytes, headers: Mapping[str, str]) -> Outcome:
        return written(status, body)

    def record(self, operation: Operation, due: int, start: int, end: int, outcome: Outcome) -> None:
        super().record(operation, due, start, end, outcome)
        if outcome.durability is Durability.OK:
            self.acknowledged.append((end, operation.key))


class ApiReader(HttpStream):
    """Reads of one shard through edge and API: each asks for what this process has had acknowledged lately.

    Which of it, and how long ago, is drawn; whether the answer was too old is judged from the history, not here.
    """

    kind = Kind.READ_API
    path = "/v1/features"
    method = "GET"

    def __init__(self, session: Session, writer: ApiWriter) -> None:
        plan = session.plan
        super().__init__(session, rate=plan.rates.read_api, deadline_ms=plan.deadlines_ms.read)
        self.writer = writer
        self.age = random.Random(f"{plan.seed}/read_api/{writer.shard}/{session.share.index}")  # noqa: S311 - repeatable
        self.first = next(keys_of(plan.run_tag, session.share.process, writer.shard, plan.slot_map))

    def arrivals(self) -> Iterator[int]:
        plan = self.session.plan
        return poisson(plan.rates.read_api, f"{plan.seed}/read_api/{self.writer.shard}")

    def operation(self) -> Operation:
        """The newest write that is as old as the age drawn, else the oldest known; the first one as long as none is."""
        plan = self.session.plan
        shortest, longest = AGES_S
        age_ns = int(shortest * (longest / shortest) ** self.age.random() * NS_PER_S)
        until = time.monotonic_ns() - age_ns
        known = self.writer.acknowledged
        key = next((key for at, key in reversed(known) if at <= until), known[0][1] if known else self.first)
        query = urlencode({
            "entity_id": str(entity_of(plan.run_tag, key)), "event_time": plan.write_event_time.isoformat()
        })  # fmt: skip
        return Operation(shard=self.writer.shard, key=key, query=f"?{query}")

    def judge(self, status: int, body: bytes, headers: Mapping[str, str]) -> Outcome:
        return read_back(status, body, headers.get(REPLICA_HEADER))
