"""What each workload promises: who reads its configuration can, its probes mean what they say, nothing is lost."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from infra.certificates import Subject, issue, make_authority
from infra.kubernetes.groundwork import runner_rights
from infra.kubernetes.plan import EXPERIMENT_FLOWS, FLOWS, KubernetesPlan
from infra.policy.model import Environment
from infra.policy.rules import judge
from infra.topology import TopologyError
from services.api.metrics import Metrics
from services.api.settings import load_settings
from services.etl.__main__ import LoadConfig
from services.featurestore.provision import ProvisionConfig
from services.postgres import warden
from services.postgres.configure import MemberSettings, configure
from services.registry.reconciler import ReconcilerConfig
from tests.unit.infra.kubernetes.conftest import configuration, one, pod, shipped
from tests.unit.infra.kubernetes.pods import plan

Rendered = Callable[[str], list[dict[str, Any]]]


def test_services_read_what_is_rendered_for_them(tmp_path: Path, rendered: Rendered) -> None:
    made = rendered("staging")
    (tmp_path / "api.json").write_text(json.dumps(configuration(made, "api", "api.json")))
    environ = {"BREAKWATER_API_CONFIG": str(tmp_path / "api.json"), "BREAKWATER_REPLICA": "api-7f-x"}
    settings = load_settings(environ)
    assert settings.replica == "api-7f-x"
    assert settings.redis.root_certificate == Path("/run/tls/ca.crt")
    assert "sslmode=verify-full" in settings.shards[0].conninfo("read-write", application_name="test")
    assert len(LoadConfig.model_validate(configuration(made, "load", "job.json")).shards) == 2
    migrate = ProvisionConfig.model_validate(configuration(made, "migrate", "job.json"))
    assert {admin.user for admin in migrate.admin} == {"postgres"}
    assert {owner.database: owner.shards for owner in migrate.owners} == {
        "features": (0, 1),
        "model_registry": (0,),
        "mage": (0,),
    }
    assert migrate.registry.dbname == "model_registry"
    reconciler = ReconcilerConfig.model_validate(configuration(made, "registry", "reconciler.json"))
    assert reconciler.database == migrate.registry
    assert reconciler.artifacts == settings.artifacts
    assert not settings.chaos, "no experiment outside could ask a replica for a fault"


def test_a_pod_makes_its_own_patroni_and_warden_configuration(tmp_path: Path, rendered: Rendered) -> None:
    said = configuration(rendered("staging"), "shard-1", "member.json")
    for name in ("postgres_superuser", "postgres_replication", "postgres_rewind", "patroni_rest"):
        (tmp_path / name).write_text(f"{name}-value\n")
    settings = MemberSettings.model_validate(
        {**said, "directory": str(tmp_path), "secrets_dir": str(tmp_path), "bin_dir": said["bin_dir"]}
    )
    configure(settings, "shard-1-2")
    configure(settings, "shard-1-2")  # as after a restart
    patroni = yaml.safe_load((tmp_path / "patroni.yaml").read_text())
    assert (tmp_path / "patroni.yaml").stat().st_mode & 0o777 == 0o600
    assert patroni["name"] == "shard-1-2"
    assert patroni["etcd3"]["protocol"] == "https"
    assert patroni["postgresql"]["parameters"]["ssl"] is True
    remote = [line.split() for line in patroni["postgresql"]["pg_hba"] if not line.startswith("local")]
    assert remote
    assert {(line[0], line[-1]) for line in remote} == {("hostssl", "scram-sha-256")}
    assert patroni["postgresql"]["parameters"].get("password_encryption", "scram-sha-256") == "scram-sha-256"
    assert patroni["postgresql"]["authentication"]["replication"]["sslmode"] == "verify-full"
    assert patroni["bootstrap"]["dcs"]["synchronous_mode_strict"] is True
    config = warden.load(tmp_path / "warden.json")
    assert config.rest_url == "https://127.0.0.1:8008"
    assert config.member == "shard-1-2"


def test_haproxy_takes_the_edges_configuration(tmp_path: Path, rendered: Rendered) -> None:
    text = one(rendered("production"), "ConfigMap", "edge")["data"]["haproxy.cfg"]
    now = datetime.datetime.now(datetime.UTC)
    (tmp_path / "edge.pem").write_bytes(b"".join(issue(make_authority("ca", now), Subject("edge", ["edge"]), now, 1)))
    (tmp_path / "haproxy.cfg").write_text(text.replace("/run/tls", str(tmp_path)))
    done = subprocess.run(
        ["/usr/sbin/haproxy", "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "server-template api- 23 " in text
    assert " agent-check agent-port 8081 " in text
    assert "if { path,url_dec -m beg /chaos /metrics /readyz }" in text
    assert '"code": "no_replica"' in text


def test_the_warden_outlives_the_server_and_sees_its_processes(rendered: Rendered) -> None:
    spec = pod(rendered("production"), "StatefulSet", "shard-0")
    sidecars = [c["name"] for c in spec["initContainers"] if c.get("restartPolicy") == "Always"]
    assert sidecars == ["warden"]
    assert [c["name"] for c in spec["containers"]] == ["server"]
    assert spec["shareProcessNamespace"] is True


def test_a_primary_steps_down_and_replicas_drain_before_they_end(rendered: Rendered) -> None:
    made = rendered("production")
    server = pod(made, "StatefulSet", "shard-0")["containers"][0]
    assert "services.postgres.step_down" in server["lifecycle"]["preStop"]["exec"]["command"]
    for name in ("api", "edge"):
        spec = pod(made, "Deployment", name)
        assert (
            0
            < spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            < spec["terminationGracePeriodSeconds"]
        )
        assert one(made, "Deployment", name)["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_probes_mean_what_they_say(rendered: Rendered) -> None:
    made = rendered("production")
    patroni = pod(made, "StatefulSet", "shard-0")["containers"][0]
    assert patroni["readinessProbe"]["httpGet"]["path"] == "/readiness"
    assert patroni["livenessProbe"]["httpGet"]["path"] == "/liveness"
    node = pod(made, "StatefulSet", "h2o")["containers"][0]
    assert node["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 8082, "scheme": "HTTP"}
    redis, registry, mage = (pod(made, "Deployment", name)["containers"][0] for name in ("redis", "registry", "mage"))
    ping = redis["readinessProbe"]["exec"]["command"]
    assert ping[-1] == "ping"
    assert ping[ping.index("--user") + 1] == "prober", "no password stands in a probe"
    assert "tcpSocket" in redis["livenessProbe"]
    assert registry["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 8083, "scheme": "HTTP"}
    assert mage["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 8084, "scheme": "HTTP"}
    assert {each["livenessProbe"]["tcpSocket"]["port"] for each in (registry, mage)} == {8083, 8084}
    for kind, name in (("Deployment", "api"), ("StatefulSet", "etcd"), ("StatefulSet", "h2o"), ("Deployment", "edge")):
        assert "tcpSocket" in pod(made, kind, name)["containers"][0]["livenessProbe"]


def test_the_autoscaler_owns_the_apis_replicas(rendered: Rendered) -> None:
    made = rendered("production")
    scaler = one(made, "HorizontalPodAutoscaler", "api")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 20)
    assert scaler["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert len(scaler["metrics"]) == 1
    assert "replicas" not in one(made, "Deployment", "api")["spec"]


@pytest.mark.parametrize(
    ("members", "synchronous", "may_leave"),
    [
        *((members, "quorum", (members - 1) // 2) for members in range(3, 10)),
        (2, "off", 1),
        (3, "off", 1),
        (5, "off", 2),
    ],
)
def test_a_drain_leaves_a_majority_of_a_shard(members: int, synchronous: str, may_leave: int) -> None:
    from infra.kubernetes.render import manifests  # noqa: PLC0415

    topology = plan().topology
    patroni = topology.postgres.patroni.model_copy(update={"synchronous": synchronous})
    shard = topology.postgres.model_copy(update={"members_per_shard": members, "patroni": patroni})
    made = manifests(KubernetesPlan(topology.model_copy(update={"postgres": shard})))
    assert one(made, "PodDisruptionBudget", "shard-0")["spec"]["maxUnavailable"] == may_leave
    assert judge(made, Environment("testing")) == []


SCRAPER = {"namespace": "monitoring", "labels": {"app": "prometheus"}}


def test_requests_in_flight_scale_only_where_somebody_collects_and_serves_them() -> None:
    """While one metric is missing the autoscaler takes no replica away: on by the topology's word alone."""
    from infra.kubernetes.render import manifests  # noqa: PLC0415

    made = manifests(plan(scraper=SCRAPER, api_in_flight_target=8))
    metrics = one(made, "HorizontalPodAutoscaler", "api")["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["Resource", "Pods"]
    asked = metrics[1]["pods"]
    assert asked["target"] == {"type": "AverageValue", "averageValue": "8"}
    told = generate_latest(Metrics().registry).decode()
    assert f"# TYPE {asked['metric']['name']} gauge" in told, "no replica counts what the autoscaler asks for"
    entry = {
        "from": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
                "podSelector": {"matchLabels": {"app": "prometheus"}},
            }
        ],
        "ports": [{"port": 8080, "protocol": "TCP"}],
    }
    assert entry in one(made, "NetworkPolicy", "api")["spec"]["ingress"]
    assert judge(made, Environment("testing")) == []


