"""Locust as a user starts it: alone, with its page, as a master with workers; against a server that is known exactly.

Only the plan's derivation from a running environment is replaced here; tests/e2e/test_load.py has it for real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from loadtests import alone
from loadtests.alone import ENVIRONMENT_VARIABLE
from loadtests.arrivals import poisson, uniform
from loadtests.launch import Process
from loadtests.plan import EXIT_USAGE, PLAN_VARIABLE, LoadPlan
from loadtests.record import Error
from loadtests.share import FIRST_WORKER
from services.contracts.shards import HostPort, ShardEndpoints
from tests.integration.coordination.etcd_cluster import free_ports
from tests.integration.loadtests.plans import NS_PER_S, rows, startup_s, write_plan
from tests.integration.loadtests.tls_edge import TlsEdge, make_certificates

pytestmark = pytest.mark.integration

TOKEN = "secret-for-tests"  # noqa: S105 - of a server that lives as long as its test
LOCUST = [sys.executable, "-m", "locust"]
WITH_TEMPLATE = """
import json, pathlib
from locust.main import main
from loadtests import alone
alone.of = lambda environment, directory: alone.Alone(json.loads(pathlib.Path(environment).read_text()))
main()
"""
"""Locust, with the environment's name as the path of a plan that stands for what `breakwater load-plan` would write."""
WAIT_S = 60


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[TlsEdge]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    _, server_file = make_certificates(tmp_path)
    with TlsEdge(server_file, TOKEN).serving() as found:
        yield found


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """What a test has started; whatever still runs in the end is killed."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def planned(edge: TlsEdge, directory: Path, **changes: Any) -> tuple[Path, LoadPlan]:
    host = HostPort(name="shard-0-0", host="127.0.0.1", port=1)
    shard = ShardEndpoints(shard=0, hosts=(host,), dbname="features", user="u", passfile=directory / "passfile")
    return write_plan(directory, [shard], edge_url=edge.url, **changes)


def start(
    started: list[subprocess.Popen[str]], words: Sequence[str], *arguments: str, **variables: str
) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in {PLAN_VARIABLE, ENVIRONMENT_VARIABLE}}
    process = subprocess.Popen(
        [*words, "-f", str(Path(alone.__file__).with_name("locustfile.py")), *arguments],
        env=kept | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started.append(process)
    return process


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=WAIT_S + 30)
    assert process.returncode == code, said
    return said


def until(test: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not test():
        assert time.monotonic() < end, f"not within {WAIT_S} s: {what}"
        time.sleep(0.1)


def due(offsets: Iterator[int], plan: LoadPlan) -> list[int]:
    """When a whole plan's arrivals of a stream are due."""
    inside = takewhile(lambda offset: plan.start_ns + offset < plan.end_ns, plan.course.shaped(offsets))
    return [plan.start_ns + offset for offset in inside]


