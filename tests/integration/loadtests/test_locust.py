"""Locust's streams against a TLS server whose behaviour is known exactly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.launch import Process, commands
from loadtests.record import NO_SERVER, NO_SHARD, Durability, Error
from services.contracts.shards import HostPort, ShardEndpoints
from tests.integration.loadtests.plans import NS_PER_S, rows, sleep_until, start, write_plan
from tests.integration.loadtests.tls_edge import NAME, TlsEdge, make_certificates

pytestmark = pytest.mark.integration

TOKEN = "secret-for-tests"  # noqa: S105 - of a server that lives as long as its test


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[TlsEdge]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    _, server_file = make_certificates(tmp_path)
    with TlsEdge(server_file, TOKEN).serving() as found:
        yield found


def nowhere(directory: Path) -> ShardEndpoints:
    """Locust's plan names the shards but never connects to them."""
    host = HostPort(name="shard-0-0", host="127.0.0.1", port=1)
    return ShardEndpoints(shard=0, hosts=(host,), dbname="features", user="u", passfile=directory / "passfile")


def run(edge: TlsEdge, directory: Path, *, rates: dict[str, float], **changes: Any) -> list[dict[str, Any]]:
    """Run Locust to its end of one second."""
    path, plan = write_plan(directory, [nowhere(directory)], rates=rates, seconds=1, edge_url=edge.url, **changes)
    (command,) = commands(path)
    locust = start(command, path)
    _, complaint = locust.communicate(timeout=60)
    assert locust.returncode == 0, complaint.decode()
    return rows(Process.LOCUST.part(plan.out_dir))


def test_a_stall_delays_no_arrival_and_its_wait_counts_from_the_scheduled_time(edge: TlsEdge, tmp_path: Path) -> None:
    path, plan = write_plan(
        tmp_path,
        [nowhere(tmp_path)],
        rates={"predict": 100, "write_api": 50},
        seconds=4,
        edge_url=edge.url,
        deadlines_ms={"predict": 500, "write": 5000, "read": 500},
    )
    (command,) = commands(path)
    locust = start(command, path)
    sleep_until(plan, 1.5)
    edge.stall(on=True)
    before = edge.seen["write"]
    stalled_ns = time.monotonic_ns()
    sleep_until(plan, 2.5)
    during = edge.seen["write"] - before
    released_ns = time.monotonic_ns()
    edge.stall(on=False)
    locust.communicate(timeout=60)
    found = rows(Process.LOCUST.part(plan.out_dir))

    # Not one operation fewer than scheduled.
    writes = [row for row in found if row["kind"] == "write_api"]
    predictions = [row for row in found if row["kind"] == "predict"]
    assert len(writes) == 4 * 50
    assert len(predictions) == pytest.approx(4 * 100, abs=5 * 20)  # Poisson: five standard deviations
    assert edge.seen["write"] == len(writes)
    assert edge.seen["by vector"] == pytest.approx(edge.seen["by entity"], rel=0.5)
    # They left while nothing was answered: a closed model would have sent one.
    assert during > 0.5 * 50
    # And each waited from its due time to the end of the stall: no coordinated omission.
    margin_ns = NS_PER_S // 10
    stalled = [row for row in writes if stalled_ns + margin_ns < row["sched_ns"] < released_ns - margin_ns]
    assert len(stalled) > 0.5 * 50
    assert all(row["end_ns"] >= released_ns for row in stalled)
    assert {(row["durability"], row["error"]) for row in writes} == {(Durability.OK, Error.NONE)}
    assert {(row["timeline"], row["server"]) for row in writes} == {(3, 0)}
    # Predictions have 500 ms: those of the stall's first half gave up, and are bad.
    hopeless = [row for row in predictions if stalled_ns + margin_ns < row["sched_ns"] < released_ns - 6 * margin_ns]
    assert hopeless
    assert not any(row["available"] for row in hopeless)
    assert {row["error"] for row in hopeless} <= {Error.TIMEOUT, Error.LATE}
    assert {row["shard"] for row in predictions} == {0, NO_SHARD}


