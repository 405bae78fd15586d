"""The probes against real servers: a promotion seen as role and route, a leader key deleted and set."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from experiments.probes import commands
from experiments.probes.h2o import watch_epoch
from experiments.probes.models import watch_pointer
from loadtests.plan import LoadPlan
from services.contracts.events import Event, EventLog, read_events
from services.contracts.flights import MODEL_NAME
from services.contracts.shards import leader_key
from services.coordination.etcd import EtcdClient
from services.h2o.state import Keys
from services.registry.announced import pointer_key
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.integration.loadtests.plans import etcd_at, write_plan
from tests.integration.loadtests.postgres_server import DATABASE, PostgresServer

pytestmark = pytest.mark.integration

PROBES = ("postgres", "etcd", "machine")

SEEN_WITHIN_S = 20.0
"""Patience of a test on a busy machine; no promise."""
RATES = {"write": 1.0}


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where servers run: enterable for their user."""
    found = Path(tempfile.mkdtemp(prefix="breakwater-probe-"))
    if os.geteuid() == 0:
        shutil.chown(found, "postgres", "postgres")
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


def eventually(log: Path, source: str, kind: str, wanted: Callable[[Event], bool]) -> Event:
    """The first such event, waiting for it."""
    give_up = time.monotonic() + SEEN_WITHIN_S
    while True:
        events = list(read_events(log)) if log.exists() else []
        for event in events:
            if event.source == source and event.kind == kind and wanted(event):
                return event
        assert time.monotonic() < give_up, f"no {source} {kind}; seen: {[(e.source, e.kind, e.member) for e in events]}"
        time.sleep(0.05)


def end(probe: subprocess.Popen[bytes]) -> None:
    """SIGTERM ends a probe in order."""
    probe.terminate()
    assert probe.wait(timeout=10) == 0


def test_a_promotion_is_seen_as_role_and_as_route(directory: Path, tmp_path: Path) -> None:
    first = PostgresServer.fresh(directory, "shard-0-0")
    first.start()
    with first.connect("postgres") as connection:
        connection.execute(f"create database {DATABASE}")
    second = first.standby("shard-0-1")
    third = None
    path, plan = write_plan(tmp_path, [first.endpoints(0, second)], rates=RATES, seconds=120)
    probe = subprocess.Popen(commands(PROBES, path)[0])
    log = plan.event_log
    try:
        assert eventually(log, "prober", "writable", lambda e: e.member == "shard-0-0").data["timeline"] == 1
        assert eventually(log, "router", "routed", lambda e: e.member == "shard-0-0").data["connect_ns"] > 0
        eventually(log, "prober", "streaming", lambda e: e.member == "shard-0-1")

        killed_ns = time.monotonic_ns()
        first.kill()
        second.promote()
        writable = eventually(log, "prober", "writable", lambda e: e.member == "shard-0-1")
        assert writable.data == {"shard": 0, "timeline": 2}
        assert writable.t_ns > killed_ns
        routed = eventually(log, "router", "routed", lambda e: e.member == "shard-0-1")
        assert routed.data["timeline"] == 2
        assert routed.t_ns > killed_ns

        third = second.standby("shard-0-0-again")
        streaming = eventually(log, "prober", "streaming", lambda e: e.member == "shard-0-0-again")
        assert streaming.data["timeline"] == 2
        assert streaming.data["lag_bytes"] >= 0
    finally:
        end(probe)
        for server in (third, second, first):
            if server is not None:
                server.stop()


def test_a_leader_key_is_seen_when_it_goes_and_comes(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path / "etcd", 1) as cluster:
        server = PostgresServer(tmp_path, "shard-0-0", "never started")
        path, plan = write_plan(
            tmp_path,
            [server.endpoints(0)],
            rates=RATES,
            seconds=120,
            etcd=etcd_at(*cluster.clients),
            environment="test",
        )
        client = EtcdClient(cluster.clients)
        key = leader_key("test", 0)
        client.put(key, "shard-0-0")
        cluster.forget()  # in an environment that is older than an hour that is the rule
        probe = subprocess.Popen(commands(PROBES, path)[1])
        try:
            eventually(plan.event_log, "etcd", "leader_set", lambda e: e.member == "shard-0-0")
            client.delete(key)
            gone = eventually(plan.event_log, "etcd", "leader_deleted", lambda e: e.member == "shard-0-0")
            revision = client.put(key, "shard-0-1")
            new = eventually(plan.event_log, "etcd", "leader_set", lambda e: e.member == "shard-0-1")
            assert new.data == {"shard": 0, "revision": revision}
            assert new.t_ns > gone.t_ns
            client.put(key, "shard-0-1")  # a renewal is no change of leader
        finally:
            end(probe)
        sets = [event for event in read_events(plan.event_log) if event.kind == "leader_set"]
        assert [event.member for event in sets] == ["shard-0-0", "shard-0-1"]


