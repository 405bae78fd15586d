"""Direct writers and readers against a real server that is killed under them."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from experiments.history import FinalReads
from experiments.probes.final_reads import final_reads
from loadtests.arrivals import ON_TIME_NS, poisson, uniform
from loadtests.keys import value_of
from loadtests.launch import Process, commands
from loadtests.record import Durability, Error
from services.contracts.flights import entity_id
from tests.integration.loadtests.plans import (
    FLIGHT,
    FLIGHT_TIME,
    NS_PER_S,
    RUN_TAG,
    rows,
    sleep_until,
    start,
    write_plan,
)
from tests.integration.loadtests.postgres_server import PostgresServer

pytestmark = pytest.mark.integration

RATE = 100


def put_flight(server: PostgresServer, vector: dict[str, object]) -> None:
    flight = entity_id("UA", 1545, "EWR", "IAH")
    with server.connect() as connection:
        connection.execute("insert into entities (entity_id, segment) values (%s, 'UA')", (flight,))
        connection.execute(
            "insert into features (entity_id, event_time, feature_vector, idempotency_key) values (%s, %s, %s, %s)",
            (flight, FLIGHT_TIME, json.dumps(vector), flight),
        )


def test_a_killed_server_loses_no_acknowledged_write_and_every_arrival_is_accounted_for(
    server: PostgresServer, tmp_path: Path
) -> None:
    put_flight(server, FLIGHT)
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": RATE, "read": RATE}, seconds=6)
    (command,) = commands(path)
    writers = start(command, path)
    sleep_until(plan, 1.5)
    killed_ns = time.monotonic_ns()
    server.kill()
    dead_ns = time.monotonic_ns()
    time.sleep(1.5)
    restarted_ns = time.monotonic_ns()
    server.start()
    ready_ns = time.monotonic_ns()
    assert writers.wait(timeout=20) == 0

    found = rows(Process.WRITERS.part(plan.out_dir))
    writes = [row for row in found if row["kind"] == "write"]
    # The open model: as many operations as the schedule has, server or no server.
    assert len(writes) == 6 * RATE
    assert len({row["key"] for row in writes}) == len(writes)
    assert len({row["op_id"] for row in found}) == len(found)

    before = [row for row in writes if row["end_ns"] < killed_ns]
    assert before
    assert {row["durability"] for row in before} == {Durability.OK}
    down = [row for row in writes if dead_ns < row["sched_ns"] and row["end_ns"] < restarted_ns]
    assert down, "no operation gave up while the server was down"
    assert {row["durability"] for row in down} == {Durability.FAIL}
    assert {row["error"] for row in down} <= {Error.REFUSED, Error.DISCONNECTED}
    after = [row for row in writes if row["sched_ns"] > ready_ns + NS_PER_S]
    assert after
    assert {row["error"] for row in after} == {Error.NONE}
    assert {row["timeline"] for row in after} == {1}
    assert {row["server"] for row in after} == {0}

    reads = [row for row in found if row["kind"] == "read"]
    assert {row["durability"] for row in reads} == {Durability.NONE}
    assert {row["error"] for row in reads if row["end_ns"] < killed_ns} == {Error.NONE}
    assert not any(row["available"] for row in reads if dead_ns < row["sched_ns"] and row["end_ns"] < restarted_ns)

    final_reads(plan.shards, plan.run_tag, plan.write_event_time, tmp_path)
    present = FinalReads.load(tmp_path).of_shard(0)
    acknowledged = {row["key"] for row in writes if row["durability"] == Durability.OK}
    failed = {row["key"] for row in writes if row["durability"] == Durability.FAIL}
    assert acknowledged <= present.keys()
    assert not failed & present.keys()
    assert all(value == value_of(RUN_TAG, key) for key, value in present.items())


def test_writes_that_a_server_may_not_take_certainly_fail(server: PostgresServer, tmp_path: Path) -> None:
    with server.connect() as connection:
        connection.execute("delete from owned_slots")
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": RATE}, seconds=0.5)
    (command,) = commands(path)
    assert start(command, path).wait(timeout=20) == 0
    found = rows(Process.WRITERS.part(plan.out_dir))
    assert Counter((row["durability"], row["error"]) for row in found) == {
        (Durability.FAIL, Error.NOT_OWNER): RATE // 2
    }
    assert final_reads(plan.shards, plan.run_tag, plan.write_event_time, tmp_path) == 0


def test_a_commit_that_is_not_replicated_in_time_is_unknown(server: PostgresServer, tmp_path: Path) -> None:
    """No standby of that name exists, so COMMIT waits for ever: the client must give up without cancelling it."""
    with server.connect() as connection:
        connection.execute("alter system set synchronous_standby_names = 'nobody'")
        connection.execute("select pg_reload_conf()")
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": 20}, seconds=1.5)
    (command,) = commands(path)
    assert start(command, path).wait(timeout=20) == 0
    found = rows(Process.WRITERS.part(plan.out_dir))
    assert len(found) == 30
    sent = [row for row in found if row["durability"] == Durability.UNKNOWN]
    assert sent
    assert {row["error"] for row in sent} == {Error.TIMEOUT}
    # Four connections are stuck in COMMIT; who waited in vain for one was certainly not applied.
    assert {row["error"] for row in found if row["durability"] == Durability.FAIL} <= {Error.REFUSED}
    assert not any(row["available"] for row in found)
    with server.connect() as connection:
        # A cancelled wait would have let the commit through at once with a warning.
        waiting = connection.execute("select count(*) from pg_stat_activity where wait_event = 'SyncRep'").fetchone()
        connection.execute("alter system reset synchronous_standby_names")
        connection.execute("select pg_reload_conf()")
        assert waiting is not None
        assert waiting[0] >= 4


def test_a_notice_at_commit_makes_the_write_unknown(server: PostgresServer, tmp_path: Path) -> None:
    """A cancelled wait for replication answers COMMIT with warning 01000: committed here, perhaps nowhere else."""
    with server.connect() as connection:
        connection.execute(
            "create function warn() returns trigger language plpgsql as"
            " $$ begin raise warning 'canceling wait for synchronous replication'; return null; end $$"
        )
        connection.execute(
            "create constraint trigger warned after insert on entities deferrable initially deferred"
            " for each row execute function warn()"
        )
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": RATE}, seconds=0.5)
    (command,) = commands(path)
    assert start(command, path).wait(timeout=20) == 0
    found = rows(Process.WRITERS.part(plan.out_dir))
    assert {(row["durability"], row["error"]) for row in found} == {(Durability.UNKNOWN, Error.COMMIT_UNKNOWN)}


def test_a_flight_that_reads_back_differently_is_a_wrong_answer(server: PostgresServer, tmp_path: Path) -> None:
    put_flight(server, FLIGHT | {"distance": 1401.0})
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"read": RATE}, seconds=0.5)
    (command,) = commands(path)
    assert start(command, path).wait(timeout=20) == 0
    found = rows(Process.WRITERS.part(plan.out_dir))
    assert found
    assert {(row["error"], row["available"]) for row in found} == {(Error.WRONG_ANSWER, False)}


def test_a_slow_second_does_not_make_later_writes_late(server: PostgresServer, tmp_path: Path) -> None:
    """The queue that a stall leaves must drain: served at their deadline, its operations must not break connections."""
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": RATE}, seconds=5)
    (command,) = commands(path)
    writers = start(command, path)
    sleep_until(plan, 1)
    with server.connect() as blocker, blocker.transaction():
        blocker.execute("lock table owned_slots in access exclusive mode")
        sleep_until(plan, 2.2)
    assert writers.wait(timeout=20) == 0
    found = rows(Process.WRITERS.part(plan.out_dir))
    assert len(found) == 5 * RATE
    stalled = [row for row in found if not row["available"]]
    assert {row["error"] for row in stalled} <= {Error.LATE, Error.REFUSED}
    later = [row for row in found if row["sched_ns"] > plan.start_ns + 3.5 * NS_PER_S]
    assert {row["error"] for row in later} == {Error.NONE}


def test_a_frozen_client_says_what_it_did_not_send(server: PostgresServer, tmp_path: Path) -> None:
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": RATE}, seconds=4)
    (command,) = commands(path)
    writers = start(command, path)
    sleep_until(plan, 1)
    frozen_ns = time.monotonic_ns()
    writers.send_signal(signal.SIGSTOP)
    time.sleep(2)
    writers.send_signal(signal.SIGCONT)
    frozen_s = (time.monotonic_ns() - frozen_ns) / NS_PER_S
    assert writers.wait(timeout=20) == 0
    found = rows(Process.WRITERS.part(plan.out_dir))
    assert len(found) == 4 * RATE
    not_sent = [row for row in found if row["error"] == Error.NOT_SENT]
    # All but the last quarter of a second of what fell due meanwhile was late when the process came back.
    assert len(not_sent) == pytest.approx((frozen_s - ON_TIME_NS / NS_PER_S) * RATE, abs=0.3 * RATE)
    assert {row["durability"] for row in not_sent} == {Durability.FAIL}


@pytest.mark.parametrize("how", ["stop file", "SIGTERM"])
def test_load_ends_early_and_in_order(server: PostgresServer, tmp_path: Path, how: str) -> None:
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": RATE}, seconds=60)
    (command,) = commands(path)
    writers = start(command, path)
    sleep_until(plan, 1)
    if how == "stop file":
        plan.stop_file.touch()
    else:
        writers.terminate()
    assert writers.wait(timeout=10) == 0
    found = rows(Process.WRITERS.part(plan.out_dir))
    acknowledged = {row["key"] for row in found if row["durability"] == Durability.OK}
    final_reads(plan.shards, plan.run_tag, plan.write_event_time, tmp_path)
    assert acknowledged
    assert FinalReads.load(tmp_path).of_shard(0).keys() == acknowledged


def test_readers_without_flights_of_a_shard_say_so_before_anything_starts(
    server: PostgresServer, tmp_path: Path
) -> None:
    shards = [server.endpoints(0), server.endpoints(1)]
    path, _ = write_plan(tmp_path, shards, rates={"read": RATE}, seconds=1)
    (command,) = commands(path)
    readers = start(command, path)
    _, complaint = readers.communicate(timeout=20)
    assert readers.returncode == 3
    assert b"has no flight of shard" in complaint


def test_the_month_of_a_runs_writes_is_its_event_time(server: PostgresServer, tmp_path: Path) -> None:
    """Rows of another time are not the run's, whatever their key."""
    _, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": RATE}, seconds=1)
    other = datetime.fromisoformat(FLIGHT_TIME)
    assert final_reads(plan.shards, plan.run_tag, other, tmp_path) == 0


def test_writers_and_readers_follow_the_profile(server: PostgresServer, tmp_path: Path) -> None:
    put_flight(server, FLIGHT)
    path, plan = write_plan(tmp_path, [server.endpoints(0)], rates={"write": 50, "read": 50}, seconds=3, profile="ramp")
    (command,) = commands(path)
    assert start(command, path).wait(timeout=30) == 0
    found = rows(Process.WRITERS.part(plan.out_dir))
    for kind, arrivals in (("write", uniform(50, "7/write/0")), ("read", poisson(50, "7/read/0"))):
        due = [plan.start_ns + offset for offset in plan.course.shaped(arrivals)]
        sent = [row["sched_ns"] for row in found if row["kind"] == kind]
        assert sent == [at for at in due if at < plan.end_ns]
        assert sum(at < plan.start_ns + 1.5 * NS_PER_S for at in sent) < 0.5 * len(sent)
