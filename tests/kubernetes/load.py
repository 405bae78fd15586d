"""Load through the edge at a fixed rate: writes to every shard and predictions, each with its own deadline."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import math
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from services.contracts.slots import SlotMap
from tests.kubernetes.platform import Platform, eventually

PERIOD_S: Final = 0.05
"""Between two operations of one stream: a recovery is seen with this resolution."""
DEADLINE_S: Final = 2.0
"""An answer after that is a bad one."""
PATIENCE_S: Final = 10.0
"""Of clients beside a change that starts many pods at once, here on the processors that serve as well: what comes late
tells of the machine, and is recorded; what is refused or never answered tells of the change."""
NAMED: Final = {"sni_hostname": "localhost"}
"""The edge is reached by address; its certificate bears this name."""
FEATURES: Final = {
    "month": 12,
    "day_of_week": 5,
    "departure_minute": 1065,
    "arrival_minute": 1240,
    "distance": 1089,
    "carrier": "AA",
    "origin": "LGA",
    "dest": "MIA",
}
STORED: Final = """
import sys, psycopg
from services.api.settings import load_settings
wanted = sys.stdin.read().split()
for shard in load_settings().shards:
    with psycopg.connect(shard.conninfo("read-write", application_name="test")) as connection:
        rows = connection.execute("select entity_id::text from features where entity_id = any(%s::uuid[])", (wanted,))
        print(" ".join(row[0] for row in rows))
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """Monotonic seconds. `shard` is None for a prediction. `said`: the answer's status, or what went wrong."""

    shard: int | None
    key: str
    scheduled: float
    ended: float
    said: str

    @property
    def answered(self) -> bool:
        return self.said == "200"

    @property
    def good(self) -> bool:
        return self.answered and self.ended - self.scheduled <= DEADLINE_S


@dataclass
class Load:
    """What clients see. Answers count from the time at which they should have been asked for, so nothing is hidden."""

    patience_s: float = DEADLINE_S
    """How long a client waits for an answer."""
    operations: list[Operation] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def acknowledged(self, shard: int, after: float = 0.0) -> list[Operation]:
        """By the time of their acknowledgement; only those that were asked for later than `after`."""
        found = [o for o in list(self.operations) if o.shard == shard and o.said == "200" and o.scheduled > after]
        return sorted(found, key=lambda operation: operation.ended)

    def recovered_after(self, shard: int, fault: float) -> float:
        """Seconds from the fault to the next acknowledgement of a write that was asked for after it."""
        eventually(f"a write to shard {shard} is acknowledged", 60, lambda: self.acknowledged(shard, fault))
        return self.acknowledged(shard, fault)[0].ended - fault

    def longest_pause(self, shard: int, since: float) -> float:
        """Longest time without an acknowledgement of a write that was asked for since then, seconds."""
        times = [since, *(operation.ended for operation in self.acknowledged(shard, since))]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=math.inf)

    def ended(self, *, after: float, but_shard: int | None = None) -> list[Operation]:
        """Operations that ended since `after`, predictions included, without those of one shard."""
        found = (o for o in list(self.operations) if o.ended > after)
        return [o for o in found if but_shard is None or o.shard != but_shard]

    def bad(self, *, after: float, but_shard: int | None = None) -> list[Operation]:
        return [o for o in self.ended(after=after, but_shard=but_shard) if not o.good]

    def lost(self, platform: Platform) -> set[str]:
        """Acknowledged writes that no primary has."""
        keys = {o.key for o in list(self.operations) if o.shard is not None and o.said == "200"}
        assert len(keys) > 20, "too few writes were acknowledged to say that none is lost"
        return keys - set(platform.python("api", STORED, stdin="\n".join(keys)).split())


def told(operations: list[Operation], since: float) -> str:
    """How many of which kind, what was said, and when, for a result's line: `12 writes 503, 3.1 to 4.0 s`."""
    kinds: dict[tuple[str, str], list[float]] = {}
    for each in operations:
        kind = "predictions" if each.shard is None else f"writes to shard {each.shard}"
        said = f"{each.said} too late" if each.said == "200" else each.said
        kinds.setdefault((kind, said), []).append(each.scheduled - since)
    lines = [f"{len(at)} {kind} {said}, {min(at):.1f} to {max(at):.1f} s" for (kind, said), at in sorted(kinds.items())]
    return "; ".join(lines) or "none"


@contextmanager
def running(platform: Platform, *, predictions: bool = True, patience_s: float = DEADLINE_S) -> Iterator[Load]:
    """Load while the block lasts; it has been seen to be good for a second before the block begins."""
    load = Load(patience_s)
    with platform.edge() as url:
        thread = threading.Thread(target=lambda: asyncio.run(_generate(platform, url, load, predictions)))
        thread.start()
        try:
            eventually("operations are good", 60, lambda: _good_of_late(load))
            yield load
        finally:
            load.stopped.set()
            thread.join()


def _good_of_late(load: Load) -> bool:
    now = time.monotonic()
    late = [o for o in list(load.operations) if now - 1.5 < o.scheduled < now - 0.5]
    return len(late) > 10 and all(o.good for o in late)


async def _generate(platform: Platform, url: str, load: Load, predictions: bool) -> None:
    shards = list(platform.plan.shards)
    streams: list[int | None] = [*shards, None] if predictions else [*shards]
    headers = {"Authorization": f"Bearer {platform.token()}", "Host": "localhost"}
    timeout = httpx.Timeout(load.patience_s)
    limits = httpx.Limits(max_connections=400, max_keepalive_connections=50)
    async with (
        httpx.AsyncClient(
            base_url=url, verify=platform.trust(), headers=headers, timeout=timeout, limits=limits
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        for number, shard in enumerate(streams):
            group.create_task(_stream(client, load, shard, len(shards), number * PERIOD_S / len(streams)))


async def _stream(client: httpx.AsyncClient, load: Load, shard: int | None, shards: int, offset: float) -> None:
    began = time.monotonic() + offset
    owners = SlotMap.even(shards)
    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            scheduled = began + number * PERIOD_S
            await asyncio.sleep(max(0.0, scheduled - time.monotonic()))
            if load.stopped.is_set():
                return
            key = next(made for made in iter(uuid.uuid4, None) if shard is None or owners.shard_of(made) == shard)
            group.create_task(_operation(client, load, shard, str(key), scheduled))


async def _operation(client: httpx.AsyncClient, load: Load, shard: int | None, key: str, scheduled: float) -> None:
    path, body = _request(shard, key)
    try:
        answer = await client.post(path, json=body, extensions=NAMED)
        said = str(answer.status_code)
    except httpx.HTTPError as error:
        said = type(error).__name__
    load.operations.append(Operation(shard, key, scheduled, time.monotonic(), said))


def _request(shard: int | None, key: str) -> tuple[str, dict[str, Any]]:
    if shard is None:
        # another distance each time: half of the answers are computed, half come from the cache
        return "/v1/predict", {"features": FEATURES | {"distance": 500 + int(key[:4], 16) % 200}}
    when = datetime.datetime.now(datetime.UTC).isoformat()
    return "/v1/features", {"entity_id": key, "event_time": when, "segment": "test", "features": FEATURES}
