"""A real H2O cloud that speaks TLS with its clients and between its nodes: it forms, it trains, it refuses others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from services.coordination.etcd import EtcdClient
from services.coordination.tls import AUTHORITY
from services.h2o.cloud import HTTP_OK, NodeAddress, Questioner, is_whole
from services.h2o.cluster import H2OCluster
from services.h2o.encryption import KEY_STORE, SECURITY, Certificates, trusting
from services.h2o.job import run
from services.h2o.specs import SplitSpec
from tests.h2o_certificates import make_certificates
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.integration.h2o.flights_frame import FlightFiles
from tests.integration.h2o.nodes import ENVIRONMENT, Nodes, wait_until

pytestmark = pytest.mark.integration

SIZE = 2
ANSWERS_S = 5.0
DISTRUST = "unable to find valid certification path"
DISTRUST_S = 60.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def nodes(etcd: EtcdCluster, own: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(tmp_path_factory.mktemp("h2o"), etcd.clients, SIZE, certificates=own) as nodes:
        nodes.wait_ready()
        yield nodes


@pytest.fixture
def cluster(etcd: EtcdCluster, nodes: Nodes) -> Iterator[H2OCluster]:
    client = EtcdClient(etcd.clients)
    yield H2OCluster(client, ENVIRONMENT)
    client.close()


def addresses(nodes: Nodes) -> list[NodeAddress]:
    urls = [urllib3.util.parse_url(nodes.url(name)) for name in nodes.names]
    return [
        NodeAddress(name=name, host=str(url.host), port=int(url.port or 0), scheme=str(url.scheme))
        for name, url in zip(nodes.names, urls, strict=True)
    ]


def test_training_trusts_the_authority_that_the_environment_names(
    cluster: H2OCluster, own: Certificates, flights: FlightFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AUTHORITY, str(own.authority))

    model = run(SplitSpec(train_csv=flights.train, test_csv=flights.test, seed=1, version="v1"), cluster, tmp_path)

    assert cluster.wait_whole(timeout_s=ANSWERS_S).url.startswith("https:")
    assert model.card.metrics.auc > 0.6


def test_who_trusts_another_authority_learns_nothing(nodes: Nodes, own: Certificates, foreign: Certificates) -> None:
    seen = {}
    for side in (own, foreign):
        questioner = Questioner(addresses(nodes), trusting(side.authority))
        seen[side] = questioner.ask()
        questioner.close()

    cloud = f"bw-{nodes.epoch()}"
    assert is_whole(seen[own], cloud)
    assert all(answer.view is None for answer in seen[foreign].values())


def test_clients_are_not_answered_in_clear(nodes: Nodes) -> None:
    for node in addresses(nodes):
        with pytest.raises(HTTPError):
            urllib3.request("GET", f"http://{node.peer}/3/Cloud", timeout=ANSWERS_S, retries=False)


def test_nodes_that_do_not_trust_each_other_form_no_cloud(
    own: Certificates, foreign: Certificates, tmp_path: Path
) -> None:
    with EtcdCluster(tmp_path / "etcd", 1) as etcd, contextlib.ExitStack() as running:
        nodes = Nodes(tmp_path, etcd.clients, SIZE, certificates=own)
        running.push(nodes)
        nodes.start("h2o-0")
        nodes.certificates = foreign
        nodes.start("h2o-1")

        for name in nodes.names:
            log = tmp_path / name / "log" / "h2o.log"
            wait_until(lambda log=log: log.exists() and DISTRUST in log.read_text(), DISTRUST_S, f"{log} tells of it")  # type: ignore[misc]

        assert not any(nodes.ask(name, "/ready")[0] == HTTP_OK for name in nodes.names)


def test_keys_are_for_their_owner_alone(nodes: Nodes) -> None:
    for name in nodes.names:
        for file in (KEY_STORE, SECURITY):
            assert (nodes.directory / name / file).stat().st_mode & 0o077 == 0
