"""The model registry on a PostgreSQL in a container, with an etcd of this machine for the pointers."""

from __future__ import annotations

from tests.integration.registry.test_registry import (
    pytestmark,
    test_a_version_goes_from_registered_to_production_and_back,
    test_illegal_moves_change_nothing,
    test_the_schema_itself_refuses,
    test_what_is_stored_beside_a_model,
)

__all__ = [
    "pytestmark",
    "test_a_version_goes_from_registered_to_production_and_back",
    "test_illegal_moves_change_nothing",
    "test_the_schema_itself_refuses",
    "test_what_is_stored_beside_a_model",
]
