"""The replica's way to the shards: the slot map, the feature store, and whether their schema fits this release."""

from __future__ import annotations

import asyncio
import logging

from services.api.leader_watch import LeaderWatch
from services.api.settings import Settings
from services.coordination.etcd import EtcdClient, EtcdError
from services.featurestore.errors import FeatureStoreError, SchemaSkew, ShardUnavailable, SlotMapError
from services.featurestore.pools import ConnectionBudget
from services.featurestore.slots import SlotMapReader
from services.featurestore.store import FeatureStore

RETRY_S = 0.5
"""Pause before the slot map or an unanswered schema question is tried again."""

RECHECK_S = 5.0
"""How late a replica notices that a shard was migrated to a schema that it must not serve."""

logger = logging.getLogger(__name__)


class Shards:
    """Starts without waiting for anything; `obstacle` says what still keeps the replica from serving shards."""

    def __init__(self, settings: Settings) -> None:
        self._etcd = EtcdClient(settings.etcd)
        self._slots = SlotMapReader(self._etcd, settings.environment)
        self.store = FeatureStore(
            settings.shards,
            self._slots.current,
            budget=ConnectionBudget(min=settings.pool.min, max=settings.pool.max),
            application_name=f"breakwater-{settings.replica}",
        )
        self._leaders = LeaderWatch(
            self._etcd, settings.environment, [shard.shard for shard in settings.shards], self.store.announce
        )
        self.obstacle: str | None = "no slot map"
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self.store.open()
        self._leaders.start()
        self._following = asyncio.get_running_loop().create_task(self._follow(), name="shards")

    async def close(self) -> None:
        """Lets writes that were sent come to their end first."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self.store.close()
        await asyncio.to_thread(self._slots.stop)
        await asyncio.to_thread(self._leaders.stop)
        self._etcd.close()

    async def _follow(self) -> None:
        await self._until_mapped()
        self.obstacle = "schema not checked yet"
        while True:
            pause_s = await self._check_schema()
            await asyncio.sleep(pause_s)

    async def _until_mapped(self) -> None:
        told = None
        while True:
            try:
                await asyncio.to_thread(self._slots.start)
            except (EtcdError, SlotMapError) as error:
                if told != (told := type(error)):
                    logger.warning("no slot map yet, trying on: %s", error)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _check_schema(self) -> float:
        """Set `obstacle`; returns the pause before the next check in seconds."""
        try:
            await self.store.check_schema()
        except SchemaSkew as error:
            self._say(f"schema skew: {error}")
        except ShardUnavailable:
            # A shard that is away keeps its requests from being answered, and nothing else: what was last known
            # about the schema stays, and a replica that starts meanwhile does not wait for it.
            if self.obstacle == "schema not checked yet":
                self._say(None)
            return RETRY_S
        except FeatureStoreError as error:
            self._say(str(error))
        else:
            self._say(None)
        return RECHECK_S

    def _say(self, obstacle: str | None) -> None:
        if obstacle != self.obstacle:
            logger.log(logging.INFO if obstacle is None else logging.WARNING, "shards: %s", obstacle or "ready")
        self.obstacle = obstacle
