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


class UnknownVersion(RegistryError):
    """No such model or version is registered."""


class IllegalTransition(RegistryError):
    """The version's stage does not allow what was asked; nothing changed."""


class StoreUnavailable(RegistryError):
    """The artifact store does not take or give what it should: full, read-only, away, or the URL is wrong."""


class PointerUnreachable(RegistryError):
    """etcd does not say which version serves."""


class PointerMoved(RegistryError):
    """Somebody else moved the pointer at the same moment; the next repair settles it."""


class PointerPending(RegistryError):
    """The registry has decided; etcd does not say so yet, and the next repair makes it."""


class ReloadInProgress(RegistryError):
    """Another version is being brought into production; nothing changed."""


class ReloadInterrupted(RegistryError):
    """Whoever led the reload lost it or was told to end before anything was decided; nothing changed."""