def test_a_scraper_alone_scales_nothing() -> None:
    from infra.kubernetes.render import manifests  # noqa: PLC0415

    made = manifests(plan(scraper=SCRAPER, runners=[]))
    assert len(one(made, "HorizontalPodAutoscaler", "api")["spec"]["metrics"]) == 1
    assert len(one(made, "NetworkPolicy", "api")["spec"]["ingress"]) == 2
    with pytest.raises(TopologyError, match=r"api_in_flight_target needs scraper"):
        plan(api_in_flight_target=8)


def test_a_drained_node_keeps_no_replica_from_the_others(rendered: Rendered) -> None:
    """Counted as an empty place it would allow every other node one replica and no second."""
    for name in ("api", "edge"):
        spread = pod(rendered("production"), "Deployment", name)["topologySpreadConstraints"]
        assert [(each["topologyKey"], each["nodeTaintsPolicy"]) for each in spread] == [
            ("topology.kubernetes.io/zone", "Honor"),
            ("kubernetes.io/hostname", "Honor"),
        ]


def test_what_kubernetes_would_wait_for_in_vain_is_annotated(rendered: Rendered) -> None:
    made = rendered("production")
    h2o = one(made, "StatefulSet", "h2o")
    assert h2o["spec"]["updateStrategy"]["type"] == "OnDelete"
    assert h2o["metadata"]["annotations"]["pulumi.com/waitFor"] == "jsonpath={.status.readyReplicas}=3"
    assert one(made, "Deployment", "api")["metadata"]["annotations"]["pulumi.com/waitFor"] == "condition=Progressing"