def test_answers_are_judged_by_what_they_prove(edge: TlsEdge, tmp_path: Path) -> None:
    edge.problem = (503, "commit_unknown")
    found = run(edge, tmp_path, rates={"write_api": 20})
    assert {(row["durability"], row["error"], row["available"], row["server"]) for row in found} == {
        (Durability.UNKNOWN, Error.COMMIT_UNKNOWN, False, NO_SERVER)
    }
    # An error answer is an answer: its connection is used again.
    assert edge.connections < len(found)


@pytest.mark.parametrize("forgetful", [False, True])
def test_readers_ask_for_what_was_acknowledged_and_record_what_they_saw(
    edge: TlsEdge, tmp_path: Path, forgetful: bool
) -> None:
    edge.forgetful = forgetful
    found = run(edge, tmp_path, rates={"write_api": 50, "read_api": 50})
    written = {row["key"]: row for row in found if row["kind"] == "write_api"}
    asked = [row for row in found if row["kind"] == "read_api"]
    assert len(asked) == edge.seen["read"] == pytest.approx(50, abs=5 * 7)  # Poisson: five standard deviations
    assert {(row["error"], row["available"], row["durability"], row["timeline"]) for row in asked} == {
        (Error.NONE, True, Durability.NONE, 12_500)
    }
    # but for the first ones, when nothing was known yet
    late = [row for row in asked if row["start_ns"] > min(row["end_ns"] for row in written.values())]
    assert len(late) > 0.5 * len(asked)
    assert all(written[row["key"]]["end_ns"] < row["start_ns"] for row in late)
    assert (
        {row["value"] for row in late} == {0}
        if forgetful
        else {row["value"] for row in late} <= {row["value"] for row in written.values()}
    )
    # of different ages
    assert len({row["key"] for row in late}) > 5


def test_a_server_that_the_plans_ca_did_not_sign_gets_no_request(edge: TlsEdge, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    other_ca, _ = make_certificates(elsewhere)
    found = run(edge, tmp_path, rates={"predict": 20}, ca_file=str(other_ca))
    assert {row["error"] for row in found} == {Error.DISCONNECTED}
    assert not edge.seen


def test_sigterm_leaves_no_write_unrecorded(edge: TlsEdge, tmp_path: Path) -> None:
    path, plan = write_plan(tmp_path, [nowhere(tmp_path)], rates={"write_api": 50}, seconds=60, edge_url=edge.url)
    (command,) = commands(path)
    locust = start(command, path)
    sleep_until(plan, 1)
    edge.stall(on=True)
    sleep_until(plan, 1.5)
    locust.terminate()
    locust.communicate(timeout=30)
    assert locust.returncode == 0
    found = rows(Process.LOCUST.part(plan.out_dir))
    assert sum(row["error"] != Error.NOT_SENT for row in found) == edge.seen["write"]
    assert {row["durability"] for row in found if row["error"] == Error.TIMEOUT} == {Durability.UNKNOWN}


def test_a_missing_token_is_said_at_once(edge: TlsEdge, tmp_path: Path) -> None:
    path, plan = write_plan(tmp_path, [nowhere(tmp_path)], rates={"write_api": 50}, seconds=60, edge_url=edge.url)
    plan.token_file.unlink()
    (command,) = commands(path)
    locust = start(command, path)
    _, complaint = locust.communicate(timeout=30)
    assert locust.returncode == 3
    assert b"cannot read the API token" in complaint


@pytest.mark.parametrize(("name", "proven"), [(NAME, True), ("another.example.org", False)])
def test_an_edge_that_is_reached_by_its_address_proves_its_name(
    edge: TlsEdge, tmp_path: Path, name: str, proven: bool
) -> None:
    found = run(edge, tmp_path, rates={"write_api": 20}, edge_name=name)
    assert {row["available"] for row in found} == {proven}
    assert edge.seen["write"] == (len(found) if proven else 0)
