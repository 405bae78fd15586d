"""What Mage's own tables (0.9.80) say of triggers and runs; Mage is ordered by its API and read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

import psycopg

APPLICATION: Final = "breakwater-mage-watch"
PIPELINE: Final = "walk_forward"
TRIGGER: Final = "order"

Status = Literal["INITIAL", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]

# An order waits for the run before it; a run waits for its blocks. Neither waits long while nothing else is under way:
# whatever was under way last, of this run or of another that has ended since, is where the waiting began.
# created_at and updated_at are when Mage's transaction began, which for a block's end can be the block's beginning.
IDLE: Final = """
    select coalesce(extract(epoch from now() - max(since)), 0)::float8 from (
        select greatest(
            r.created_at, r.started_at, r.completed_at, max(b.created_at), max(b.started_at), max(b.completed_at),
            case when r.status not in ('INITIAL', 'RUNNING') then r.updated_at end
        ) as since
        from pipeline_run r left join block_run b on b.pipeline_run_id = r.id
        where r.pipeline_uuid = %(pipeline)s
        group by r.id
    ) known
    where exists (
        select 1 from pipeline_run r where r.pipeline_uuid = %(pipeline)s and r.status in ('INITIAL', 'RUNNING')
    ) and not exists (
        select 1 from pipeline_run r join block_run b on b.pipeline_run_id = r.id
        where r.pipeline_uuid = %(pipeline)s and r.status = 'RUNNING' and b.status = 'RUNNING'
    )
"""


@dataclass(frozen=True, slots=True)
class Trigger:
    """The API trigger's number and its token, a secret."""

    id: int
    token: str


def trigger(connection: psycopg.Connection) -> Trigger | None:
    """The trigger by which orders come; None while Mage has not read its project yet."""
    if connection.execute("select to_regclass('public.pipeline_schedule')").fetchone() == (None,):
        return None
    row = connection.execute(
        "select id, token from pipeline_schedule where pipeline_uuid = %s and name = %s", (PIPELINE, TRIGGER)
    ).fetchone()
    return None if row is None else Trigger(row[0], row[1])


def idle_s(connection: psycopg.Connection) -> float:
    """Seconds for which something is ordered and no block of anything runs; 0 when nothing is ordered."""
    row = connection.execute(IDLE, {"pipeline": PIPELINE}).fetchone()
    return 0.0 if row is None else float(row[0])


def running(connection: psycopg.Connection) -> int | None:
    """The number of the run that is under way."""
    row = connection.execute(
        "select id from pipeline_run where pipeline_uuid = %s and status = 'RUNNING' order by id limit 1", (PIPELINE,)
    ).fetchone()
    return None if row is None else int(row[0])


def status(connection: psycopg.Connection, run: int) -> Status | None:
    """How a run is; None when Mage knows none with this number."""
    row = connection.execute("select status::text from pipeline_run where id = %s", (run,)).fetchone()
    return None if row is None else cast(Status, row[0])


def failure(connection: psycopg.Connection, run: int) -> str | None:
    """The block that failed first, and what Mage noted of it; None when none did."""
    row = connection.execute(
        "select block_uuid, coalesce(metrics #>> '{error,error}', 'no reason is noted') from block_run "
        "where pipeline_run_id = %s and status = 'FAILED' order by id limit 1",
        (run,),
    ).fetchone()
    return None if row is None else f"block {row[0]}: {' '.join(str(row[1]).split())}"