def test_environments_differ_where_they_should(rendered: Rendered) -> None:
    staging, production = rendered("staging"), rendered("production")
    assert "breakwater.dev/chaos" in one(staging, "Namespace", "breakwater-staging")["metadata"]["labels"]
    assert "breakwater.dev/chaos" not in one(production, "Namespace", "breakwater-production")["metadata"]["labels"]
    hard = pod(production, "StatefulSet", "etcd")["affinity"]["podAntiAffinity"]
    assert list(hard) == ["requiredDuringSchedulingIgnoredDuringExecution"]
    assert len([m for m in production if m["kind"] == "StatefulSet"]) == 6
    assert one(staging, "Service", "edge")["spec"]["type"] == "NodePort"


def test_every_flow_is_open_at_both_ends_and_nothing_else(rendered: Rendered) -> None:
    made = rendered("staging")
    opened: set[tuple[str, str, int]] = set()
    for policy in (m for m in made if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] != "default-deny"):
        for rule in policy["spec"].get("ingress", []):
            for peer in rule["from"]:
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                outside = {"0.0.0.0/0": "clients", "10.0.0.0/8": "runners"}.get(peer.get("ipBlock", {}).get("cidr"))
                source = outside or labels["app.kubernetes.io/component"]
                opened |= {(source, policy["metadata"]["name"], port["port"]) for port in rule["ports"]}
    expected = {(flow.source, flow.target, port) for flow in (*FLOWS, *EXPERIMENT_FLOWS) for port in flow.ports}
    assert opened == expected
    left: set[tuple[str, str, int]] = set()
    for policy in (m for m in made if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] != "default-deny"):
        for rule in policy["spec"].get("egress", []):
            labels = rule["to"][0]["podSelector"]["matchLabels"]
            target = labels.get("app.kubernetes.io/component")
            if target:
                left |= {(policy["metadata"]["name"], target, port["port"]) for port in rule["ports"]}
    assert left == {flow for flow in expected if flow[0] not in {"clients", "runners"}}


