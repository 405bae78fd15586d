"""Starts a server with a defect patched in, for controls: `python -m infra.local.defective DEFECT MODULE`.

Services carry no switch for defects. What is patched is named here, next to what it breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import runpy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.api.model_watch import ModelWatch
    from services.api.proof import ActiveModel
    from services.breaker import Breaker, State
    from services.featurestore import pools, store

EXIT_USAGE: Final = 2
SLOW_S: Final = 0.035
"""Two such computations, one behind the other, stay below the 100 ms for which a replica trusts another's lock."""
SEATS: Final = 4
"""Twenty times what the load needs, while no shard is away."""
EARLY_S: Final = 0.2
HOPE_S: Final = 0.1
"""Less than a failover takes: what was acknowledged before the death does not find the new primary."""
GAP_S: Final = 0.2
"""Twenty of a hundred predictions a second arrive in it."""
FRESH: Final = "pg_is_in_recovery(), 0::float8"
LOCKED: Final = "locked and 1 or 2"
"""Of the cache's script: the turn of whoever asks for what is not there."""
AGED: Final = " or redis.call('PTTL', key) < {below}"
"""Of the same script: what is there and past its soft expiry is refreshed, too."""


def _golden_unchecked() -> None:
    """A candidate is taken without asking whether it predicts what its trainer predicted."""
    from services.api import proof  # noqa: PLC0415 - the defect's own service

    proof.check_golden = lambda model, golden: None


def _cache_of_any_model() -> None:
    """A score is cached by its flight alone, so that the next model gives the answers of the one before."""
    from services.api import proof  # noqa: PLC0415

    def cache_key(model: proof.ActiveModel, row: tuple[float, ...]) -> bytes:
        flight = [_said(feature.domain, value) for feature, value in zip(model.card.features, row, strict=True)]
        return hashlib.blake2b(repr(flight).encode(), digest_size=16).digest()

    setattr(proof.ActiveModel, "cache_key", cache_key)  # noqa: B010 - a method is replaced, which types forbid


def _said(domain: Sequence[str] | None, value: float) -> str | float:
    """What a flight said where a row has this: each model counts levels its own way, so rows of one flight differ."""
    return value if domain is None or math.isnan(value) else domain[int(value)]


