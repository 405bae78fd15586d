"""The local runtime as its user meets it: up, down, crash, power cut, faults left behind, endpoints, TLS, tokens."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from infra.local import processes
from infra.local.environment import LocalEnvironment
from infra.local.plan import LocalPlan
from infra.topology import load
from tests.e2e.conftest import ENVIRONMENT, PORT_BASE, Platform

pytestmark = pytest.mark.e2e

MEMBERS = {
    *(f"etcd-{i}" for i in range(3)),
    *(f"shard-{shard}-{i}" for shard in range(2) for i in range(3)),
    *("redis-0", "h2o-0", "h2o-1", "registry-0", "mage-0", "api-0", "api-1", "edge-0"),
}
FEATURES = {
    "month": 7,
    "day_of_week": 1,
    "departure_minute": 600,
    "arrival_minute": 760,
    "distance": 1400.0,
    "carrier": "UA",
    "origin": "EWR",
    "dest": "DEN",
}
EVENT_TIME = "2013-02-10T15:00:00+00:00"


def write_row(platform: Platform) -> str:
    """One acknowledged row; its entity."""
    entity = str(uuid.uuid4())
    body = {"entity_id": entity, "event_time": EVENT_TIME, "segment": "UA", "features": FEATURES}
    with platform.client() as client:
        answer = client.post("/v1/features", json=body)
    assert answer.status_code == 200, answer.text
    return entity


def holds_row(platform: Platform, entity: str) -> bool:
    with platform.client() as client:
        body = {"entity_id": entity, "event_time": EVENT_TIME, "read_your_writes": True}
        return client.post("/v1/predict", json=body).status_code == 200


def test_every_member_is_healthy_and_known(platform: Platform) -> None:
    status = platform.settled()
    assert set(status) == MEMBERS
    assert all(line["healthy"] for line in status.values()), status
    for shard in range(2):
        roles = [line["role"] for name, line in status.items() if name.startswith(f"shard-{shard}-")]
        assert roles.count("primary") == 1


def test_endpoints_are_for_anybodys_tools(platform: Platform) -> None:
    endpoints = platform.endpoints()
    assert endpoints["edge"]["url"] == f"https://127.0.0.1:{PORT_BASE + 443}"
    assert {member["name"] for member in endpoints["members"]} == MEMBERS
    for member in endpoints["members"]:
        assert processes.read(member["pid"]) is not None
        assert "dsn" in member or "url" in member
        if "dsn" in member:
            assert "password=" not in member["dsn"]
            with psycopg.connect(member["dsn"]) as connection:
                assert connection.execute("select current_database()").fetchone() == ("features",)


def test_everything_listens_on_loopback_only(platform: Platform) -> None:
    ports = {member["port"] for member in platform.endpoints()["members"]}
    listening = {}
    for table in ("tcp", "tcp6"):  # Java's sockets are of the second kind, also on 127.0.0.1
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == "0A" and PORT_BASE <= int(port, 16) < PORT_BASE + 500:
                listening[int(port, 16)] = address
    assert ports <= set(listening)
    assert set(listening.values()) == {"0100007F", "0000000000000000FFFF00000100007F"}


def test_the_edge_speaks_tls_1_3_and_nothing_older(platform: Platform) -> None:
    edge = platform.endpoints()["edge"]
    port = int(edge["url"].rsplit(":", 1)[1])
    trust = ssl.create_default_context(cafile=edge["ca_file"])
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        trust.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        assert tls.version() == "TLSv1.3"
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", port)) as raw, pytest.raises(ssl.SSLError):
        trust.wrap_socket(raw, server_hostname="localhost")


def test_a_wrong_token_gets_a_problem(platform: Platform) -> None:
    with platform.client(token="wrong") as client:
        answer = client.post("/v1/predict", json={"features": FEATURES})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


def test_secrets_are_readable_by_their_owner_only(platform: Platform) -> None:
    files = list((platform.state / "secrets").iterdir())
    assert files
    for path in [*files, *platform.state.glob("members/*/*.yaml"), *platform.state.glob("members/*/*.conf")]:
        assert path.stat().st_mode & 0o077 == 0, path
    secret = platform.token()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                assert secret.encode() not in (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue


def test_loading_twice_changes_nothing(trained: Platform) -> None:
    def rows() -> list[int]:
        counts = []
        for shard in range(2):
            dsn = next(m["dsn"] for m in trained.endpoints()["members"] if m["shard"] == shard)
            with psycopg.connect(dsn) as connection:
                row = connection.execute("select count(*) from features where event_time < '2014-01-02'").fetchone()
                counts.append(row[0] if row else 0)
        return counts

    before = rows()
    trained.run("load", ENVIRONMENT, "--months", "1-3")
    assert rows() == before
    assert sum(before) > 80_000


def test_a_row_can_be_written_and_predicted_at_once(trained: Platform) -> None:
    assert holds_row(trained, write_row(trained))


def test_a_second_command_waits_its_turn(platform: Platform) -> None:
    with held_lock(platform):
        done = platform.run("up", ENVIRONMENT, code=3)
    assert "another breakwater command works on e2e" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_up_again_restarts_nothing(platform: Platform) -> None:
    before = {member["name"]: member["pid"] for member in platform.endpoints()["members"]}
    platform.run("up", ENVIRONMENT)
    assert {member["name"]: member["pid"] for member in platform.endpoints()["members"]} == before


def test_a_fault_left_behind_is_healed(platform: Platform) -> None:
    plan = LocalPlan(load(platform.root, ENVIRONMENT), platform.root / "state" / "breakwater")
    proof = LocalEnvironment(plan).pause("redis-0")
    assert proof.proven
    assert not platform.status()["redis-0"]["healthy"]
    assert "resume redis-0" in platform.run("heal", ENVIRONMENT).stdout
    assert platform.status()["redis-0"]["healthy"]


@pytest.mark.parametrize("what", ["supervisor", "power"])
def test_up_repairs_what_a_crash_left(trained: Platform, what: str) -> None:
    entity = write_row(trained)
    supervisor = int((trained.state / "supervisor" / "supervisord.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    if what == "power":
        everything = processes.working_in(trained.state / "members")
        processes.send(everything, signal.SIGKILL)
        assert processes.wait_gone([p.id for p in everything], timeout_s=10) == ()

    assert "no supervisord answers" in trained.run("status", ENVIRONMENT, code=3).stderr
    trained.run("up", ENVIRONMENT)

    assert all(line["healthy"] for line in trained.settled().values())
    assert holds_row(trained, entity)


def test_down_keeps_the_data(trained: Platform) -> None:
    entity = write_row(trained)
    trained.run("down", ENVIRONMENT)
    assert processes.working_in(trained.state / "members") == ()
    trained.run("up", ENVIRONMENT)
    assert holds_row(trained, entity)


def test_logs_show_a_members_own_words(platform: Platform) -> None:
    assert "shard-0-0" in platform.run("logs", ENVIRONMENT, "shard-0-0").stdout
    unknown = platform.run("logs", ENVIRONMENT, "shard-9-9", code=3)
    assert "no member 'shard-9-9'" in unknown.stderr


@contextmanager
def held_lock(platform: Platform) -> Iterator[None]:
    with (platform.state / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
