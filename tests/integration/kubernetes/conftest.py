"""Staging's manifests, the secrets of its stack, and an etcd that runs as they say, on loopback."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.kubernetes.names import certificate, key
from infra.kubernetes.plan import ETCD_CLIENT, ETCD_METRICS, ETCD_PEER, KubernetesPlan
from infra.kubernetes.render import manifests
from infra.kubernetes.stack_secrets import ensure
from infra.local.account import Account
from infra.topology import load
from tests.integration.coordination.etcd_cluster import free_ports

ROOT = Path(__file__).resolve().parents[3]
READY_S = 20.0


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    return manifests(KubernetesPlan(load(ROOT, "staging")))


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    ensure(KubernetesPlan(load(ROOT, "staging")), directory)
    return directory


def mounted(secrets: Path, directory: Path, holder: str) -> Path:
    """A pod's /run/tls: the files of a certificate holder, and those of a client."""
    directory.mkdir()
    files = {"ca.crt": "tls_ca_crt", "tls.crt": certificate(holder), "tls.key": key(holder)}
    files |= {"client.crt": certificate("client"), "client.key": key("client")}
    for name, secret in files.items():
        (directory / name).write_bytes((secrets / secret).read_bytes())
    return directory


def container(rendered: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [made for made in rendered if made["kind"] == kind and made["metadata"]["name"] == name]
    first: dict[str, Any] = found["spec"]["template"]["spec"]["containers"][0]
    return first


@contextmanager
def running(
    command: list[str], log: Path, environment: dict[str, str] | None = None, account: Account | None = None
) -> Iterator[None]:
    """A server until the block ends; under `account` when one is given (Postgres refuses root)."""
    name = None if account is None else account.name
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, user=name, cwd="/")
    try:
        yield
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.fixture(scope="module")
def etcd(
    rendered: list[dict[str, Any]], secrets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """One etcd with a pod's own settings; only names, ports and directories are those of this machine."""
    home = tmp_path_factory.mktemp("etcd")
    tls = mounted(secrets, home / "tls", "etcd")
    ports = dict(zip((ETCD_CLIENT, ETCD_PEER, ETCD_METRICS), free_ports(3), strict=True))
    stated = [item for item in container(rendered, "StatefulSet", "etcd")["env"] if "value" in item]
    environment = {}
    for name, value in ((item["name"], item["value"]) for item in stated):
        here = re.sub(r"(\$\(POD_NAME\)|etcd-\d)\.etcd\.[\w.-]+|0\.0\.0\.0", "127.0.0.1", value)
        here = re.sub(r":(\d{4})\b", lambda port: f":{ports[int(port[1])]}", here)
        here = here.replace("$(POD_NAME)", "etcd-0").replace("/run/tls", str(tls))
        environment[name] = here.replace("/var/lib/breakwater", str(home))
    environment["ETCD_INITIAL_CLUSTER"] = environment["ETCD_INITIAL_CLUSTER"].split(",")[0]
    client = {"ETCDCTL_CACERT": "ca.crt", "ETCDCTL_CERT": "client.crt", "ETCDCTL_KEY": "client.key"}
    with running(["/usr/bin/etcd"], home / "log", {"PATH": os.environ["PATH"], **environment}):
        yield {
            "url": environment["ETCD_ADVERTISE_CLIENT_URLS"],
            "health": f"http://127.0.0.1:{ports[ETCD_METRICS]}/health",
            "log": str(home / "log"),
            "ca": str(tls / "ca.crt"),
            **{variable: str(tls / file) for variable, file in client.items()},
        }
