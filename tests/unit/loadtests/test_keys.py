"""Keys: unique per process and shard, on the shard they are for, and the whole row follows from them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.keys import VALUE_SPAN, entity_of, key_of, keys_of, value_of, vector_of
from services.contracts.flights import FEATURES, FlightFeatures
from services.contracts.slots import SLOTS, SlotMap

tags = st.integers(min_value=0, max_value=2**64 - 1)
keys = st.integers(min_value=0, max_value=2**64 - 1)


@given(tags, keys)
def test_an_entity_names_its_run_and_key(tag: int, key: int) -> None:
    entity = entity_of(tag, key)
    assert entity.int >> 64 == tag
    assert key_of(entity) == key


@given(tags, st.integers(1, 4), st.integers(0, 2**16 - 1))
def test_keys_belong_to_their_shard_and_to_nobody_else(tag: int, shards: int, process: int) -> None:
    slot_map = SlotMap.even(shards)
    found: set[int] = set()
    for shard in range(shards):
        ours = list(islice(keys_of(tag, process, shard, slot_map), 20))
        assert all(slot_map.shard_of(entity_of(tag, key)) == shard for key in ours)
        assert all(key >> 48 == process for key in ours)
        assert not found & set(ours)
        found |= set(ours)
    assert len(found) == shards * 20


def test_a_shard_without_slots_is_refused_instead_of_searched_for_ever() -> None:
    with pytest.raises(ValueError, match="gives shard 1 no slot"):
        next(keys_of(1, 1, 1, SlotMap(generation=3, owners=[0] * SLOTS)))


@given(tags, keys)
def test_a_value_makes_a_valid_vector(tag: int, key: int) -> None:
    value = value_of(tag, key)
    assert 0 < value <= VALUE_SPAN
    vector = FlightFeatures.model_validate(vector_of(value, datetime(2026, 11, 1, tzinfo=UTC)))
    assert vector.distance == value


def test_values_tell_rows_apart() -> None:
    assert len({value_of(7, key) for key in range(1000)}) == 1000


def test_vectors_use_the_contracts_names() -> None:
    assert vector_of(1, datetime(2026, 11, 1, tzinfo=UTC)).keys() <= set(FEATURES)
