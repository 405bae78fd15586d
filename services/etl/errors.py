"""What extracting, loading and cutting data can fail with."""

from __future__ import annotations


class EtlError(Exception):
    """Root of the package's errors."""


class SourceMissing(EtlError):
    """The published data is not installed or not complete."""


class NoTrainingData(EtlError):
    """A training cut would have an empty side, or sides that overlap in time."""
