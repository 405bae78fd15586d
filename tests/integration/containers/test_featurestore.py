"""The feature store on PostgreSQL in containers: the tests of tests/integration/featurestore that need no killing."""

from __future__ import annotations

from tests.integration.featurestore.test_migrate import (
    test_a_dry_run_that_fails_on_one_shard_leaves_all_unchanged,
    test_features_are_indexed_for_containment,
    test_the_plan_changes_nothing_and_apply_reaches_head,
)
from tests.integration.featurestore.test_store import (
    pytestmark,
    store,
    test_a_repeated_write_leaves_one_row_with_the_last_value,
    test_a_slot_that_was_given_up_is_not_written,
    test_a_write_is_acknowledged_and_read_back,
    test_many_keys_are_read_with_one_query_a_shard,
    test_the_budget_bounds_what_one_server_has_to_take,
)

__all__ = [
    "pytestmark",
    "store",
    "test_a_dry_run_that_fails_on_one_shard_leaves_all_unchanged",
    "test_a_repeated_write_leaves_one_row_with_the_last_value",
    "test_a_slot_that_was_given_up_is_not_written",
    "test_a_write_is_acknowledged_and_read_back",
    "test_features_are_indexed_for_containment",
    "test_many_keys_are_read_with_one_query_a_shard",
    "test_the_budget_bounds_what_one_server_has_to_take",
    "test_the_plan_changes_nothing_and_apply_reaches_head",
]