def test_flows_are_those_that_the_configurations_name(rendered: Rendered) -> None:
    """Every host:port that a workload is told is one that its network rules let it reach."""
    made = rendered("staging")
    allowed = {(flow.source, flow.target, port) for flow in FLOWS for port in flow.ports}
    address = re.compile(r'([a-z0-9-]+)\.breakwater-staging\.svc\.cluster\.local(?::|",\s+"port": )(\d+)')
    found: set[tuple[str, str, int]] = set()
    for config in (m for m in made if m["kind"] == "ConfigMap"):
        source = config["metadata"]["labels"]["app.kubernetes.io/component"]
        for text in config["data"].values():
            found |= {(source, service, int(port)) for service, port in address.findall(text)}
    assert len(found) > 8
    assert found <= allowed


def test_one_more_replica_or_shard_changes_only_that() -> None:
    from infra.kubernetes.render import files, manifests  # noqa: PLC0415

    topology = shipped("staging").topology
    before = files(manifests(KubernetesPlan(topology)))
    api = topology.api.model_copy(update={"replicas": 4})
    scaled = files(manifests(KubernetesPlan(topology.model_copy(update={"api": api}))))
    assert {name for name in before if before[name] != scaled[name]} == {"13-horizontal-pod-autoscaler-api.yaml"}
    postgres = topology.postgres.model_copy(update={"shards": 3})
    wider = files(manifests(KubernetesPlan(topology.model_copy(update={"postgres": postgres}))))
    new = {name for name in wider if name not in before}
    assert {name.split("-", 1)[1].removesuffix(".yaml") for name in new} == {
        "config-map-shard-2",
        *(f"service-reach-shard-2-{member}" for member in range(3)),
        "pod-disruption-budget-shard-2",
        "stateful-set-shard-2",
    }
    changed = {name for name in before if before[name] != wider[name]}
    told = {"api", "load", "mage", "migrate"}
    assert changed == {f"06-config-map-{name}.yaml" for name in told} | {
        "02-role-experiment-runner.yaml",
        "12-deployment-api.yaml",
        "12-deployment-mage.yaml",
        "11-job-load.yaml",
        "11-job-migrate.yaml",
    }


def test_experiments_reach_each_member_only_where_somebody_runs_them(rendered: Rendered) -> None:
    staging = {m["metadata"]["name"]: m for m in rendered("staging") if m["kind"] == "Service"}
    reached = {name for name in staging if name.startswith("reach-")}
    assert reached == {
        *(f"reach-etcd-{i}" for i in range(3)),
        *(f"reach-shard-{shard}-{i}" for shard in range(2) for i in range(3)),
    }
    spec = staging["reach-shard-1-2"]["spec"]
    assert spec["selector"]["statefulset.kubernetes.io/pod-name"] == "shard-1-2"
    assert {port["name"]: port["port"] for port in spec["ports"]} == {"postgres": 5432, "patroni": 8008}
    assert spec["publishNotReadyAddresses"] is True
    assert not [m for m in rendered("production") if m["metadata"]["name"].startswith("reach-")]


def test_the_runner_may_do_what_its_faults_need_and_no_more(rendered: Rendered) -> None:
    """Commands for the shards' members by name, deletions for H2O's nodes as well; for everything else looks alone."""
    rules = one(rendered("staging"), "Role", "experiment-runner")["rules"]
    struck = [rule for rule in rules if not {"get", "list"} >= set(rule["verbs"])]
    members = {f"shard-{shard}-{member}" for shard in range(2) for member in range(3)}
    granted = {(*rule["resources"], *rule["verbs"]): set(rule["resourceNames"]) for rule in struck}
    nodes = {f"h2o-{node}" for node in range(3)}
    assert granted == {("pods", "delete"): members | nodes, ("pods/exec", "get", "create"): members}
    looked = {kind for rule in rules if rule not in struck for kind in rule["resources"]}
    assert looked == {"namespaces", "pods", "pods/log", "services", "statefulsets", "deployments"}


def test_a_runner_that_may_strike_nobody_may_run_no_command() -> None:
    """No name in a rule would mean every name."""
    chaos = plan().topology.chaos.model_copy(update={"components": []})
    rights = runner_rights(KubernetesPlan(plan().topology.model_copy(update={"chaos": chaos})))
    assert {verb for right in rights for verb in right.verbs} == {"get", "list"}
