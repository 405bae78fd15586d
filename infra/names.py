"""Names that both runtimes and every client of an environment share."""

from __future__ import annotations

from typing import Final

FEATURES_DATABASE: Final = "features"
APP_ROLE: Final = "breakwater_app"
MAGE_DATABASE: Final = "mage"
MAGE_ROLE: Final = "breakwater_mage"
MAGE_SHARD: Final = 0
"""Mage keeps its own records in a database of their own, on the first shard's servers."""
REGISTRY_SHARD: Final = 0
"""Whose servers have the model registry's database."""
