"""The slot map in a real etcd, each shard's own rows, and a reader that keeps up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SLOTS, SlotMap, slots_key
from services.coordination.etcd import EtcdClient
from services.featurestore.errors import SlotMapError
from services.featurestore.migrate import apply
from services.featurestore.sessions import session
from services.featurestore.slots import SlotMapReader, apply_slot_map, publish_slot_map, read_slot_map
from tests.integration.coordination.etcd_cluster import EtcdCluster

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]
SOON_S = 5.0


@pytest.fixture
def migrated(empty_shards: Shards) -> Shards:
    apply(empty_shards)
    return empty_shards


@pytest.fixture
def environment() -> str:
    """A name of its own for every test: they share an etcd."""
    return f"test-{uuid4()}"


def owned(shard: ShardEndpoints) -> dict[int, int]:
    with session(shard, application_name="test") as connection:
        return dict(connection.execute("select slot, generation from owned_slots").fetchall())


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def with_first_slot_moved(slot_map: SlotMap, to: int) -> SlotMap:
    return SlotMap(generation=slot_map.generation + 1, owners=[to, *slot_map.owners[1:]])


def test_the_first_map_is_even_and_every_shard_knows_its_half(
    etcd: EtcdClient, environment: str, migrated: Shards
) -> None:
    slot_map = publish_slot_map(etcd, environment, migrated)
    assert slot_map == SlotMap.even(2) == read_slot_map(etcd, environment)
    assert owned(migrated[0]) == dict.fromkeys(range(SLOTS // 2), 1)
    assert owned(migrated[1]) == dict.fromkeys(range(SLOTS // 2, SLOTS), 1)


def test_publishing_again_keeps_the_map_in_force(etcd: EtcdClient, environment: str, migrated: Shards) -> None:
    moved = with_first_slot_moved(publish_slot_map(etcd, environment, migrated), to=1)
    etcd.put(slots_key(environment), moved.to_json())
    assert publish_slot_map(etcd, environment, migrated) == moved
    assert 0 not in owned(migrated[0])
    assert owned(migrated[1])[0] == 2


def test_a_map_older_than_the_data_is_refused(etcd: EtcdClient, environment: str, migrated: Shards) -> None:
    apply_slot_map(migrated, with_first_slot_moved(SlotMap.even(2), to=1))
    with pytest.raises(SlotMapError, match="generation 2, the map is at 1"):
        publish_slot_map(etcd, environment, migrated)
    assert 0 not in owned(migrated[0])


def test_a_map_that_names_an_unknown_shard_is_refused(etcd: EtcdClient, environment: str, migrated: Shards) -> None:
    etcd.put(slots_key(environment), SlotMap.even(3).to_json())
    with pytest.raises(SlotMapError, match=r"gives slots to shards \[2\]"):
        publish_slot_map(etcd, environment, migrated)
    assert owned(migrated[0]) == {}


def test_shards_are_numbered_without_a_gap(etcd: EtcdClient, environment: str, migrated: Shards) -> None:
    with pytest.raises(SlotMapError, match=r"0, 1, 2, ... to share the slots, got \[1\]"):
        publish_slot_map(etcd, environment, migrated[1:])


def test_without_a_map_the_reader_says_so(etcd: EtcdClient, environment: str) -> None:
    with pytest.raises(SlotMapError, match="no slot map"):
        SlotMapReader(etcd, environment).start()


def test_the_reader_follows_ignores_nonsense_and_never_goes_back(etcd: EtcdClient, environment: str) -> None:
    key = slots_key(environment)
    first = SlotMap.even(2)
    second = with_first_slot_moved(first, to=1)
    third = with_first_slot_moved(second, to=0)
    etcd.put(key, first.to_json())
    reader = SlotMapReader(etcd, environment)
    reader.start()
    try:
        assert reader.current() == first
        etcd.put(key, second.to_json())
        assert eventually(lambda: reader.current() == second)
        etcd.put(key, first.to_json())
        etcd.put(key, "{}")
        etcd.delete(key)
        etcd.put(key, third.to_json())
        seen = {reader.current().generation}
        assert eventually(lambda: seen.add(reader.current().generation) or reader.current() == third)  # type: ignore[func-returns-value]
        assert seen <= {2, 3}
    finally:
        reader.stop()


def test_the_reader_keeps_the_map_while_etcd_is_away(tmp_path: Path, environment: str) -> None:
    with EtcdCluster(tmp_path, 1) as cluster:
        client = EtcdClient(cluster.clients)
        first = SlotMap.even(2)
        client.put(slots_key(environment), first.to_json())
        reader = SlotMapReader(client, environment)
        reader.start()
        try:
            cluster.kill(0)
            assert reader.current() == first
            cluster.start(0)
            cluster.wait_ready()
            second = with_first_slot_moved(first, to=1)
            client.put(slots_key(environment), second.to_json())
            assert eventually(lambda: reader.current() == second)
        finally:
            reader.stop()
            client.close()