def _slow_model() -> None:
    """A computation takes 35 ms instead of one: what a stampede is made of."""
    from services.api.scoring import batcher  # noqa: PLC0415
    from services.api.worker import Worker  # noqa: PLC0415

    class SlowWorker(Worker):
        def start(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
            def slowly() -> Any:
                time.sleep(SLOW_S)
                return work()

            return super().start(slowly)

    setattr(batcher, "Worker", SlowWorker)  # noqa: B010 - a class is replaced, which types forbid


def _everybody_computes() -> None:
    """No single flight and no lock: whoever finds nothing computes it, though others do; the model is slow."""
    from services.api import cache, scores  # noqa: PLC0415

    class NoFlights(dict[bytes, scores.Flight]):
        def get(self, key: bytes, default: Any = None) -> Any:
            return default

        def __setitem__(self, key: bytes, flight: scores.Flight) -> None:
            """Nobody can join what is not remembered."""

    began = scores.Scores.__init__

    def begin(self: scores.Scores, *parts: Any) -> None:
        began(self, *parts)
        setattr(self, "_flights", NoFlights())  # noqa: B010

    if LOCKED not in cache.LOOK_UP:
        raise AssertionError("the cache's script has changed: the defect would change nothing")
    setattr(cache, "LOOK_UP", cache.LOOK_UP.replace(LOCKED, "1"))  # noqa: B010
    setattr(scores.Scores, "__init__", begin)  # noqa: B010
    _slow_model()


def _hard_expiry_only() -> None:
    """A value serves until it is gone, however little is left of its life: nobody refreshes it before."""
    from services.api import cache  # noqa: PLC0415

    aged = AGED.format(below=cache.REFRESH_BELOW_MS)
    if aged not in cache.LOOK_UP:
        raise AssertionError("the cache's script has changed: the defect would change nothing")
    setattr(cache, "LOOK_UP", cache.LOOK_UP.replace(aged, ""))  # noqa: B010


def _breaker_never_opens() -> None:
    """A dependency that has failed is asked on and on."""
    from services.breaker import Breaker, State  # noqa: PLC0415

    enter = Breaker._enter

    def close(self: Breaker, state: State) -> None:
        enter(self, State.CLOSED)

    setattr(Breaker, "_enter", close)  # noqa: B010


def _one_pool() -> None:
    """All shards share what one of their pools may have: who waits for a dead shard keeps others from a living one."""
    from services.featurestore.errors import ShardUnavailable  # noqa: PLC0415
    from services.featurestore.pools import ACQUIRE_TIMEOUT_S, ShardConnection, ShardPool  # noqa: PLC0415

    acquire, release, discard = ShardPool.acquire, ShardPool.release, ShardPool.discard
    seats = asyncio.Semaphore(SEATS)

    async def take(self: ShardPool, timeout_s: float = ACQUIRE_TIMEOUT_S) -> ShardConnection:
        try:
            async with asyncio.timeout(min(timeout_s, ACQUIRE_TIMEOUT_S)):
                await seats.acquire()
        except TimeoutError:
            raise ShardUnavailable(self._shard, "every connection is in use") from None
        try:
            return await acquire(self, timeout_s)
        except BaseException:
            seats.release()
            raise

    async def give_back(self: ShardPool, connection: ShardConnection) -> None:
        try:
            await release(self, connection)
        finally:
            seats.release()

    async def throw_away(self: ShardPool, connection: ShardConnection) -> None:
        try:
            await discard(self, connection)
        finally:
            seats.release()

    setattr(ShardPool, "acquire", take)  # noqa: B010
    setattr(ShardPool, "release", give_back)  # noqa: B010
    setattr(ShardPool, "discard", throw_away)  # noqa: B010


def _acknowledged_early() -> None:
    """A write is acknowledged 200 ms before its transaction begins, whatever becomes of it."""
    from services.featurestore import store  # noqa: PLC0415
    from services.featurestore.errors import FeatureStoreError  # noqa: PLC0415

    write = store._write
    later: set[asyncio.Task[None]] = set()

    async def hope(lane: store._Lane, wanted: store._Write) -> None:
        await asyncio.sleep(EARLY_S)
        with contextlib.suppress(FeatureStoreError):  # nobody waits who could be told
            await write(lane, await lane.writes.acquire(HOPE_S), wanted)

    async def promise(
        lane: store._Lane, connection: pools.ShardConnection, wanted: store._Write
    ) -> store.Acknowledgement:
        task = asyncio.ensure_future(hope(lane, wanted))
        later.add(task)
        task.add_done_callback(later.discard)
        server = lane.writes.server_name(connection)
        said = store.Acknowledgement(lane.shard, server, connection.timeline, wanted.idempotency_key)
        await lane.writes.release(connection)  # kept for so long it would be missed by others
        return said

    setattr(store, "_write", promise)  # noqa: B010


def _swap_with_a_gap() -> None:
    """A reload lets the old model go, and takes the new one 200 ms later."""
    from services.api.model_watch import ModelWatch  # noqa: PLC0415

    take = ModelWatch._swap

    def let_go(self: ModelWatch, model: ActiveModel) -> None:
        if self.current is None:
            take(self, model)
            return
        self.current = None
        asyncio.get_running_loop().call_later(GAP_S, take, self, model)

    setattr(ModelWatch, "_swap", let_go)  # noqa: B010


def _no_warm_up() -> None:
    """A model serves as soon as its golden rows are right."""
    from services.api import proof  # noqa: PLC0415

    proof.warm = lambda model, pause: None


def _never_drained() -> None:
    """A replica that is asked to end stops listening at once, while the edge still sends requests to it."""
    from services.api.server import DrainingServer  # noqa: PLC0415

    def leave(self: DrainingServer, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True

    setattr(DrainingServer, "handle_exit", leave)  # noqa: B010


def _reads_without_bound() -> None:
    """A standby's answer is called as fresh as the primary's, whatever the standby lacks."""
    from services.featurestore import store  # noqa: PLC0415

    if store.STALENESS not in store.READ_ONE:
        raise AssertionError("the store's statement has changed: the defect would change nothing")
    setattr(store, "READ_ONE", store.READ_ONE.replace(store.STALENESS, FRESH))  # noqa: B010


DEFECTS: Final[Mapping[str, Callable[[], None]]] = {
    "golden-unchecked": _golden_unchecked,
    "cache-of-any-model": _cache_of_any_model,
    "slow-model": _slow_model,
    "everybody-computes": _everybody_computes,
    "hard-expiry-only": _hard_expiry_only,
    "breaker-never-opens": _breaker_never_opens,
    "one-pool": _one_pool,
    "acknowledged-early": _acknowledged_early,
    "swap-with-a-gap": _swap_with_a_gap,
    "no-warm-up": _no_warm_up,
    "never-drained": _never_drained,
    "reads-without-bound": _reads_without_bound,
}


def main(arguments: list[str]) -> int:
    match arguments:
        case [defect, module] if defect in DEFECTS:
            DEFECTS[defect]()
            sys.argv = [module]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return 0
        case _:
            sys.stderr.write(f"usage: python -m infra.local.defective DEFECT MODULE, of {', '.join(DEFECTS)}\n")
            return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
