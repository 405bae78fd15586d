"""The warden gives a dead member's leadership back: at once when it is certainly dead, and never otherwise."""

import signal
import subprocess
import sys
import time

import pytest

from services.coordination.etcd import Compare, Delete
from tests.integration.postgres.cases import (
    NOTHING_FOR_S,
    PATRONI_ALONE_S,
    SETTLED_NS,
    acted,
    assert_nothing_lost,
    assert_writes_go_on,
)
from tests.integration.postgres.observer import Witness
from tests.integration.postgres.shard_cluster import ACCOUNT, LEADER_KEY, ShardCluster, wait_until
from tests.integration.postgres.writer import Writer

pytestmark = pytest.mark.integration


def test_server_killed_whole_and_started_again_at_once(shard: ShardCluster, writer: Writer) -> None:
    """patroni#1872, #419: a member that is back before the ttl does not keep its role as if nothing had happened."""
    old = shard.primary()
    with writer, Witness(shard, old) as witness:
        killed_ns = old.kill_server()
        old.start_server()
        assert_writes_go_on(writer, killed_ns)
        time.sleep(0.5)
    (released,) = wait_until("the event of the release", lambda: old.events("released", killed_ns), 5)
    assert released.data["revision"] > 0
    assert witness.violations == []
    assert shard.primary() is not old
    assert_nothing_lost(shard, writer)
    for other in shard.replicas():
        if other is not old:
            assert acted(other, killed_ns) == []


def test_postgres_killed_under_a_living_patroni_is_patronis_business(shard: ShardCluster, writer: Writer) -> None:
    old = shard.primary()
    with writer:
        killed_ns = old.kill_postgres()
        assert_writes_go_on(writer, killed_ns + SETTLED_NS, within_s=PATRONI_ALONE_S)
    assert acted(old, killed_ns) == []
    assert_nothing_lost(shard, writer)


def test_no_release_while_anybody_is_attached_to_the_shared_memory(shard: ShardCluster, writer: Writer) -> None:
    """A process that the warden cannot even recognise still holds the segment: the key stays until it lets go."""
    old = shard.primary()
    shmid = (old.directory.data / "postmaster.pid").read_text().split("\n")[6].split()[1]
    script = (
        "import ctypes, sys; libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p; "
        "assert libc.shmat(int(sys.argv[1]), None, 0) != ctypes.c_void_p(-1).value; print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, shmid],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=ACCOUNT,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"\n"
    with writer:
        before = shard.leader()
        killed_ns = old.kill_server()
        time.sleep(NOTHING_FOR_S)
        assert shard.leader() == before
        assert old.events("released", killed_ns) == []
        holder.communicate()
        let_go_ns = time.monotonic_ns()
        assert_writes_go_on(writer, let_go_ns)
    wait_until("released", lambda: old.events("released", let_go_ns), 5)
    assert_nothing_lost(shard, writer)


def test_key_taken_by_another_member_is_left_alone(shard: ShardCluster, writer: Writer) -> None:
    """The warden comes too late (it was stopped): whatever leads by then is none of its business."""
    old = shard.primary()
    assert old.warden is not None
    with writer:
        seen = shard.leader()
        assert seen is not None
        old.warden.send_signal(signal.SIGSTOP)
        killed_ns = old.kill_server()
        taken = shard.etcd.transact([Compare(LEADER_KEY, "mod_revision", seen.mod_revision)], [Delete(LEADER_KEY)])
        assert taken.succeeded
        assert_writes_go_on(writer, time.monotonic_ns())
        leader = shard.leader()
        old.warden.send_signal(signal.SIGCONT)
        refused = wait_until("a refusal", lambda: old.events("release_refused", killed_ns), 10)
    assert refused[0].data["reason"] == "leader_value_changed"
    assert shard.leader() == leader
    assert old.events("released", killed_ns) == []
    assert_nothing_lost(shard, writer)


def test_patroni_restarted_while_the_warden_was_not_looking(shard: ShardCluster, writer: Writer) -> None:
    """A new Patroni runs over the old Postgres: it is in charge, and the warden neither fences nor releases."""
    old = shard.primary()
    assert old.warden is not None
    assert old.server is not None
    postmaster = old.postmaster()
    with writer:
        old.warden.send_signal(signal.SIGSTOP)
        killed_ns = time.monotonic_ns()
        old.server.kill()
        old.reap_server()
        old.start_server()
        wait_until("the new Patroni answers", lambda: old.rest("/liveness")[0] == 200, 20)
        old.warden.send_signal(signal.SIGCONT)
        refused = wait_until("a refusal", lambda: old.events("release_refused", killed_ns), 10)
        time.sleep(NOTHING_FOR_S)
    assert refused[0].data["reason"] == "patroni_restarted"
    assert acted(old, killed_ns) == []
    assert old.postmaster() == postmaster
    assert shard.primary() is old
    assert_nothing_lost(shard, writer)


def test_warden_that_never_saw_its_member_alive_does_nothing(shard: ShardCluster, writer: Writer) -> None:
    """Killed with its member and started again after it: it knows nothing, so the ttl has to decide."""
    old = shard.primary()
    with writer:
        before = shard.leader()
        old.stop_warden()
        killed_ns = old.kill_server()
        old.start_warden()
        time.sleep(NOTHING_FOR_S)
        (refused,) = wait_until("a refusal", lambda: old.events("release_refused", killed_ns), 5)
        assert refused.data["reason"] == "never_seen_alive"
        assert shard.leader() == before
        old.start_server()
        assert_writes_go_on(writer, killed_ns + SETTLED_NS, within_s=PATRONI_ALONE_S)
    assert acted(old, killed_ns) == []
    assert_nothing_lost(shard, writer)


@pytest.mark.parametrize("delay_ms", [2, 12, 25])
def test_warden_killed_in_the_middle(shard: ShardCluster, writer: Writer, delay_ms: int) -> None:
    """Whenever it dies it leaves the server lock and either the whole leadership or none of it."""
    old = shard.primary()
    assert old.warden is not None
    with writer, Witness(shard, old) as witness:
        killed_ns = old.kill_server()
        time.sleep(delay_ms / 1000)
        old.stop_warden()
        old.start_warden()
        old.start_server()
        assert_writes_go_on(writer, killed_ns + SETTLED_NS, within_s=PATRONI_ALONE_S)
    assert witness.violations == []
    assert_nothing_lost(shard, writer)
