"""The cache on a Redis in a container that is killed, frozen, filled up and brought back."""

from __future__ import annotations

from tests.integration.api.test_cache import (
    another,
    cache,
    pytestmark,
    test_a_frozen_redis_is_waited_for_once,
    test_a_full_redis_still_answers,
    test_a_killed_redis_costs_nothing_and_is_found_again,
    test_one_of_all_who_miss_computes,
    test_past_the_soft_expiry_one_refreshes_and_all_have_the_old_value,
    test_what_was_put_is_got_until_it_expires,
)

__all__ = [
    "another",
    "cache",
    "pytestmark",
    "test_a_frozen_redis_is_waited_for_once",
    "test_a_full_redis_still_answers",
    "test_a_killed_redis_costs_nothing_and_is_found_again",
    "test_one_of_all_who_miss_computes",
    "test_past_the_soft_expiry_one_refreshes_and_all_have_the_old_value",
    "test_what_was_put_is_got_until_it_expires",
]
