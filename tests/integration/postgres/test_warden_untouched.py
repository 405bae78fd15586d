"""What the warden must leave alone: a paused member, its own pause, maintenance, and failsafe mode."""

import signal
import time

import pytest

from tests.integration.postgres.cases import FENCE_AFTER_S, acted, assert_nothing_lost, assert_writes_go_on
from tests.integration.postgres.shard_cluster import ShardCluster, wait_until
from tests.integration.postgres.writer import Writer

pytestmark = pytest.mark.integration


def test_member_paused_whole_is_left_alone(shard: ShardCluster, writer: Writer) -> None:
    """A stopped Postgres acknowledges nothing: no fence, no release, and the suspicion starts anew when it resumes."""
    old = shard.primary()
    with writer:
        before = shard.leader()
        paused_ns = time.monotonic_ns()
        old.signal_server(signal.SIGSTOP)
        time.sleep(FENCE_AFTER_S + 1.5)
        assert shard.leader() == before
        resumed_ns = time.monotonic_ns()
        old.signal_server(signal.SIGCONT)
        assert_writes_go_on(writer, resumed_ns)
        time.sleep(1)
    assert acted(old, paused_ns) == []
    (refused,) = old.events("fence_refused", paused_ns)
    assert refused.data["reason"] == "paused_whole"
    assert_nothing_lost(shard, writer)


def test_warden_paused_longer_than_the_silence_starts_its_suspicion_anew(shard: ShardCluster, writer: Writer) -> None:
    """Warden and Patroni are stopped together, as with a whole pod; Patroni is woken last and must not be killed."""
    old = shard.primary()
    assert old.server is not None
    assert old.warden is not None
    with writer:
        paused_ns = time.monotonic_ns()
        old.server.send_signal(signal.SIGSTOP)
        time.sleep(3)
        old.warden.send_signal(signal.SIGSTOP)
        time.sleep(FENCE_AFTER_S - 2.5)
        old.warden.send_signal(signal.SIGCONT)
        time.sleep(1)
        old.server.send_signal(signal.SIGCONT)
        time.sleep(1)
    assert acted(old, paused_ns) == []
    assert_nothing_lost(shard, writer)


def test_maintenance_mode_is_the_operators(shard: ShardCluster, writer: Writer) -> None:
    """`patronictl pause`: Patroni may be replaced under a running Postgres, which nobody touches."""
    old = shard.primary()
    assert old.server is not None
    postmaster = old.postmaster()
    shard.patch_configuration(old, {"pause": True})
    try:
        time.sleep(0.5)
        with writer:
            killed_ns = time.monotonic_ns()
            old.server.kill()
            refused = wait_until("a refusal", lambda: old.events("release_refused", killed_ns), 10)
            time.sleep(1)
            assert refused[0].data["reason"] == "maintenance"
            assert acted(old, killed_ns) == []
            assert old.postmaster() == postmaster
        old.reap_server()
        old.start_server()
        wait_until("the new Patroni answers", lambda: old.rest("/liveness")[0] == 200, 20)
    finally:
        shard.patch_configuration(old, {"pause": None})
    assert_nothing_lost(shard, writer)


def test_living_patroni_in_failsafe_mode_is_not_fenced(shard: ShardCluster, writer: Writer) -> None:
    """etcd is away for longer than the silence that would be fatal; Patroni answers, so its primary lives."""
    old = shard.primary()
    with writer:
        away_ns = time.monotonic_ns()
        for number in range(3):
            shard.etcd_servers.freeze(number)
        try:
            time.sleep(FENCE_AFTER_S + 2)
            wait_until("still acknowledging", lambda: writer.first_after(time.monotonic_ns() - 10**9), 2)
        finally:
            for number in range(3):
                shard.etcd_servers.thaw(number)
        back_ns = time.monotonic_ns()
        assert_writes_go_on(writer, back_ns)
    assert acted(old, away_ns) == []
    assert_nothing_lost(shard, writer)
