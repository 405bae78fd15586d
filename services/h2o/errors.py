"""What can go wrong with H2O; every message says what happened, where, and what to do."""

from __future__ import annotations


class H2OError(Exception):
    """Base of everything this package raises."""


class JarMissing(H2OError):
    """The installed h2o package has no server jar, a damaged one, or one without the scoring runtime."""


class PortInUse(H2OError):
    """One of the two ports that a server needs is taken."""


class TrainingRefused(H2OError):
    """The training data break a rule (columns, time order), or the job did not finish as asked."""


class StateUnreadable(H2OError):
    """A key in etcd is not what this release writes."""


class ConfigurationInvalid(H2OError):
    """A configuration file is missing, is not what it should be, or asks for what cannot work."""


class ClusterUnavailable(H2OError):
    """No whole H2O cloud in time."""


class TrainingInterrupted(H2OError):
    """The cloud was lost under a job as often as it was run again."""
