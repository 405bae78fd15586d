"""What a user is told of a failure that is no defect of ours."""

from __future__ import annotations

from typing import Final

import psycopg

from experiments.errors import ExperimentError
from infra.environment import EnvironmentFault
from infra.topology import TopologyError
from loadtests.plan import LoadError
from services.coordination.etcd import EtcdError
from services.etl.errors import EtlError
from services.featurestore.errors import FeatureStoreError
from services.h2o.errors import H2OError
from services.registry.errors import RegistryError

KNOWN_FAILURES: Final[tuple[type[Exception], ...]] = (
    EnvironmentFault,
    TopologyError,
    ExperimentError,
    LoadError,
    FeatureStoreError,
    EtlError,
    H2OError,
    RegistryError,
    EtcdError,
)


def explain(error: Exception) -> str | None:
    """What happened and what to do; None for a defect, which has to show its trace."""
    if isinstance(error, KNOWN_FAILURES):
        return str(error)
    if isinstance(error, psycopg.Error):
        return f"Postgres refused: {error}; see `breakwater status`, then try again"
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}; see to its permissions, its disk or what else uses it"
    return None
