"""What the environment refuses, writes down first and concludes; the cluster is a fake that only lists."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.environment import EnvironmentFault, FaultRefused, NodeAnswer, PodId, ProcessId
from infra.kubernetes import strike, through
from infra.kubernetes.environment import KubernetesEnvironment
from infra.kubernetes.plan import CHAOS_LABEL, KubernetesPlan
from infra.kubernetes.pod import Pod
from infra.kubernetes.reach import Reach
from tests.integration.coordination.etcd_cluster import free_ports
from tests.unit.infra.kubernetes.pods import plan, pod, services, shard_pods

VICTIMS = (ProcessId(7, 70, "postgres", "uid-of-shard-0-0"), ProcessId(8, 80, "patroni", "uid-of-shard-0-0"))


class FakeCluster:
    """Lists what it is told to list."""

    def __init__(self) -> None:
        jobs = [pod("load-x", "load", job="load"), pod("train-x", "mage", job="train")]
        self.listed: list[dict[str, Any]] = [*shard_pods(), pod("api-abc", "api"), *jobs]
        self.labels = {"app.kubernetes.io/instance": "testing", CHAOS_LABEL: "enabled"}
        self.denied: set[str] = set()

    def space(self) -> dict[str, Any]:
        return {"metadata": {"labels": self.labels}}

    def pods(self, selector: str) -> list[dict[str, Any]]:
        return self.listed

    def workloads(self, selector: str) -> list[dict[str, Any]]:
        labels = {"app.kubernetes.io/component": "api"}
        return [{"metadata": {"labels": labels}, "spec": {"replicas": 2}}]

    def may(self, verb: str, group: str, resource: str, name: str = "") -> bool:
        return f"{verb} {resource} {name}".strip() not in self.denied


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def environment(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesEnvironment:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = plan()
    found = KubernetesEnvironment(made)
    (closed,) = free_ports(1)
    reached = services(made)
    for service in reached:
        for port in service["spec"]["ports"]:
            port["nodePort"] = closed
    pods = [Pod.of({**each, "status": {**each["status"], "hostIP": "127.0.0.1"}}) for each in shard_pods()]
    found.__dict__ |= {"cluster": cluster, "reach": Reach.find(made, found.files, reached, pods)}
    return found


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch, environment: KubernetesEnvironment) -> list[str]:
    """Members whose processes were killed; checks that the undo lay on disk by then."""
    done: list[str] = []

    def kill(_: object, victim: Pod, scope: str, *, hold: bool) -> strike.Struck:
        assert environment.files.undo_dir.joinpath(f"{victim.name}.start.json").exists()
        done.append(f"{victim.name} {scope} {hold}")
        # a member takes the command that strikes it along: nobody is left to count
        return strike.Struck(123, VICTIMS, None if scope == "member" else 0)

    monkeypatch.setattr(strike, "kill_processes", kill)
    monkeypatch.setattr(strike, "look", lambda *_: strike.Seen(0, (), True))
    monkeypatch.setattr(strike, "release", lambda _, victim: done.append(f"release {victim.name}"))
    return done


def test_members_are_pods_and_jobs_are_none(environment: KubernetesEnvironment) -> None:
    assert [member.name for member in environment.members()] == ["api-abc", "shard-0-0", "shard-0-1", "shard-0-2"]
    assert [member.name for member in environment.members("postgres")] == ["shard-0-0", "shard-0-1", "shard-0-2"]
    assert environment.members("postgres/shard-0")[0].dsn is not None


def test_what_runs_is_told_by_images_and_their_digests(
    environment: KubernetesEnvironment, cluster: FakeCluster
) -> None:
    assert environment.versions() == {"image of api": "api:1", "image of postgres": "postgres:1"}
    replica = next(each for each in cluster.listed if each["metadata"]["name"] == "api-abc")
    replica["status"]["containerStatuses"][0]["imageID"] = "registry.example.org/api@sha256:0a1b"
    cluster.listed.append(pod("api-xyz", "api", waiting="ImagePullBackOff"))
    cluster.listed[0]["status"]["containerStatuses"][0]["image"] = "postgres:2"
    assert environment.versions() == {
        "image of api": "api:1 (sha256:0a1b)",
        "image of postgres": "postgres:1 and postgres:2",
    }


def test_a_server_dies_in_its_living_pod_and_is_proven_dead(
    environment: KubernetesEnvironment, killed: list[str]
) -> None:
    proof = environment.kill("shard-0-0", scope="server", hold=True)
    assert killed == ["shard-0-0 server True"]
    assert (proof.t_ns, proof.processes, proof.pod, proof.hold) == (123, VICTIMS, None, True)
    assert (proof.proven, proof.evidence) == (True, "0 of 2 processes are left")
    proven, evidence = environment.is_down("shard-0-0", VICTIMS)
    assert proven
    assert "2 of 2 processes gone" in evidence
    assert "accepts no connection" in evidence
    assert environment.heal() == ["start shard-0-0"]
    assert killed[-1] == "release shard-0-0"
    assert environment.heal() == []


def test_a_member_that_dies_takes_its_pod_with_it(
    environment: KubernetesEnvironment, cluster: FakeCluster, killed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(_: object, victim: Pod) -> int:
        cluster.listed[0]["metadata"]["uid"] = "another"
        return 5

    monkeypatch.setattr(strike, "delete_pod", replace)
    proof = environment.kill("shard-0-0", scope="member", hold=True)
    assert proof.pod == PodId("shard-0-0", "uid-of-shard-0-0")
    assert proof.proven
    assert "pod uid-of-shard-0-0 is gone, another has its name" in proof.evidence


def test_a_pod_that_stayed_is_no_proof(environment: KubernetesEnvironment, killed: list[str]) -> None:
    down, evidence = environment.is_down("shard-0-0", VICTIMS, PodId("shard-0-0", "uid-of-shard-0-0"))
    assert not down
    assert "is still there" in evidence


def test_processes_that_live_are_no_proof(
    environment: KubernetesEnvironment, killed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strike, "look", lambda *_: strike.Seen(1, VICTIMS[:1], True))
    down, evidence = environment.is_down("shard-0-0", VICTIMS)
    assert not down
    assert "1 of 2 processes gone" in evidence


def test_where_no_process_was_found_nothing_is_left_to_undo(
    environment: KubernetesEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object, **__: object) -> strike.Struck:
        raise FaultRefused("shard-0-0 runs no server")

    monkeypatch.setattr(strike, "kill_processes", nobody)
    with pytest.raises(FaultRefused, match="runs no server"):
        environment.kill("shard-0-0", scope="server", hold=True)
    assert environment.heal() == []


def test_a_kill_that_broke_off_stays_to_be_undone(
    environment: KubernetesEnvironment, killed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> strike.Struck:
        raise EnvironmentFault("the command in shard-0-0/warden broke off")

    monkeypatch.setattr(strike, "kill_processes", broken)
    with pytest.raises(EnvironmentFault, match="broke off"):
        environment.kill("shard-0-0", scope="server", hold=True)
    assert environment.heal() == ["start shard-0-0"]


def test_faults_need_the_topology_the_namespace_and_the_account(
    environment: KubernetesEnvironment, cluster: FakeCluster
) -> None:
    with pytest.raises(FaultRefused, match="faults on redis are not allowed in testing"):
        environment.admit_faults("redis")
    environment.admit_faults("postgres/shard-0")
    cluster.denied = {"delete pods shard-0-1"}
    with pytest.raises(FaultRefused, match=r"may not delete pods shard-0-1 in breakwater-testing: use experiment-r"):
        environment.admit_faults("postgres")
    del cluster.labels[CHAOS_LABEL]
    with pytest.raises(FaultRefused, match="has not opted in to faults"):
        environment.admit_faults("postgres")
    environment.name = "production"
    with pytest.raises(FaultRefused, match="production takes no faults"):
        environment.admit_faults("postgres")


def test_what_kubernetes_cannot_do_is_refused(environment: KubernetesEnvironment) -> None:
    assert environment.capabilities() == {"kill", "hold"}
    with pytest.raises(FaultRefused, match="cannot pause shard-0-0"):
        environment.pause("shard-0-0")
    with pytest.raises(FaultRefused, match=r"faults on api are not allowed in testing: .*components: .*postgres"):
        environment.kill("api-abc", scope="member", hold=True)
    with pytest.raises(FaultRefused, match="cannot kill only the patroni of shard-0-0"):
        environment.kill("shard-0-0", scope="patroni", hold=False)
    with pytest.raises(EnvironmentFault, match=r"no member 'shard-9-9' in testing; members: api-abc, shard-0-0"):
        environment.kill("shard-9-9", scope="server", hold=True)


def test_what_has_too_few_pods_is_not_healthy(environment: KubernetesEnvironment) -> None:
    lines = {line.member: line for line in environment.health()}
    assert lines["api-abc"].healthy
    assert lines["api"].state == "1 of 2 pods are there"
    assert lines["etcd"].state == "0 of 1 pods are there"
    assert lines["shard-0-0"].state == "ready, but its Patroni cannot be reached from here"
    with pytest.raises(EnvironmentFault, match=r"shard-0-0 of testing is not healthy after 0 s"):
        environment.wait_ready(timeout_s=0)


def test_a_replica_without_a_model_says_so(environment: KubernetesEnvironment, cluster: FakeCluster) -> None:
    assert environment.obstacle("api-abc") is None
    cluster.listed[3]["status"]["conditions"][0]["status"] = "False"
    assert environment.obstacle("api-abc") == "not ready"


class Inside:
    """What is asked from within pods: which container ran the command, and what it says; `gone` run none."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.answers: list[tuple[int, str] | None] = []
        self.gone: set[str] = set()

    def command(self, pod: str, container: str, words: list[str]) -> Inside:
        self.asked.append((pod, container, *words[3:]))
        if pod in self.gone:
            raise EnvironmentFault(f"{pod} is gone")
        return self

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None: ...

    def hear(self, *, timeout_s: float) -> dict[str, Any]:
        return {"answers": self.answers}


