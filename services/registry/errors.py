"""What can go wrong with stored models; every message says what happened, where, and what to do."""

from __future__ import annotations


class RegistryError(Exception):
    """Base of everything this package raises."""


class NoModel(RegistryError):
    """No pointer has been published yet."""


class ArtifactCorrupt(RegistryError):
    """A pointer, card or artifact is missing, unreadable, or not what its checksum says."""


class VersionTaken(RegistryError):
    """The version exists with other content; versions never change."""