def test_workers_carry_out_a_plan_together_and_each_records_its_part(
    edge: TlsEdge, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    [port] = free_ports(1)
    workers = [start(started, LOCUST, "--worker", "--master-port", str(port)) for _ in range(3)]
    time.sleep(2 * startup_s())  # the plan's times are for processes that are there: a crowded machine starts slowly
    begin = time.monotonic_ns() + int((2 * startup_s() + 5) * NS_PER_S)
    path, plan = planned(
        edge, tmp_path, rates={"predict": 80, "write_api": 30}, seconds=3, profile="peak",
        start_ns=begin, end_ns=begin + 3 * NS_PER_S,
    )  # fmt: skip
    master = start(
        started, LOCUST, "--master", "--master-bind-port", str(port), "--expect-workers", "3", "--headless",
        **{PLAN_VARIABLE: str(path)},
    )  # fmt: skip
    until(lambda: master.poll() is not None or bool(_listening(master)), "the master listens")
    assert {address for address, _ in _listening(master)} <= {"127.0.0.1"}
    for process in (master, *workers):
        ended(process)

    parts = sorted(plan.out_dir.glob("*.arrow"))
    assert [part.name for part in parts] == ["locust-0.arrow", "locust-1.arrow", "locust-2.arrow"]
    found = [rows(part) for part in parts]
    together = sorted((row for part in found for row in part), key=lambda row: row["sched_ns"])
    # Not one arrival more, fewer, or at another time than one process would have sent.
    predicted = [row for row in together if row["kind"] == "predict"]
    written = [row for row in together if row["kind"] == "write_api"]
    assert [row["sched_ns"] for row in predicted] == due(poisson(80, "7/predict"), plan)
    assert [row["sched_ns"] for row in written] == due(uniform(30, "7/write/0", beside=plan.rates.write or None), plan)
    assert [len({row["process"] for row in part}) for part in found] == [1, 1, 1]
    assert {row["process"] for row in together} == {FIRST_WORKER, FIRST_WORKER + 1, FIRST_WORKER + 2}
    assert len({row["key"] for row in written}) == len(written)
    assert len({row["op_id"] for row in together}) == len(together)
    sent = [row for row in together if row["error"] != Error.NOT_SENT]
    assert len(sent) >= 0.95 * len(together)
    assert edge.seen["write"] + edge.seen["by vector"] + edge.seen["by entity"] == len(sent)


def test_a_plan_is_carried_out_once(edge: TlsEdge, tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    path, plan = planned(edge, tmp_path, rates={"predict": 20}, seconds=1)
    part = Process.LOCUST.part(plan.out_dir)
    part.write_bytes(b"what was recorded")
    said = ended(start(started, LOCUST, "--headless", **{PLAN_VARIABLE: str(path)}), EXIT_USAGE)
    assert "is there already" in said
    assert part.read_bytes() == b"what was recorded"


def test_alone_it_sends_what_its_options_say_and_keeps_no_history(
    edge: TlsEdge, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    path, plan = planned(edge, tmp_path, rates={"predict": 1}, seconds=1)
    arguments = ["--rate", "60", "--write-rate", "20", "--seconds", "3", "--load-profile", "ramp", "--seed", "9"]
    words = [sys.executable, "-c", WITH_TEMPLATE]
    locust = start(started, words, "--headless", *arguments, **{ENVIRONMENT_VARIABLE: str(path)})
    ended(locust)
    shaped = plan.model_copy(update={"profile": "ramp", "end_ns": plan.start_ns + 3 * NS_PER_S})
    expected = len(due(poisson(60, "9/predict"), shaped))
    assert edge.seen["by vector"] + edge.seen["by entity"] == pytest.approx(expected, rel=0.05)
    assert edge.seen["write"] == pytest.approx(60, rel=0.05)
    assert list(plan.out_dir.iterdir()) == []


@pytest.mark.parametrize("expected_workers", [2, 1])
def test_alone_workers_send_the_rate_that_was_asked_for_in_all(
    edge: TlsEdge, tmp_path: Path, started: list[subprocess.Popen[str]], expected_workers: int
) -> None:
    """Also when more of them are there than the master waits for: then all that are there share, and all end."""
    path, plan = planned(edge, tmp_path, rates={"predict": 1}, seconds=1)
    [port] = free_ports(1)
    workers = [start(started, LOCUST, "--worker", "--master-port", str(port)) for _ in range(2)]
    arguments = [
        "--master-bind-port",
        str(port),
        "--expect-workers",
        str(expected_workers),
        "--rate",
        "60",
        "--seconds",
        "3",
    ]
    words = [sys.executable, "-c", WITH_TEMPLATE]
    arguments += ["--json-file", str(tmp_path / "stats")]
    ended(start(started, words, "--master", "--headless", *arguments, **{ENVIRONMENT_VARIABLE: str(path)}))
    for worker in workers:
        ended(worker)
    (counted,) = json.loads((tmp_path / "stats.json").read_text())
    assert counted["num_requests"] == edge.seen.total()
    expected = len(due(poisson(60, "1/predict"), plan.model_copy(update={"end_ns": plan.start_ns + 3 * NS_PER_S})))
    assert edge.seen["by vector"] + edge.seen["by entity"] == pytest.approx(expected, rel=0.05)
    assert list(plan.out_dir.iterdir()) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_its_page_starts_and_stops_loads_again_and_again(
    edge: TlsEdge, tmp_path: Path, started: list[subprocess.Popen[str]], workers: int
) -> None:
    path, _ = planned(edge, tmp_path, rates={"predict": 1}, seconds=1)
    page_port, port = free_ports(2)
    hands = [start(started, LOCUST, "--worker", "--master-port", str(port)) for _ in range(workers)]
    arguments = ["--web-port", str(page_port), *(["--master", "--master-bind-port", str(port)] if workers else [])]
    words = [sys.executable, "-c", WITH_TEMPLATE]
    locust = start(started, words, *arguments, **{ENVIRONMENT_VARIABLE: str(path)})
    page = httpx.Client(base_url=f"http://127.0.0.1:{page_port}", timeout=10, trust_env=False)

    def stats() -> dict[str, Any]:
        found: dict[str, Any] = page.get("/stats/requests").json()
        return found

    until(lambda: locust.poll() is not None or _answers(page), "the page answers")
    assert locust.poll() is None, ended(locust)
    assert {address for address, _ in _listening(locust)} == {"127.0.0.1"}
    until(lambda: stats().get("worker_count", 0) == workers, "the workers are there")
    first = page.get("/").text
    assert "load_profile" in first
    assert "BREAKWATER" not in first

    # To its end, without anybody pressing stop.
    form = {"load_profile": "normal", "rate": "50", "write_rate": "0", "seconds": "4", "seed": "3"}
    assert page.post("/swarm", data=form).json()["success"]
    until(lambda: stats()["state"] == "running", "it runs")
    until(lambda: stats()["state"] == "stopped", "the load has ended")
    expected = len(list(takewhile(lambda offset: offset < 4 * NS_PER_S, poisson(50, "3/predict"))))
    assert edge.seen.total() == pytest.approx(expected, abs=2)
    until(lambda: stats()["stats"][-1]["num_requests"] == edge.seen.total(), "the page has counted all of it")
    assert stats()["fail_ratio"] == 0

    # Again, for longer, and stopped by hand.
    before = edge.seen.total()
    assert page.post("/swarm", data=form | {"seconds": "600"}).json()["success"]
    until(lambda: edge.seen.total() > before + 20 and stats()["state"] == "running", "it is sent again")
    assert page.post("/stop").json()["success"]
    until(lambda: stats()["state"] == "stopped", "it was stopped")
    silent = edge.seen.total()
    time.sleep(1)
    assert edge.seen.total() == silent

    # What cannot be is said, and the page is still there.
    assert page.post("/swarm", data=form | {"rate": "100000"}).json()["success"]
    time.sleep(4)  # longer than the page remembers its last answer
    assert stats()["state"] == "stopped"
    assert edge.seen.total() == silent
    locust.terminate()
    said = ended(locust)
    assert "rates.predict: Input should be less than or equal to 5000" in said
    for hand in hands:
        ended(hand)


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: breakwater\nruntime: python\n")
    (tmp_path / "Pulumi.asleep.yaml").write_text(
        json.dumps({"config": {"breakwater:runtime": "local", "breakwater:chaos": {"enabled": True}}})
    )
    (tmp_path / "Pulumi.shut.yaml").write_text(json.dumps({"config": {"breakwater:runtime": "local"}}))
    project = {"BREAKWATER_PROJECT": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    cases = [
        ({}, f"which environment? Give --environment NAME or set {ENVIRONMENT_VARIABLE}"),
        ({ENVIRONMENT_VARIABLE: "nosuch"}, "nosuch"),
        ({ENVIRONMENT_VARIABLE: "asleep"}, "asleep is not up"),
        ({ENVIRONMENT_VARIABLE: "shut"}, "shut allows no experiments"),
        ({PLAN_VARIABLE: str(tmp_path / "absent.json")}, "cannot read the load plan"),
    ]
    processes = [start(started, LOCUST, "--headless", **project, **variables) for variables, _ in cases]
    for process, (_, named) in zip(processes, cases, strict=True):
        said = ended(process, EXIT_USAGE)
        lines = [line for line in said.splitlines() if "INFO" not in line]
        assert len(lines) == 1, said
        assert named in lines[0]


def test_a_worker_that_no_master_tells_anything_sends_nothing(started: list[subprocess.Popen[str]]) -> None:
    """Its options come from the master, so it starts without any environment, and waits."""
    [port] = free_ports(1)
    worker = start(started, LOCUST, "--worker", "--master-port", str(port))
    time.sleep(startup_s() + 1)
    assert worker.poll() is None


def _answers(page: httpx.Client) -> bool:
    try:
        return page.get("/stats/requests").status_code == 200
    except httpx.TransportError:
        return False


def _listening(process: subprocess.Popen[str]) -> set[tuple[str, int]]:
    """Where a process accepts connections."""
    try:
        found = psutil.Process(process.pid).net_connections("inet")
    except psutil.NoSuchProcess:
        return set()
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN}
