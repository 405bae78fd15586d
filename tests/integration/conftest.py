"""What several packages' integration tests share: an H2O server and the models that it trained, once a session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from services.h2o.genmodel import extract_genmodel
from services.h2o.server import PORTS_USED, H2OServer
from services.h2o.train import TrainedModel, train
from tests.integration.coordination.etcd_cluster import free_ports, is_free
from tests.integration.h2o.flights_frame import FlightFiles, write_flights
from tests.integration.h2o.single import running

HEAP_MB = 1024


def free_port_pair() -> int:
    """The first of two neighbouring loopback ports that are free now."""
    while True:
        [port] = free_ports(1)
        if is_free(port + PORTS_USED - 1):
            return port


@pytest.fixture(scope="session")
def h2o_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[H2OServer]:
    server = H2OServer(directory=tmp_path_factory.mktemp("h2o"), port=free_port_pair(), heap_mb=HEAP_MB)
    with running(server):
        yield server


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> FlightFiles:
    return write_flights(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="session")
def trained(
    h2o_server: H2OServer, flights: FlightFiles, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, TrainedModel]:
    """Two models of one contract that score differently, by version: these trees do not depend on their seed."""
    directory = tmp_path_factory.mktemp("trained")
    half = directory / "half.csv"
    lines = flights.train.read_text().splitlines(keepends=True)
    half.write_text("".join(lines[: len(lines) // 2]))
    sources = {"v1": (flights.train, flights.test), "v2": (half, flights.test)}
    return {
        version: train(*files, h2o_server.url, directory / version, seed=seed, version=version)
        for seed, (version, files) in enumerate(sources.items(), start=1)
    }


@pytest.fixture(scope="session")
def genmodel_jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_genmodel(tmp_path_factory.mktemp("lib"))
