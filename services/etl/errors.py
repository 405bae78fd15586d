"""What extracting, loading and training can fail with; every message says what happened, where, and what to do."""

from __future__ import annotations


class EtlError(Exception):
    """Root of the package's errors."""


class SourceMissing(EtlError):
    """The published data is not installed or not complete."""


class NoTrainingData(EtlError):
    """There are too few months, or one between two others is missing: nothing can be trained and tested on them."""


class LeakingSplit(EtlError):
    """A split would learn from rows that are not older than all that it is tested on."""


class MageMissing(EtlError):
    """Mage's own environment is not installed."""


class OrderRefused(EtlError):
    """Mage did not take the order, or does not run."""


class RunFailed(EtlError):
    """A walk-forward run ended without a result; says at which step and why."""
