"""What a direct writer and a reader send to a shard, and what its answers prove.

The SQL is a copy of the feature store's on purpose: load observes the platform from outside and shares no code with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
import psycopg
from psycopg.errors import ReadOnlySqlTransaction
from pydantic import ValidationError

from loadtests.connections import Link, ShardLinks
from loadtests.keys import SEGMENT
from loadtests.outcome import Outcome
from loadtests.record import Durability, Error
from services.contracts.flights import FlightFeatures
from services.contracts.slots import slot_of

NS_PER_S: Final = 1_000_000_000

OWNS_SLOT: Final = "select 1 from owned_slots where slot = %s for share"
PUT_ENTITY: Final = (
    "insert into entities (entity_id, segment) values (%s, %s)"
    " on conflict (entity_id) do update set segment = excluded.segment"
)
PUT_FEATURES: Final = (
    "insert into features (entity_id, event_time, feature_vector, idempotency_key) values (%s, %s, %s, %s)"
    " on conflict (entity_id, event_time) do update"
    " set feature_vector = excluded.feature_vector, idempotency_key = excluded.idempotency_key"
)
GET_FEATURES: Final = "select feature_vector from features where entity_id = %s and event_time = %s"


PATIENCE_S: Final = 2.0
"""An answer after the deadline is late, and bad, but its connection is sound. Cutting connections at the deadline
would turn one slow second into a storm of logins that keeps every later write late as well."""


@dataclass(slots=True)
class Attempt:
    """How far an operation has come, so that its outcome can be judged at any point of failure.

    `start_ns` is when its client took it up, also when it then had to wait for a connection: without a primary a
    write is attempted nonetheless, and what it waits is the platform's time, not the client's.
    """

    start_ns: int
    deadline_ns: int
    commit_sent: bool = False
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class WriteRow:
    """One row to write; `vector` is JSON."""

    entity: UUID
    event_time: str
    vector: str


Body = Callable[[Link, Attempt], Awaitable[Outcome]]


async def attempt(links: ShardLinks, state: Attempt, body: Body) -> Outcome:
    """Run `body` on a connection as soon as there is one; both are given up `PATIENCE_S` after the deadline.

    Nothing is ever cancelled. Without a connection until the deadline the outcome is REFUSED: certainly not applied.
    """
    link = await links.acquire(state.deadline_ns)
    if link is None:
        return Outcome(Error.REFUSED, Durability.FAIL)

    def give_up() -> None:
        state.given_up = True
        link.cut()

    remaining_s = (state.deadline_ns - time.monotonic_ns()) / NS_PER_S + PATIENCE_S
    timer = asyncio.get_running_loop().call_later(remaining_s, give_up)
    broken = True
    try:
        outcome = await body(link, state)
        broken = state.given_up or link.connection.closed
    except (psycopg.Error, OSError) as error:
        outcome = _failed(error, link, state)
    finally:
        timer.cancel()
        await links.release(link, broken=broken)
    return Outcome(outcome.error, outcome.durability, link.member, link.timeline)


async def write(link: Link, state: Attempt, row: WriteRow) -> Outcome:
    """The write transaction: acknowledged only by a COMMIT that came back clean and without any notice."""
    cursor = link.connection.cursor()
    await cursor.execute("begin", prepare=False)
    await cursor.execute(OWNS_SLOT, (slot_of(row.entity),))
    if await cursor.fetchone() is None:
        await cursor.execute("rollback", prepare=False)
        return Outcome(Error.NOT_OWNER, Durability.FAIL)
    await cursor.execute(PUT_ENTITY, (row.entity, SEGMENT))
    await cursor.execute(PUT_FEATURES, (row.entity, row.event_time, row.vector, row.entity))
    link.notices.clear()
    state.commit_sent = True
    await cursor.execute("commit", prepare=False)
    if cursor.statusmessage != "COMMIT":
        return Outcome(Error.SERVER_ERROR, Durability.FAIL)  # the server answered ROLLBACK: certainly not applied
    if link.notices:
        # such as 01000: canceling wait for synchronous replication
        return Outcome(Error.COMMIT_UNKNOWN, Durability.UNKNOWN)
    return Outcome(Error.NONE, Durability.OK)


async def read(link: Link, state: Attempt, entity: UUID, event_time: str, expected: FlightFeatures) -> Outcome:
    """Read a flight that was loaded long before the run: absent or different is a wrong answer on any member."""
    cursor = await link.connection.execute(GET_FEATURES, (entity, event_time))
    row = await cursor.fetchone()
    if row is None:
        return Outcome(Error.WRONG_ANSWER)
    try:
        same = FlightFeatures.model_validate(row[0]) == expected
    except ValidationError:
        same = False
    return Outcome(Error.NONE if same else Error.WRONG_ANSWER)


def _failed(error: Exception, link: Link, state: Attempt) -> Outcome:
    """An error before COMMIT was sent left nothing behind; any error after it leaves the row's fate open."""
    if state.given_up:
        reason = Error.TIMEOUT
    elif isinstance(error, ReadOnlySqlTransaction):
        reason = Error.READ_ONLY
    elif link.connection.closed or link.connection.broken:
        reason = Error.DISCONNECTED
    else:
        reason = Error.COMMIT_UNKNOWN if state.commit_sent else Error.SERVER_ERROR
    return Outcome(reason, Durability.UNKNOWN if state.commit_sent else Durability.FAIL)


def vector_json(vector: dict[str, object]) -> str:
    return orjson.dumps(vector).decode()
