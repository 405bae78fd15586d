"""The whole stack behind its TLS edge: steps of load with what each process spends, the ceiling, features, memory."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks import entities, load, vectors
from benchmarks.measured import US_PER_S, Measured
from benchmarks.platform import Platform
from benchmarks.processes import cpu_seconds, memory_mb
from infra.local.environment import LocalEnvironment
from infra.local.processes import with_descendants

RATES: Final = (250, 500, 1_000, 2_000, 3_000, 4_000, 5_000)
CLIENTS: Final = 20
"""Connections of h2load. At a rate all of them send at the same moments: more of them are larger bursts."""
CONNECTIONS: Final = 32
ENTITY_RATE: Final = 200
WRITE_RATE: Final = 50
MANY: Final = (10_000, 100_000)
MORE: Final = 1_000_000
NEW_KEYS_A_SECOND: Final = 12_000

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """`rate` 0: as fast as it goes. `cost`: CPU microseconds per answered request, by who spent them.

    `replica_rss_mb`: resident memory of the largest replica afterwards.
    """

    name: str
    rate: int
    entities: int
    measured: Measured
    cost: Mapping[str, float]
    replica_rss_mb: float


def steps(platform: Platform, *, seconds: float, million: bool, tell: Tell) -> Iterator[Step]:
    """Every step, in the order of its load."""
    card = platform.model().card
    edge = platform.plan.edge_url
    token = platform.plan.token_file
    scratch = platform.scratch
    spent = _Meter(platform)

    def step(name: str, rate: int, count: int, run: Callable[[], Measured]) -> Step:
        before = spent.now()
        measured = run()
        cost = {who: (after - before[who]) * US_PER_S / measured.requests for who, after in spent.now().items()}
        rest = f"p95 {measured.p95_ms:.1f} ms, {measured.errors} errors"
        tell(f"{name} at {rate or 'most'}: {measured.rate:,.0f}/s, {rest}")
        return Step(name, rate, count, measured, cost, _replica_rss_mb(platform))

    hit = load.Target(
        edge, "/v1/predict", vectors.write(scratch / "hit.jsonl", card, vectors.named, count=1, seed=9), token
    )
    for rate in (*RATES, 0):
        run = partial(load.h2load, hit, seconds=seconds, clients=CLIENTS, rate=rate)
        yield step("cache hit", rate, 0, run)
    for rate in (1_000, 0):
        count = int((rate or NEW_KEYS_A_SECOND) * (seconds + 1))
        fresh = vectors.write(scratch / "new.jsonl", card, vectors.named, count=count, seed=1_000_003 + rate)
        yield step("new key", rate, 0, partial(_wrk, load.Target(edge, "/v1/predict", fresh, token), seconds, rate))
    stored = 0
    for count in (*MANY, *((MORE,) if million else ())):
        tell(f"storing {count:,} entities")
        entities.add(platform, card, stored, count)
        stored = count
        read = load.Target(edge, "/v1/predict", entities.reads(scratch / "reads.jsonl", count), token)
        for rate in (ENTITY_RATE, 0):
            yield step("feature read", rate, count, partial(_wrk, read, seconds, rate))
        write = load.Target(edge, "/v1/features", entities.writes(scratch / "writes.jsonl", card, count), token)
        yield step("feature write", WRITE_RATE, count, partial(_wrk, write, seconds, WRITE_RATE))


def _replica_rss_mb(platform: Platform) -> float:
    return max(memory_mb(pid) for name, pid in _pids(platform).items() if name.startswith("api-"))


def _wrk(target: load.Target, seconds: float, rate: int) -> Measured:
    return load.wrk(target, seconds=seconds, connections=CONNECTIONS, rate=rate)


class _Meter:
    """CPU seconds so far, by part: replicas, edge, cache, the client's processes that have ended, and the rest.

    A member's children are in it: the edge's worker and Postgres' backends are where their work is done.
    """

    def __init__(self, platform: Platform) -> None:
        self._pids = _pids(platform)

    def now(self) -> dict[str, float]:
        spent = {"replicas": 0.0, "edge": 0.0, "redis": 0.0, "others": 0.0}
        for name, pid in self._pids.items():
            part = {"api": "replicas", "edge": "edge", "redis": "redis"}.get(name.split("-")[0], "others")
            for process in with_descendants((pid,)):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended: its parent has its time
                    spent[part] += cpu_seconds(process.pid)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {**spent, "client": children.ru_utime + children.ru_stime}


def _pids(platform: Platform) -> dict[str, int]:
    """Of every member that runs."""
    members = LocalEnvironment(platform.plan).endpoints().members
    return {member.name: member.pid for member in members if member.pid is not None}
