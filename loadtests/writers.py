"""The direct load process (`python -m loadtests.writers`): open-model writers and readers per shard, each op recorded.

It stands beside the API's path so that a shard's own recovery can be told from the API's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Final
from uuid import UUID

import uvloop

from loadtests.arrivals import NS_PER_S, ON_TIME_NS, poisson, uniform
from loadtests.connections import ShardLinks
from loadtests.keys import entity_of, keys_of, value_of, vector_of
from loadtests.launch import Process
from loadtests.outcome import Outcome
from loadtests.plan import EXIT_USAGE, LoadError, LoadPlan
from loadtests.record import Durability, Error, Kind, Recorder, recording
from loadtests.transactions import Attempt, WriteRow, attempt, read, vector_json, write
from services.contracts.flights import FlightFeatures
from services.contracts.shards import ShardEndpoints

NS_PER_MS: Final = 1_000_000
FLUSH_S: Final = 1.0
"""What a killed process can lose of the history."""
STOP_POLL_S: Final = 0.1
WRITE_LINKS: Final = 4
"""Connections of a shard's writer: at 50 writes/s and 5 ms each, one does; the others ride out a slow commit."""
READ_LINKS: Final = 2

Perform = Callable[[int, Attempt], Coroutine[None, None, None]]


class Streams:
    """All streams of the process: they share the recorder and the end."""

    def __init__(self, plan: LoadPlan, recorder: Recorder) -> None:
        self._plan = plan
        self._recorder = recorder
        self._op_ids = itertools.count(Process.WRITERS << 48)
        self._over = asyncio.Event()

    def stop(self) -> None:
        self._over.set()

    async def run(self) -> None:
        """Every stream until the plan is over and each started operation has its outcome."""
        plan = self._plan
        keepers: list[asyncio.Task[None]] = [asyncio.create_task(self._keep())]
        streams: list[asyncio.Task[None]] = []
        samples = self._samples() if plan.rates.read > 0 else {}
        for shard in plan.shards:
            if plan.rates.write > 0:
                links = ShardLinks(shard, "read-write", size=WRITE_LINKS, application_name="breakwater-load-write")
                keepers.append(asyncio.create_task(links.keep()))
                streams.append(asyncio.create_task(self._writes(shard, links)))
            if plan.rates.read > 0:
                links = ShardLinks(shard, "prefer-standby", size=READ_LINKS, application_name="breakwater-load-read")
                keepers.append(asyncio.create_task(links.keep()))
                streams.append(asyncio.create_task(self._reads(shard, links, samples[shard.shard])))
        gc.collect()
        gc.freeze()  # what is here stays: a full collection would stall arrivals
        await asyncio.gather(*streams)
        for keeper in keepers:
            keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*keepers)

    async def _keep(self) -> None:
        """Flush each second and notice the end."""
        flushed = time.monotonic()
        while True:
            if self._plan.over():
                self.stop()
            if time.monotonic() - flushed >= FLUSH_S:
                self._recorder.flush()
                flushed = time.monotonic()
            await asyncio.sleep(STOP_POLL_S)

    def _samples(self) -> dict[int, list[tuple[UUID, str, FlightFeatures]]]:
        """Loaded flights by shard; LoadError when a shard has none to read."""
        found: dict[int, list[tuple[UUID, str, FlightFeatures]]] = {shard.shard: [] for shard in self._plan.shards}
        for sample in self._plan.samples():
            entity = UUID(sample.entity_id)
            expected = FlightFeatures.model_validate(sample.features)
            found[self._plan.slot_map.shard_of(entity)].append((entity, sample.event_time, expected))
        empty = sorted(shard for shard, samples in found.items() if not samples)
        if empty:
            raise LoadError(f"{self._plan.samples_file} has no flight of shard {empty}: sample every shard for readers")
        return found

    async def _writes(self, shard: ShardEndpoints, links: ShardLinks) -> None:
        plan = self._plan
        keys = keys_of(plan.run_tag, Process.WRITERS, shard.shard, plan.slot_map)
        event_time = plan.write_event_time.isoformat()

        async def perform(due: int, state: Attempt) -> None:
            key = next(keys)
            value = value_of(plan.run_tag, key)
            vector = vector_json(vector_of(value, plan.write_event_time))
            row = WriteRow(entity_of(plan.run_tag, key), event_time, vector)
            if state.start_ns - due > ON_TIME_NS:
                outcome = Outcome(Error.NOT_SENT, Durability.FAIL)
            else:
                outcome = await attempt(links, state, lambda link, state: write(link, state, row))
            self._record(Kind.WRITE, shard.shard, due, state, outcome, key=key, value=value)

        arrivals = uniform(plan.rates.write, f"{plan.seed}/write/{shard.shard}")
        await self._stream(arrivals, plan.deadlines_ms.write, perform)

    async def _reads(
        self, shard: ShardEndpoints, links: ShardLinks, samples: list[tuple[UUID, str, FlightFeatures]]
    ) -> None:
        plan = self._plan
        choice = random.Random(f"{plan.seed}/read/{shard.shard}/choice")  # noqa: S311 - repeatable, not a secret

        async def perform(due: int, state: Attempt) -> None:
            entity, event_time, expected = choice.choice(samples)
            if state.start_ns - due > ON_TIME_NS:
                outcome = Outcome(Error.NOT_SENT)
            else:
                outcome = await attempt(
                    links, state, lambda link, state: read(link, state, entity, event_time, expected)
                )
            self._record(Kind.READ, shard.shard, due, state, outcome)

        arrivals = poisson(plan.rates.read, f"{plan.seed}/read/{shard.shard}")
        await self._stream(arrivals, plan.deadlines_ms.read, perform)

    async def _stream(self, arrivals: Iterator[int], deadline_ms: int, perform: Perform) -> None:
        """Start a task for each arrival at its due time; one taken up too late is not sent."""
        tasks: set[asyncio.Task[None]] = set()
        for offset in self._plan.course.shaped(arrivals):
            due = self._plan.start_ns + offset
            if due >= self._plan.end_ns or await self._over_before(due):
                break
            now, deadline = time.monotonic_ns(), due + deadline_ms * NS_PER_MS
            task = asyncio.create_task(perform(due, Attempt(now, deadline)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _over_before(self, due: int) -> bool:
        """Sleep until `due`; True when the load ends first.

        What is overdue does not sleep: one arrival per turn of a busy loop would never catch up. It is accounted for
        even when the load has ended meanwhile.
        """
        wait_s = (due - time.monotonic_ns()) / NS_PER_S
        if wait_s <= 0:
            return False
        try:
            async with asyncio.timeout(wait_s):
                await self._over.wait()
        except TimeoutError:
            return False
        return time.monotonic_ns() < due

    def _record(
        self, kind: Kind, shard: int, due: int, state: Attempt, outcome: Outcome, *, key: int = 0, value: int = 0
    ) -> None:
        end = time.monotonic_ns()
        good = outcome.error is Error.NONE
        in_time = end <= state.deadline_ns
        self._recorder.add(
            op_id=next(self._op_ids),
            kind=kind,
            shard=shard,
            key=key,
            value=value,
            sched_ns=due,
            start_ns=state.start_ns,
            end_ns=end,
            durability=Durability.NONE if kind is Kind.READ else outcome.durability,
            available=good and in_time,
            error=Error.LATE if good and not in_time else outcome.error,
            server=self._plan.server(outcome.member),
            timeline=outcome.timeline,
        )


async def drive(plan: LoadPlan) -> None:
    """Run the plan's direct streams; SIGTERM and SIGINT end them early but in order."""
    plan.out_dir.mkdir(parents=True, exist_ok=True)
    with recording(Process.WRITERS.part(plan.out_dir), Process.WRITERS) as recorder:
        streams = Streams(plan, recorder)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, streams.stop)
        await streams.run()


def main() -> int:
    try:
        plan = LoadPlan.from_environment()
        uvloop.run(drive(plan))
    except LoadError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
