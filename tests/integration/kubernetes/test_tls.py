"""Real servers started from the rendered configuration and the stack's certificates: TLS works, nothing else does."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from infra.kubernetes.plan import REDIS
from services.api.cache import ScoreCache
from services.api.metrics import Metrics
from services.contracts.shards import HostPort
from services.coordination.endpoints import ClientCertificate, EtcdEndpoints
from services.coordination.etcd import EtcdClient, EtcdError
from tests.integration.coordination.etcd_cluster import followed, free_ports, wait_for
from tests.integration.kubernetes.conftest import READY_S, container, mounted, running

pytestmark = pytest.mark.integration


@pytest.fixture
def client(etcd: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[EtcdClient]:
    for variable in ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"):
        monkeypatch.setenv(variable, etcd[variable])
    made = EtcdClient([etcd["url"]], timeout_s=2.0)
    deadline = time.monotonic() + READY_S
    while True:
        with suppress(EtcdError):
            made.get("ready?")
            break
        assert time.monotonic() < deadline, Path(etcd["log"]).read_text()[-800:]
        time.sleep(0.1)
    yield made
    made.close()


def test_the_client_reads_writes_and_watches_over_tls(client: EtcdClient) -> None:
    with followed(client, "tls/key", start_revision=client.put("tls/key", "1")) as seen:
        wait_for(seen, "1")
    found = client.get("tls/key")
    assert found is not None
    assert found.value == "1"
    assert len(seen) == 1


def test_the_probes_path_answers_without_a_certificate(client: EtcdClient, etcd: dict[str, str]) -> None:
    answer = urllib3.request("GET", etcd["health"])
    assert (answer.status, answer.json()["health"]) == (200, "true")


def test_nobody_reaches_etcd_without_a_certificate(client: EtcdClient, etcd: dict[str, str]) -> None:
    stranger = urllib3.PoolManager(ca_certs=etcd["ca"], retries=False)
    with pytest.raises(urllib3.exceptions.HTTPError):
        stranger.request("POST", f"{etcd['url']}/v3/kv/range", body=json.dumps({"key": "AA=="}))
    plain = EtcdClient([etcd["url"].replace("https://", "http://")], timeout_s=2.0)
    with pytest.raises(EtcdError):
        plain.get("ready?")
    plain.close()


def test_a_client_outside_connects_to_an_address_and_demands_the_members_name(
    client: EtcdClient, etcd: dict[str, str]
) -> None:
    proof = ClientCertificate(
        authority=Path(etcd["ETCDCTL_CACERT"]), certificate=Path(etcd["ETCDCTL_CERT"]), key=Path(etcd["ETCDCTL_KEY"])
    )
    port = int(etcd["url"].rpartition(":")[2])
    name = "etcd-0.etcd.breakwater-staging.svc.cluster.local"
    own = HostPort(name="etcd-0", host=name, port=port, address="127.0.0.1")
    with closing(EtcdEndpoints(hosts=(own,), proof=proof).client(timeout_s=2.0)) as outside:
        revision = outside.put("outside", "1")
        stop = threading.Event()
        for event in outside.watch("outside", start_revision=revision, stop=stop):
            assert event.kv.value == "1"
            stop.set()
    stranger = own.model_copy(update={"host": "etcd-0.etcd.elsewhere.svc.cluster.local"})
    refused = pytest.raises(EtcdError, match="Hostname mismatch")
    with closing(EtcdEndpoints(hosts=(stranger,), proof=proof).client(timeout_s=2.0)) as outside, refused:
        outside.get("outside")


@dataclass(frozen=True, slots=True)
class CacheServer:
    """A Redis with a pod's own configuration. `probe` is its readiness probe's command."""

    port: int
    password: str
    authority: Path
    probe: list[str]

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """As the probe does, but with other words than its PING."""
        return subprocess.run([*self.probe[:-1], *words], capture_output=True, text=True, check=False)


@pytest.fixture
def redis(rendered: list[dict[str, Any]], secrets: Path, tmp_path: Path) -> Iterator[CacheServer]:
    tls = mounted(secrets, tmp_path / "tls", "redis")
    (port,) = free_ports(1)
    (config,) = [m for m in rendered if m["kind"] == "ConfigMap" and m["metadata"]["name"] == "redis"]
    (users,) = [m for m in rendered if m["kind"] == "Secret" and m["metadata"]["name"] == "redis-users"]
    password = (secrets / "redis").read_text()
    (tmp_path / "users.acl").write_text(users["stringData"]["users.acl"].replace("${secrets:redis}", password))

    def here(text: str) -> str:
        moved = text.replace("/run/tls", str(tls)).replace("/run/secrets/breakwater", str(tmp_path))
        return moved.replace(f"tls-port {REDIS}", f"tls-port {port}").replace("dir /tmp", f"dir {tmp_path}")

    (tmp_path / "redis.conf").write_text(here(config["data"]["redis.conf"]))
    probe = container(rendered, "Deployment", "redis")["readinessProbe"]["exec"]["command"]
    ask = [here(str(port) if word == str(REDIS) else word) for word in probe]
    server = CacheServer(port, password, tls / "ca.crt", ask)
    with running(["/usr/bin/redis-server", str(tmp_path / "redis.conf")], tmp_path / "log"):
        deadline = time.monotonic() + READY_S
        while server.ask("ping").returncode != 0:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-500:]
            time.sleep(0.05)
        yield server


def test_the_cache_speaks_tls_alone_and_its_prober_can_only_ping(redis: CacheServer) -> None:
    assert redis.ask("ping").stdout.strip() == "PONG"
    refused = redis.ask("get", "x")
    assert refused.returncode != 0
    assert "NOPERM" in refused.stdout + refused.stderr
    with socket.create_connection(("127.0.0.1", redis.port)) as plain:
        plain.sendall(b"PING\r\n")
        with suppress(ConnectionResetError):
            assert b"PONG" not in plain.recv(100)


async def test_the_apis_cache_works_over_tls(redis: CacheServer) -> None:
    cache = ScoreCache("127.0.0.1", redis.port, redis.password, Metrics(), root_certificate=redis.authority)
    cache.start()
    deadline = time.monotonic() + READY_S
    found: list[bytes | None] = []
    while found[-1:] != [b"v"]:
        assert time.monotonic() < deadline, "the cache did not open"
        cache.store(b"k", b"v")
        cache.look_up(b"k", lambda value, _turn: found.append(value))
        await asyncio.sleep(0.01)
    await cache.close()
