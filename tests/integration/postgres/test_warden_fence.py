"""The warden kills a primary that lives on without a Patroni that answers."""

import signal
import time

import pytest

from tests.integration.postgres.cases import FENCE_AFTER_S, acted, assert_nothing_lost, assert_writes_go_on
from tests.integration.postgres.observer import Witness, alive
from tests.integration.postgres.shard_cluster import LOOP_WAIT_S, TTL_S, ShardCluster, wait_until
from tests.integration.postgres.writer import Writer

pytestmark = pytest.mark.integration


def test_patroni_killed_and_postgres_still_acknowledging(shard: ShardCluster, writer: Writer) -> None:
    """patroni#2070: the key is free only after every process of the old primary is gone."""
    old = shard.primary()
    assert old.server is not None
    with writer, Witness(shard, old) as witness:
        killed_ns = time.monotonic_ns()
        old.server.kill()
        wait_until("released", lambda: old.events("released", killed_ns), 10)
        assert_writes_go_on(writer, time.monotonic_ns())
    assert acted(old, killed_ns) == ["fence_started", "fenced", "gone", "released"]
    assert old.events("fence_started", killed_ns)[0].data["reason"] == "primary_without_patroni"
    assert witness.violations == []
    assert_nothing_lost(shard, writer)


def test_patroni_frozen_and_postgres_still_acknowledging(shard: ShardCluster, writer: Writer) -> None:
    """Fenced after the silence that the lease allows, and before the lease ends: nothing is rewound."""
    old = shard.primary()
    assert old.server is not None
    with writer, Witness(shard, old) as witness:
        frozen_ns = time.monotonic_ns()
        old.server.send_signal(signal.SIGSTOP)
        (released,) = wait_until("released", lambda: old.events("released", frozen_ns), TTL_S + 10)
        assert_writes_go_on(writer, time.monotonic_ns())
    assert acted(old, frozen_ns) == ["fence_started", "fence_started", "fenced", "gone", "released"]
    silent, orphaned, *_ = old.events("fence_started", frozen_ns)
    assert (silent.data["reason"], orphaned.data["reason"]) == ("patroni_silent", "primary_without_patroni")
    assert silent.data["silence_s"] >= FENCE_AFTER_S
    assert released.data["revision"] > 0
    assert released.t_ns - frozen_ns < (TTL_S - LOOP_WAIT_S) * 1e9, "the lease could have ended first"
    acknowledged_s = [(each.end_ns - frozen_ns) / 1e9 for each in writer.acknowledged]
    assert any(10 < second < FENCE_AFTER_S for second in acknowledged_s), "the old primary has to acknowledge meanwhile"
    assert witness.violations == []
    assert_nothing_lost(shard, writer)


def test_busy_backend_that_outlives_its_postmaster(shard: ShardCluster, writer: Writer) -> None:
    """It is killed before the key is given back; that it does outlive its postmaster is shown first."""
    old = shard.primary()
    assert old.warden is not None
    assert old.server is not None
    connection = shard.connect(old)
    backend_pid = connection.info.backend_pid
    with writer, Witness(shard, old) as witness:
        connection.pgconn.send_query(b"select count(*) from generate_series(1, 10000000000)")
        time.sleep(0.5)
        (backend,) = [process for process in old.postgres_processes() if process.pid == backend_pid]
        old.warden.send_signal(signal.SIGSTOP)
        killed_ns = time.monotonic_ns()
        old.server.kill()
        old.postgres_processes()[0].kill()
        time.sleep(1.5)
        assert alive(backend)
        woken_ns = time.monotonic_ns()
        old.warden.send_signal(signal.SIGCONT)
        wait_until("released", lambda: old.events("released", woken_ns), 10)
        assert not alive(backend)
        connection.close()
        assert_writes_go_on(writer, time.monotonic_ns())
    assert acted(old, killed_ns) == ["fence_started", "fenced", "gone", "released"]
    assert witness.violations == []
    assert_nothing_lost(shard, writer)
