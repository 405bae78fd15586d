"""Who owns which slot: the map in etcd, each shard's own rows that a write checks, and a reader that stays current."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap, slots_key
from services.coordination.etcd import Compare, EtcdClient, EtcdError, Put
from services.featurestore.errors import SlotMapError
from services.featurestore.sessions import transaction

APPLICATION: Final = "breakwater-slots"
RETRY_S: Final = 1.0
"""Pause before a watch that etcd ended (its history compacted away) is begun again from a fresh read."""

logger = logging.getLogger(__name__)


def publish_slot_map(etcd: EtcdClient, environment: str, shards: Sequence[ShardEndpoints]) -> SlotMap:
    """Publish the first, even map unless there is one, and write each shard's `owned_slots`; returns the map in force.

    Safe to repeat. SlotMapError when the existing map names a shard that is not among `shards` (shards are numbered
    from 0), or when a shard has rows of a newer generation than the map.
    """
    numbers = sorted(shard.shard for shard in shards)
    if numbers != list(range(len(shards))):
        raise SlotMapError(f"shards must be numbered 0, 1, 2, ... to share the slots, got {numbers}")
    key = slots_key(environment)
    first = SlotMap.even(len(shards))
    published = etcd.transact([Compare(key, "create_revision", 0)], [Put(key, first.to_json())])
    slot_map = first if published.succeeded else read_slot_map(etcd, environment)
    if strangers := set(slot_map.owners) - set(numbers):
        raise SlotMapError(
            f"the slot map at {key} (generation {slot_map.generation}) gives slots to shards {sorted(strangers)}, "
            f"this environment has {numbers}: add those shards or move their slots first"
        )
    apply_slot_map(shards, slot_map)
    return slot_map


def read_slot_map(etcd: EtcdClient, environment: str) -> SlotMap:
    """The map in force; SlotMapError when there is none or it cannot be read."""
    key = slots_key(environment)
    found = etcd.get(key)
    if found is None:
        raise SlotMapError(f"etcd has no slot map at {key}: bring the environment up first, that publishes it")
    return _parse(key, found.value)


def apply_slot_map(shards: Sequence[ShardEndpoints], slot_map: SlotMap) -> None:
    """Make each shard's `owned_slots` say what the map says.

    All shards let go before any takes, so no slot has two owners at any moment; in between its writes are refused.
    """
    for shard in shards:
        with transaction(shard, application_name=APPLICATION) as connection:
            newest = connection.execute("select max(generation) from owned_slots").fetchone()
            if newest is not None and newest[0] is not None and newest[0] > slot_map.generation:
                raise SlotMapError(
                    f"shard {shard.shard} owns slots of generation {newest[0]}, the map is at {slot_map.generation}: "
                    "the map in etcd is older than the data, restore it before anything is written"
                )
            connection.execute("delete from owned_slots where slot <> all(%s)", [_slots_of(slot_map, shard.shard)])
    for shard in shards:
        with transaction(shard, application_name=APPLICATION) as connection:
            connection.execute(
                "insert into owned_slots (slot, generation) select unnest(%s::int[]), %s "
                "on conflict (slot) do update set generation = excluded.generation "
                "where owned_slots.generation < excluded.generation",
                [_slots_of(slot_map, shard.shard), slot_map.generation],
            )


class SlotMapReader:
    """Keeps the map in force in memory; a thread of its own watches etcd. The generation never goes back.

    While etcd is away the last map stays in force: a shard refuses writes to slots that it gave up meanwhile.
    """

    def __init__(self, etcd: EtcdClient, environment: str) -> None:
        self._etcd = etcd
        self._key = slots_key(environment)
        self._stop = threading.Event()
        self._map: SlotMap | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the map, then follow it. SlotMapError or EtcdUnavailable when it cannot be read now."""
        revision = self._read()
        self.current()
        self._thread = threading.Thread(target=self._follow, args=(revision,), name="slot-map", daemon=True)
        self._thread.start()

    def current(self) -> SlotMap:
        """The newest map seen; SlotMapError when none was."""
        if self._map is None:
            raise SlotMapError(f"no slot map was read from {self._key}: bring the environment up, that publishes it")
        return self._map

    def stop(self) -> None:
        """End the thread; returns within the client's timeout of one request."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> int:
        found, revision = self._etcd.get_at(self._key)
        if found is not None:
            self._accept(found.value)
        return revision

    def _follow(self, revision: int) -> None:
        while not self._stop.is_set():
            try:
                for event in self._etcd.watch(self._key, start_revision=revision + 1, stop=self._stop):
                    if event.kind == "put":
                        self._accept(event.kv.value)
                    revision = event.revision
            except EtcdError as error:
                logger.warning("the watch of %s ended, reading it afresh: %s", self._key, error)
                self._stop.wait(RETRY_S)
                revision = self._read_again(revision)

    def _read_again(self, revision: int) -> int:
        try:
            return self._read()
        except EtcdError as error:
            logger.warning(
                "%s cannot be read now, generation %d stays: %s", self._key, self.current().generation, error
            )
            return revision

    def _accept(self, value: str) -> None:
        try:
            offered = _parse(self._key, value)
        except SlotMapError:
            if self._map is None:
                raise
            logger.exception("a malformed slot map is ignored, generation %d stays", self._map.generation)
            return
        if self._map is None or offered.generation > self._map.generation:
            self._map = offered


def _slots_of(slot_map: SlotMap, shard: int) -> list[int]:
    return [slot for slot, owner in enumerate(slot_map.owners) if owner == shard]


def _parse(key: str, value: str) -> SlotMap:
    try:
        return SlotMap.model_validate_json(value)
    except ValidationError as error:
        raise SlotMapError(f"the slot map at {key} is malformed: {error}; publish a correct one") from error
