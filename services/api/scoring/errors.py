"""What can go wrong with scoring; every message says what happened, where, and what to do."""

from __future__ import annotations


class ScoringError(Exception):
    """Base of everything this package raises."""


class RuntimeUnavailable(ScoringError):
    """The JVM or the genmodel runtime could not be started."""


class ModelRefused(ScoringError):
    """The artifact cannot be loaded, or is not the model that its card describes or the contract demands."""
