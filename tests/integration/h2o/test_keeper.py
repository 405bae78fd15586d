"""Three real H2O nodes and their keepers: a death is mended, a pause is not taken for one, jobs run again."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from services.coordination.etcd import EtcdClient
from services.h2o.cluster import H2OCluster
from services.h2o.errors import ClusterUnavailable
from services.h2o.job import run
from services.h2o.specs import SplitSpec
from services.h2o.trained import TrainedModel
from tests.integration.coordination.etcd_cluster import EtcdCluster
from tests.integration.h2o.flights_frame import FlightFiles
from tests.integration.h2o.nodes import ENVIRONMENT, Nodes, wait_until

pytestmark = pytest.mark.integration

DETECTED_S = 5.0
PAUSE_S = 8.0
SAME = 1e-6


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def nodes(etcd: EtcdCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Nodes(tmp_path_factory.mktemp("h2o"), etcd.clients, 3) as nodes:
        wait_until(lambda: nodes.ask("h2o-0", "/ready")[0] == 503, 20.0, "the first node answers")
        nodes.wait_ready()
        yield nodes


@pytest.fixture(scope="module")
def cluster(etcd: EtcdCluster) -> Iterator[H2OCluster]:
    client = EtcdClient(etcd.clients)
    yield H2OCluster(client, ENVIRONMENT)
    client.close()


@pytest.fixture(scope="module")
def undisturbed(
    nodes: Nodes, cluster: H2OCluster, flights: FlightFiles, tmp_path_factory: pytest.TempPathFactory
) -> TrainedModel:
    epoch = nodes.epoch()
    model = run(spec(flights), cluster, tmp_path_factory.mktemp("undisturbed"))
    assert nodes.epoch() == epoch
    return model


def spec(flights: FlightFiles) -> SplitSpec:
    return SplitSpec(train_csv=flights.train, test_csv=flights.test, seed=5, version="v5")


def command(pid: int) -> list[str]:
    """The process's arguments; empty when it is dead."""
    try:
        return [word for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") if word]
    except FileNotFoundError:
        return []


def building(nodes: Nodes) -> bool:
    """Whether a model is being built on the cloud, and not yet done."""
    try:
        jobs = urllib3.request("GET", f"{nodes.url('h2o-0')}/3/Jobs", timeout=2.0, retries=False).json().get("jobs", [])
    except (urllib3.exceptions.HTTPError, ValueError):
        return False  # a node that is not up yet says so in other words
    return any(job["status"] == "RUNNING" and "GBM" in job["description"] for job in jobs)


def test_the_nodes_tell_their_memory_and_elect_one_keeper(nodes: Nodes) -> None:
    answers = {name: nodes.ask(name, "/status")[1] for name in nodes.names}
    assert [answer["elected"] for answer in answers.values()].count(True) == 1
    for answer in answers.values():
        assert answer["heap_mb"] + answer["native_mb"] == answer["memory_mb"]
        assert f"-Xmx{answer['heap_mb']}m" in command(answer["pid"])
        assert answer["running_heap_mb"] == answer["heap_mb"]
        assert f"bw-{answer['epoch']}" in command(answer["pid"])


def test_a_stopped_node_is_not_taken_for_a_dead_one(nodes: Nodes) -> None:
    """A full collection or a starved core looks like this."""
    epoch, victim = nodes.epoch(), next(name for name in nodes.names if name != nodes.keeper())
    jvms = {name: nodes.jvm(name) for name in nodes.names}
    nodes.signal_jvm(victim, signal.SIGSTOP)
    try:
        paused = time.monotonic()
        wait_until(lambda: not nodes.ready(), 5.0, "the pause is noticed")
        time.sleep(max(0.0, PAUSE_S - (time.monotonic() - paused)))
        assert ") T " in Path(f"/proc/{jvms[victim]}/stat").read_text()
    finally:
        nodes.signal_jvm(victim, signal.SIGCONT)
    nodes.wait_ready(10.0)
    assert nodes.epoch() == epoch
    assert {name: nodes.jvm(name) for name in nodes.names} == jvms


def test_a_killed_node_in_mid_training_ends_in_an_equal_model(
    nodes: Nodes, cluster: H2OCluster, flights: FlightFiles, undisturbed: TrainedModel, tmp_path: Path
) -> None:
    """The one that dies is the elected keeper's, with its agent: the hardest case."""
    epoch, victim = nodes.epoch(), nodes.keeper()
    done: list[TrainedModel] = []
    told: list[str] = []
    job = threading.Thread(target=lambda: done.append(run(spec(flights), cluster, tmp_path, tell=told.append)))
    job.start()
    wait_until(lambda: building(nodes), 30.0, "a model is being built")
    jvm = nodes.jvm(victim)
    killed_ns = time.monotonic_ns()
    nodes.processes[victim].kill()
    nodes.processes[victim].wait(10)
    wait_until(lambda: not command(jvm), 5.0, "the JVM died with its agent")
    nodes.start(victim)
    job.join(120.0)
    assert not job.is_alive()
    assert [model.card.version for model in done] == ["v5"]
    raised = nodes.events("h2o-keeper", "raised")[-1]
    assert (raised.t_ns - killed_ns) / 1e9 < DETECTED_S
    assert nodes.epoch() == epoch + 1
    assert any("runs again" in line for line in told)
    before, after = undisturbed.card, done[0].card
    for name in ("auc", "logloss", "prior"):
        assert abs(getattr(before.metrics, name) - getattr(after.metrics, name)) <= SAME
    assert (before.rows, before.window, before.features) == (after.rows, after.window, after.features)
    for one, other in zip(undisturbed.golden.rows, done[0].golden.rows, strict=True):
        assert one.features == other.features
        assert abs(one.probability - other.probability) <= SAME
    nodes.wait_ready()


def test_a_node_that_returns_without_its_disk_is_not_taken_back(tmp_path: Path) -> None:
    """As the pod that replaces a lost one: its cloud held the old one's address, and no keeper saw the death."""
    with EtcdCluster(tmp_path / "etcd", 1) as etcd, Nodes(tmp_path, etcd.clients, 1) as alone:
        alone.wait_ready()
        epoch = alone.epoch()
        alone.processes["h2o-0"].kill()
        alone.processes["h2o-0"].wait(10)
        shutil.rmtree(tmp_path / "h2o-0")
        alone.start("h2o-0")

        wait_until(lambda: alone.ask("h2o-0", "/status")[1].get("epoch") == epoch + 1, 60.0, "the next epoch is raised")
        alone.wait_ready()

        assert alone.events("h2o-keeper", "raised")[0].data["why"] == "process_exited"


def test_a_node_that_etcd_does_not_answer_is_not_ready_and_nothing_is_restarted(
    etcd: EtcdCluster, nodes: Nodes
) -> None:
    nodes.wait_ready()
    epoch = nodes.epoch()
    etcd.freeze(0)
    try:
        for name in nodes.names:
            status, answer = nodes.ask(name, "/ready")
            assert status == 503
            assert "no etcd server answered" in answer["reason"]
    finally:
        etcd.thaw(0)
    nodes.wait_ready()
    assert nodes.epoch() == epoch


def test_nodes_that_cannot_start_raise_an_alarm_that_says_why(
    etcd: EtcdCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EtcdCluster(tmp_path / "etcd", 1) as own, Nodes(tmp_path, own.clients, 1, heap_mb=1) as broken:
        wait_until(lambda: broken.ask("h2o-0", "/status")[1].get("state") == "alarm", 40.0, "the alarm")
        status, answer = broken.ask("h2o-0", "/ready")
        assert status == 503
        assert "Too small" in answer["reason"]
        monkeypatch.setattr("services.h2o.cluster.ALARM_S", 0.5)
        too_small = pytest.raises(ClusterUnavailable, match=r"after \d+ s: bw-\d+ is alarm .*Too small")
        with contextlib.closing(EtcdClient(own.clients)) as client, too_small:
            H2OCluster(client, ENVIRONMENT).wait_whole(timeout_s=60.0)
        raised = broken.events("h2o-keeper", "raised")
        pauses = [(after.t_ns - before.t_ns) / 1e9 for before, after in itertools.pairwise(raised)]
        assert pauses == sorted(pauses), "each attempt waits longer than the one before"
