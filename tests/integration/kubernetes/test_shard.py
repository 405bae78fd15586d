"""One member of a shard with a pod's own settings: real Patroni, Postgres and warden, TLS everywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3

from infra.kubernetes.inside import PROGRAM, STRIKE
from infra.local.account import Account
from services.contracts.events import read_events
from services.contracts.shards import HostPort, ShardEndpoints
from services.featurestore.provision import ProvisionConfig, provision
from services.postgres.configure import MemberSettings, configure
from tests.integration.coordination.etcd_cluster import free_ports
from tests.integration.kubernetes.conftest import ROOT, mounted, running

pytestmark = pytest.mark.integration
START_S = 60.0
NAME, DOMAIN = "127", "0.0.1"
"""A pod is reached at NAME.DOMAIN, and here that must be an address of this machine."""


@dataclass(frozen=True, slots=True)
class Shard:
    home: Path
    port: int
    rest_port: int
    password: str

    def conninfo(self, sslmode: str) -> str:
        authority = self.home / "tls" / "ca.crt"
        return (
            f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres sslmode={sslmode} sslrootcert={authority}"
        )

    def connect(self, sslmode: str = "verify-full") -> psycopg.Connection[Any]:
        return psycopg.connect(self.conninfo(sslmode), password=self.password, target_session_attrs="read-write")

    def warden_said(self, kind: str) -> bool:
        path = self.home / "warden-events.jsonl"
        return path.exists() and any(event.kind == kind for event in read_events(path))


def own(directory: Path, account: Account) -> None:
    for path in (directory, *directory.rglob("*")):
        account.own(path)


@pytest.fixture(scope="module")
def shard(rendered: list[dict[str, Any]], secrets: Path, etcd: dict[str, str]) -> Iterator[Shard]:
    account = Account.for_servers()
    # short, for Postgres' socket; and where the servers' account may go
    home = Path(tempfile.mkdtemp(prefix="bw-"))
    tls = mounted(secrets, home / "tls", "postgres")
    for path in tls.iterdir():
        path.chmod(0o600)
    passwords = home / "secrets"
    shutil.copytree(secrets, passwords)
    (config,) = [m for m in rendered if m["kind"] == "ConfigMap" and m["metadata"]["name"] == "shard-0"]
    port, rest_port = free_ports(2)
    said = json.loads(config["data"]["member.json"])
    here = {"domain": DOMAIN, "port": port, "rest_port": rest_port, "etcd": [etcd["url"].removeprefix("https://")]}
    here |= {"directory": str(home), "secrets_dir": str(passwords), "tls_dir": str(tls)}
    # one member has nobody to acknowledge its commits
    configure(MemberSettings.model_validate({**said, **here, "synchronous": False}), NAME)
    own(home, account)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    client = {"ETCDCTL_CACERT": "ca.crt", "ETCDCTL_CERT": "client.crt", "ETCDCTL_KEY": "client.key"}
    environment |= {variable: str(tls / file) for variable, file in client.items()}
    made = Shard(home, port, rest_port, (secrets / "postgres_superuser").read_text())
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.callback(end_postgres, home)
        for module, argument in (("launcher", home), ("warden", home / "warden.json")):
            command = [sys.executable, "-m", f"services.postgres.{module}", str(argument)]
            stack.enter_context(running(command, home / f"{module}.log", environment, account))
        deadline = time.monotonic() + START_S
        while True:
            with suppress(psycopg.Error):
                made.connect().close()
                break
            assert time.monotonic() < deadline, (home / "launcher.log").read_text()[-1500:]
            time.sleep(0.2)
        yield made


def inside(shard: Shard, verb: str, *words: str, stdin: str = "") -> list[dict[str, Any]]:
    """What the program says that experiments run inside a pod."""
    command = [sys.executable, "-c", PROGRAM, verb, str(shard.home), *words]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    user = Account.for_servers().name
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, user=user, env=environment, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def end_postgres(home: Path) -> None:
    """What a killed Patroni leaves."""
    with suppress(OSError, ValueError):
        os.kill(int((home / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


def test_clients_get_tls_1_3_and_nothing_less(shard: Shard) -> None:
    with shard.connect() as connection:
        row = connection.execute("select version from pg_stat_ssl where pid = pg_backend_pid()").fetchone()
    assert row == ("TLSv1.3",)
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        shard.connect("disable")


def test_a_client_outside_connects_to_an_address_and_demands_the_members_name(shard: Shard, tmp_path: Path) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"*:*:*:postgres:{shard.password}\n")
    passfile.chmod(0o600)
    name = "shard-0-0.postgres.breakwater-staging.svc.cluster.local"
    host = HostPort(name="shard-0-0", host=name, port=shard.port, address="127.0.0.1")
    outside = ShardEndpoints(
        shard=0,
        hosts=(host,),
        dbname="postgres",
        user="postgres",
        passfile=passfile,
        root_certificate=shard.home / "tls" / "ca.crt",
    )
    with psycopg.connect(outside.conninfo("read-write", application_name="test")) as connection:
        assert connection.info.host == name, "by its name a client knows which member answered"
    stranger = host.model_copy(update={"host": "shard-0-0.postgres.elsewhere.svc.cluster.local"})
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        psycopg.connect(outside.model_copy(update={"hosts": (stranger,)}).conninfo("any", application_name="test"))


def test_what_strikes_a_pod_finds_its_server_and_holds_it(shard: Shard) -> None:
    (seen,) = inside(shard, "look", "[]")
    names = [name for _, _, name in seen["processes"]]
    assert "postgres" in names
    assert seen["processes"][-1][0] == json.loads((shard.home / "run" / "patroni.pid").read_text())["pid"]
    assert not seen["held"]
    identities = json.dumps([entry[:2] for entry in seen["processes"][-2:]] + [[1, 1]])
    # without the word nothing happens, and nothing stays
    assert inside(shard, "kill", "server", "hold", "1") == [{"ready": True}]
    (seen,) = inside(shard, "look", identities)
    assert (seen["alive"], seen["held"]) == (2, False)
    (said,) = inside(shard, "events", "4096")
    assert "watching" in said["text"]


def test_probes_reach_patroni_over_tls(shard: Shard) -> None:
    pool = urllib3.PoolManager(ca_certs=str(shard.home / "tls" / "ca.crt"), retries=False)
    assert pool.request("GET", f"https://127.0.0.1:{shard.rest_port}/liveness").status == 200
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", f"http://127.0.0.1:{shard.rest_port}/liveness", retries=False)


def test_provisioning_twice_changes_nothing(
    shard: Shard, etcd: dict[str, str], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"):
        monkeypatch.setenv(variable, etcd[variable])
    passfile = shard.home / "pgpass"
    app = (secrets / "postgres_app").read_text()
    passfile.touch(mode=0o600)
    passfile.write_text(f"*:*:*:postgres:{shard.password}\n*:*:*:breakwater_app:{app}\n")

    def endpoints(user: str, dbname: str) -> dict[str, Any]:
        host = {"name": NAME, "host": "127.0.0.1", "port": shard.port}
        shown = {"shard": 0, "hosts": [host], "dbname": dbname, "user": user, "passfile": str(passfile)}
        return {**shown, "root_certificate": str(shard.home / "tls" / "ca.crt")}

    def owner(role: str, database: str, secret: str) -> dict[str, Any]:
        return {"role": role, "database": database, "password_file": str(secrets / secret), "shards": [0]}

    config = ProvisionConfig.model_validate(
        {
            "environment": "staging",
            "etcd": [etcd["url"]],
            "admin": [endpoints("postgres", "postgres")],
            "shards": [endpoints("breakwater_app", "features")],
            "registry": endpoints("breakwater_app", "model_registry"),
            "owners": [
                {**owner("breakwater_app", "features", "postgres_app"), "observes": True},
                owner("breakwater_app", "model_registry", "postgres_app"),
                owner("breakwater_mage", "mage", "mage_database"),
            ],
        }
    )
    assert "slot map generation 1" in provision(config)
    assert provision(config).endswith("slot map generation 1, 0 partitions made")


def test_the_warden_gives_leadership_back_through_tls(shard: Shard) -> None:
    deadline = time.monotonic() + START_S
    while not shard.warden_said("leader_seen"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ready, struck, ended = inside(shard, "kill", "server", "hold", "10", stdin=f"{STRIKE}\n")
    assert ready == {"ready": True}
    assert len(struck["processes"]) > 5
    assert ended == {"left": 0}
    identities = json.dumps([entry[:2] for entry in struck["processes"]])
    (seen,) = inside(shard, "look", identities)
    assert seen == {"alive": 0, "processes": [], "held": True}
    assert inside(shard, "release") == [{"held": False}]
    while not shard.warden_said("released"):
        assert time.monotonic() < deadline, (shard.home / "warden.log").read_text()[-1500:]
        time.sleep(0.1)
