"""Watches every PostgreSQL member's role and each shard's route: `python -m experiments.probes.postgres PLAN`.

Role: one lasting connection per member, a standby's asked each 20 ms; a promotion does not break its connections, so
`writable` is seen within that. A primary is asked less often: what it may become, nobody waits for. Route: one lasting
read-write connection per shard, as libpq's multi-host routing finds it; once it is gone a fresh one is tried, at once
when a member was seen writable, else at a slow pace, because each try costs every standby a login (about 15 ms of CPU
for two) that the promotion itself needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import uvloop

from loadtests.connections import TIMELINE_SQL, Link, open_link
from loadtests.plan import EXIT_USAGE, LoadError, LoadPlan
from services.contracts.events import Event, EventLog
from services.contracts.shards import HostPort, ShardEndpoints

POLL_S: Final = 0.020
"""As fine as recovery times are resolved; finer would cost the machine that is measured more than it tells."""
ANSWER_S: Final = 0.5
"""A probe's own deadline: a member that does not answer by then loses its connection."""
REDIAL_S: Final = 0.020
"""Refused connections cost next to nothing."""
ROUTE_CHECK_S: Final = 0.050
ROUTE_REDIAL_S: Final = 0.250
PRIMARY_POLL_S: Final = 0.2
"""A primary tells who streams from it."""
STOP_POLL_S: Final = 0.1
APPLICATION: Final = "breakwater-probe"

STREAMING_SQL: Final = (
    "select application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint"
    " from pg_stat_replication where state = 'streaming' and flush_lsn is not null"
)
"""A member streams once it said how far it is: for a moment after its connection the server knows no position of it."""


class Probe:
    """Role and route of every shard of a plan; events go to the log as they are seen."""

    def __init__(self, plan: LoadPlan, log: EventLog) -> None:
        self._plan = plan
        self._log = log
        self._writable = {shard.shard: asyncio.Event() for shard in plan.shards}
        self._streaming: dict[int, set[tuple[str, str]]] = {shard.shard: set() for shard in plan.shards}
        self.over = asyncio.Event()

    async def run(self) -> None:
        """Probe until the plan is over or `over` is set."""
        tasks = [asyncio.create_task(self._route(shard)) for shard in self._plan.shards]
        tasks += [asyncio.create_task(self._role(shard, host)) for shard in self._plan.shards for host in shard.hosts]
        while not self._plan.over() and not self.over.is_set():
            failed = [task for task in tasks if task.done()]
            if failed:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), STOP_POLL_S)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _role(self, shard: ShardEndpoints, host: HostPort) -> None:
        conninfo = shard.member_conninfo(host.name, application_name=APPLICATION)
        while True:
            try:
                link = await open_link(conninfo, shard)
            except (psycopg.Error, OSError):
                await asyncio.sleep(REDIAL_S)
                continue
            try:
                await self._watch_role(shard.shard, host.name, link)
            except (psycopg.Error, OSError):
                await asyncio.sleep(REDIAL_S)
            finally:
                await link.connection.close()

    async def _watch_role(self, shard: int, member: str, link: Link) -> None:
        """Poll one member until its connection breaks."""
        known = 0
        while True:
            started = time.monotonic()
            timeline = await _timeline(link)
            if timeline and timeline != known:
                self._log.append(Event.now("prober", "writable", member, shard=shard, timeline=timeline))
                self._writable[shard].set()
            known = timeline
            if timeline:
                await self._note_streaming(shard, member, timeline, link)
            pause_s = PRIMARY_POLL_S if timeline else POLL_S
            await asyncio.sleep(max(0.0, pause_s - (time.monotonic() - started)))

    async def _note_streaming(self, shard: int, primary: str, timeline: int, link: Link) -> None:
        """Name the members that stream from this primary and did not at the last look."""
        with _deadline(link):
            rows = await (await link.connection.execute(STREAMING_SQL)).fetchall()
        lags = {(primary, str(name)): lag for name, lag in rows}
        for pair in sorted(lags.keys() - self._streaming[shard]):
            data = {"shard": shard, "timeline": timeline, "lag_bytes": lags[pair]}
            self._log.append(Event.now("prober", "streaming", pair[1], **data))
        self._streaming[shard] = set(lags)

    async def _route(self, shard: ShardEndpoints) -> None:
        conninfo = shard.conninfo("read-write", application_name=APPLICATION)
        writable = self._writable[shard.shard]
        while True:
            writable.clear()
            started = time.monotonic_ns()
            try:
                link = await open_link(conninfo, shard)
            except (psycopg.Error, OSError):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(writable.wait(), ROUTE_REDIAL_S)
                continue
            try:
                found = {"timeline": link.timeline, "connect_ns": time.monotonic_ns() - started}
                self._log.append(Event.now("router", "routed", link.member, shard=shard.shard, **found))
                await _until_demoted(link)
            except (psycopg.Error, OSError):
                continue
            finally:
                await link.connection.close()


async def _timeline(link: Link) -> int:
    """The timeline that a primary writes, 0 for a standby; the connection breaks when no answer comes in time."""
    with _deadline(link):
        row = await (await link.connection.execute(TIMELINE_SQL)).fetchone()
    return int(str(row[0])) if row else 0


async def _until_demoted(link: Link) -> None:
    """Ask now and then, until the server is no primary any more or the connection breaks."""
    while True:
        if not await _timeline(link):
            return
        await asyncio.sleep(ROUTE_CHECK_S)


@contextlib.contextmanager
def _deadline(link: Link) -> Iterator[None]:
    timer = asyncio.get_running_loop().call_later(ANSWER_S, link.cut)
    try:
        yield
    finally:
        timer.cancel()


async def probe(plan: LoadPlan) -> None:
    """Run the probes of a plan; SIGTERM and SIGINT end them in order."""
    log = EventLog(plan.event_log)
    found = Probe(plan, log)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, found.over.set)
    await found.run()
    log.close()


def main(arguments: list[str]) -> int:
    try:
        (path,) = arguments
        plan = LoadPlan.load(Path(path))
    except (ValueError, LoadError) as error:
        sys.stderr.write(f"usage: python -m experiments.probes.postgres PLAN ({error})\n")
        return EXIT_USAGE
    uvloop.run(probe(plan))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
