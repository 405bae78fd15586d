"""The warden while etcd is slow, away, or electing: bounded, patient, and never twice blindly."""

import threading
import time

import pytest

from tests.integration.postgres.cases import (
    PATRONI_ALONE_S,
    SETTLED_NS,
    acted,
    assert_nothing_lost,
    assert_writes_go_on,
)
from tests.integration.postgres.observer import Witness
from tests.integration.postgres.shard_cluster import TTL_S, ShardCluster, wait_until
from tests.integration.postgres.writer import Writer

pytestmark = pytest.mark.integration

# etcd answers only in these shares of each period, seconds: a disk or network that stalls again and again.
STALL_S, RUN_S = 0.25, 0.15
AWAY_S = 2.5


def test_etcd_slow_when_the_server_is_killed(shard: ShardCluster, writer: Writer) -> None:
    old = shard.primary()
    stop = threading.Event()

    def stall() -> None:
        while not stop.is_set():
            for number in range(3):
                shard.etcd_servers.freeze(number)
            time.sleep(STALL_S)
            for number in range(3):
                shard.etcd_servers.thaw(number)
            time.sleep(RUN_S)

    stalling = threading.Thread(target=stall)
    with writer, Witness(shard, old) as witness:
        stalling.start()
        killed_ns = old.kill_server()
        try:
            wait_until("released", lambda: old.events("released", killed_ns), TTL_S / 2)
        finally:
            stop.set()
            stalling.join()
        assert_writes_go_on(writer, killed_ns + SETTLED_NS, within_s=PATRONI_ALONE_S)
    assert witness.violations == []
    assert_nothing_lost(shard, writer)


def test_etcd_away_when_the_server_is_killed(shard: ShardCluster, writer: Writer) -> None:
    """What was sent and not answered is read before it is tried again; the release comes with etcd."""
    old = shard.primary()
    with writer, Witness(shard, old) as witness:
        for number in range(3):
            shard.etcd_servers.freeze(number)
        old.kill_server()
        time.sleep(AWAY_S)
        back_ns = time.monotonic_ns()
        for number in range(3):
            shard.etcd_servers.thaw(number)
        wait_until("released", lambda: old.events("released", back_ns), TTL_S / 2)
        assert_writes_go_on(writer, back_ns)
    assert witness.violations == []
    assert_nothing_lost(shard, writer)


def test_etcd_electing_when_the_server_is_killed(shard: ShardCluster, writer: Writer) -> None:
    """etcd#9395: the new etcd leader gives every lease its full ttl again; the release does not wait for it."""
    old = shard.primary()
    leader = shard.etcd_servers.leader()
    with writer, Witness(shard, old) as witness:
        shard.etcd_servers.kill(leader)
        killed_ns = old.kill_server()
        try:
            wait_until("released", lambda: old.events("released", killed_ns), TTL_S / 2)
            assert_writes_go_on(writer, killed_ns + SETTLED_NS, within_s=PATRONI_ALONE_S)
        finally:
            shard.etcd_servers.start(leader)
    assert witness.violations == []
    assert_nothing_lost(shard, writer)


def test_patroni_that_could_not_drop_its_lock(shard: ShardCluster, writer: Writer) -> None:
    """patroni#3452: stopped properly, it exits and leaves its lock behind; here because etcd is down just then.

    etcd#9395 as well: when etcd is back, the lease has its whole ttl again, and the release does not wait for it.
    """
    old = shard.primary()
    assert old.server is not None
    with writer, Witness(shard, old) as witness:
        stopped_ns = time.monotonic_ns()
        for number in range(3):
            shard.etcd_servers.kill(number)
        old.server.terminate()
        try:
            old.server.wait(timeout=TTL_S * 2)
        finally:
            for number in range(3):
                shard.etcd_servers.start(number)
        back_ns = time.monotonic_ns()
        wait_until("released", lambda: old.events("released", stopped_ns), TTL_S / 2)
        assert_writes_go_on(writer, back_ns, within_s=PATRONI_ALONE_S)
    assert "fence_started" not in acted(old, stopped_ns), "its Postgres was shut down properly"
    assert witness.violations == []
    assert_nothing_lost(shard, writer)