@pytest.mark.parametrize(
    ("follow", "event", "key", "later"),
    [
        (watch_epoch, ("h2o", "epoch"), Keys.of("test").epoch, {"generation": 4, "reason": "process_exited"}),
        (watch_pointer, ("models", "pointer"), pointer_key("test", MODEL_NAME), {"generation": 4, "version": "v4"}),
    ],
    ids=["epoch", "pointer"],
)
def test_what_has_not_changed_for_long_is_followed_all_the_same(
    tmp_path: Path,
    follow: Callable[[LoadPlan, EventLog, threading.Event], None],
    event: tuple[str, str],
    key: str,
    later: dict[str, Any],
) -> None:
    with EtcdCluster(tmp_path / "etcd", 1) as cluster, closing(EtcdClient(cluster.clients)) as client:
        server = PostgresServer(tmp_path, "shard-0-0", "never started")
        etcd = etcd_at(*cluster.clients)
        _, plan = write_plan(tmp_path, [server.endpoints(0)], rates=RATES, seconds=120, etcd=etcd, environment="test")
        client.put(key, json.dumps({**later, "generation": 3}))
        cluster.forget()
        log, stop = EventLog(plan.event_log), threading.Event()
        watcher = threading.Thread(target=follow, args=(plan, log, stop))
        watcher.start()
        try:
            time.sleep(1.0)
            client.put(key, json.dumps(later))
            source, kind = event
            seen = eventually(plan.event_log, source, kind, lambda e: e.data["generation"] == 4)
        finally:
            stop.set()
            watcher.join()
    assert seen.data == later


def test_a_new_leader_of_etcd_itself_is_seen(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path / "etcd", 3) as cluster:
        server = PostgresServer(tmp_path, "shard-0-0", "never started")
        etcd = etcd_at(*cluster.clients)
        path, plan = write_plan(tmp_path, [server.endpoints(0)], rates=RATES, seconds=120, etcd=etcd)
        client = EtcdClient(cluster.clients)
        client.put(leader_key("test", 0), "shard-0-0")
        old = cluster.leader()
        probe = subprocess.Popen(commands(PROBES, path)[1])
        try:
            eventually(plan.event_log, "etcd", "leader_set", lambda e: e.member == "shard-0-0")
            time.sleep(1.5)  # it has looked at the terms, too
            killed_ns = time.monotonic_ns()
            cluster.kill(old)
            elected = eventually(plan.event_log, "etcd", "elected", lambda _: True)
        finally:
            client.close()
            end(probe)
        assert elected.member in {f"etcd-{number}" for number in range(3)} - {f"etcd-{old}"}
        assert elected.t_ns > killed_ns
        assert elected.data["since_ns"] < elected.t_ns


def test_a_machine_that_stands_still_is_seen(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, "shard-0-0", "never started")
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates=RATES, seconds=120)
    probe = subprocess.Popen(commands(PROBES, path)[2])
    try:
        give_up = time.monotonic() + SEEN_WITHIN_S
        while not plan.event_log.exists():
            assert time.monotonic() < give_up, "the probe does not watch"
            time.sleep(0.05)
        time.sleep(0.2)
        began_ns = time.monotonic_ns()
        probe.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        probe.send_signal(signal.SIGCONT)
        stalled = eventually(plan.event_log, "machine", "stalled", lambda e: e.data["ns"] > 300_000_000)
    finally:
        end(probe)
    assert stalled.data["what"] in {"disk", "processor"}
    assert stalled.t_ns + stalled.data["ns"] > began_ns
    assert not list(tmp_path.glob(".machine"))


def test_probes_end_by_the_stop_file_and_name_a_plan_that_is_missing(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, "shard-0-0", "never started")
    path, plan = write_plan(
        tmp_path,
        [server.endpoints(0)],
        rates=RATES,
        seconds=120,
    )
    probes = [subprocess.Popen(command) for command in commands(PROBES, path)]
    time.sleep(2)
    plan.stop_file.touch()
    assert [probe.wait(timeout=20) for probe in probes] == [0, 0, 0]
    for command in commands(PROBES, tmp_path / "absent.json"):
        refused = subprocess.run(command, stderr=subprocess.PIPE, check=False, timeout=30)
        assert refused.returncode == 3
        assert b"cannot read the load plan" in refused.stderr