@pytest.fixture
def inside(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Inside:
    made = Inside()
    monkeypatch.setattr(cluster, "command", made.command, raising=False)
    return made


def test_what_a_replica_counts_is_asked_from_a_shards_pod(
    environment: KubernetesEnvironment, cluster: FakeCluster, inside: Inside
) -> None:
    """In a replica's own pod no experiment may run a command."""
    inside.answers = [(200, "counts")]
    cluster.listed[3]["status"]["podIP"] = "10.244.1.7"
    assert environment.metrics("api-abc") == "counts"
    assert inside.asked == [("shard-0-2", "warden", "http://10.244.1.7:8080/metrics")]
    inside.gone.add("shard-0-2")
    assert environment.metrics("api-abc") == "counts", "a member that a fault took is passed over"
    assert inside.asked[-1][0] == "shard-0-1"
    inside.gone |= {"shard-0-0", "shard-0-1"}
    with pytest.raises(EnvironmentFault, match="from within any member of a shard: shard-0-0 is gone"):
        environment.metrics("api-abc")
    inside.gone.clear()
    for nothing in ((503, "not yet"), None):
        inside.answers = [nothing]
        assert environment.metrics("api-abc") is None
    del cluster.listed[3]["status"]["podIP"]
    assert environment.metrics("api-abc") is None
    cluster.listed[3]["status"]["podIP"] = "10.244.1.7"
    del cluster.listed[:3]
    with pytest.raises(EnvironmentFault, match="from within any member of a shard: none of them runs"):
        environment.metrics("api-abc")


def test_nodes_of_h2o_are_asked_all_at_once_from_a_shards_pod(
    environment: KubernetesEnvironment, cluster: FakeCluster, inside: Inside
) -> None:
    cluster.listed += [pod("h2o-0", "h2o"), pod("h2o-1", "h2o"), pod("h2o-2", "h2o")]
    cluster.listed[-3]["status"]["podIP"] = "10.244.1.8"
    cluster.listed[-2]["status"]["podIP"] = "fd00::9"
    inside.answers = [(503, '{"ready": false}'), None]
    assert environment.h2o_answers("/ready") == {
        "h2o-0": NodeAnswer(503, {"ready": False}),
        "h2o-1": None,
        "h2o-2": None,
    }
    assert inside.asked == [
        ("shard-0-2", "warden", "http://10.244.1.8:8082/ready", "http://[fd00::9]:8082/ready"),
    ]
    inside.answers = [(200, "[]"), (200, "no JSON")]
    assert [answer and answer.said for answer in environment.h2o_answers("/status").values()] == [{}, {}, None]
    inside.gone |= {"shard-0-0", "shard-0-1", "shard-0-2"}
    with pytest.raises(EnvironmentFault, match="from within any member of a shard: shard-0-0 is gone"):
        environment.h2o_answers("/ready")


def test_no_node_of_h2o_is_asked_where_no_command_may_run(environment: KubernetesEnvironment, inside: Inside) -> None:
    chaos = environment.plan.topology.chaos.model_copy(update={"components": ["h2o"]})
    topology = environment.plan.topology.model_copy(update={"chaos": chaos})
    environment.plan = KubernetesPlan(topology)
    with pytest.raises(EnvironmentFault, match="postgres among its components"):
        environment.h2o_answers("/ready")
    assert inside.asked == []


def test_a_node_of_h2o_is_taken_with_its_pod_and_leaves_nothing_to_undo(
    environment: KubernetesEnvironment, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.listed.append(pod("h2o-1", "h2o"))

    def replace(_: object, victim: Pod) -> int:
        cluster.listed[-1] = pod("h2o-1", "h2o", ready=False)
        cluster.listed[-1]["metadata"]["uid"] = "another"
        return 5

    monkeypatch.setattr(strike, "delete_pod", replace)
    with pytest.raises(FaultRefused, match="cannot kill only the server of h2o-1; nothing was done"):
        environment.kill("h2o-1", scope="server", hold=False)
    with pytest.raises(FaultRefused, match="cannot keep down h2o-1; nothing was done"):
        environment.kill("h2o-1", scope="member", hold=True)
    proof = environment.kill("h2o-1", scope="member", hold=False)
    assert (proof.t_ns, proof.pod, proof.proven) == (5, PodId("h2o-1", "uid-of-h2o-1"), True)
    assert proof.evidence == "pod uid-of-h2o-1 is gone, another has its name"
    assert environment.heal() == []


def test_questions_from_inside_tell_refusals_from_silence() -> None:
    """The program as pods run it, against a server that answers, one that refuses, and none."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ready" else 503)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port, (closed,) = server.server_address[1], free_ports(1)
        urls = [
            through.url("127.0.0.1", number, path) for number, path in ((port, "/ready"), (port, "/no"), (closed, "/"))
        ]
        done = subprocess.run(
            [sys.executable, "-c", through.PROGRAM, *urls], capture_output=True, check=True, timeout=60
        )
        server.shutdown()
    assert json.loads(done.stdout) == {"answers": [[200, "/ready"], [503, "/no"], None]}


def test_a_damaged_undo_file_is_named(environment: KubernetesEnvironment) -> None:
    environment.files.make()
    (environment.files.undo_dir / "shard-0-0.start.json").write_text("{")
    with pytest.raises(EnvironmentFault, match=r"shard-0-0\.start\.json is damaged"):
        environment.heal()


def test_the_undo_says_what_it_undoes(environment: KubernetesEnvironment, killed: list[str]) -> None:
    environment.kill("shard-0-1", scope="server", hold=True)
    undo = json.loads((environment.files.undo_dir / "shard-0-1.start.json").read_text())
    assert undo == {"action": "start", "member": "shard-0-1"}
