"""Each rule catches what it forbids and passes what the repository ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.kubernetes.plan import KubernetesPlan
from infra.policy.model import KNOWN_KINDS, Environment
from infra.policy.rules import RULES, judge
from infra.topology import load
from tests.unit.infra.kubernetes.conftest import ROOT, one, pod

Manifests = list[dict[str, Any]]
Rendered = Callable[[str], Manifests]
PRODUCTION = Environment("production")


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_what_is_shipped_holds_every_rule(environment: str, rendered: Rendered) -> None:
    assert judge(rendered(environment), Environment(environment)) == []


@pytest.mark.parametrize(("directory", "environment"), [(ROOT, "local"), (ROOT / "tests" / "kubernetes", "cluster")])
def test_other_topologies_hold_them_as_soon_as_they_are_rendered(directory: Path, environment: str) -> None:
    """Local runs elsewhere; what it states must not break a rule where it is taken to a cluster."""
    from infra.kubernetes.render import manifests  # noqa: PLC0415

    topology = load(directory, environment)
    settings = topology.kubernetes or load(ROOT, "staging").kubernetes
    moved = topology.model_copy(update={"runtime": "kubernetes", "kubernetes": settings})
    assert judge(manifests(KubernetesPlan(moved)), Environment(environment)) == []


def api(made: Manifests) -> dict[str, Any]:
    container: dict[str, Any] = pod(made, "Deployment", "api")["containers"][0]
    return container


def latest(made: Manifests) -> None:
    api(made)["image"] = "registry.example.org/breakwater/api:latest"


def untagged(made: Manifests) -> None:
    pod(made, "StatefulSet", "shard-0")["initContainers"][0]["image"] = "registry.example.org:5000/breakwater/postgres"


def no_memory_limit(made: Manifests) -> None:
    del api(made)["resources"]["limits"]["memory"]


def lent_memory(made: Manifests) -> None:
    api(made)["resources"]["limits"]["memory"] = "9Gi"


def escalation(made: Manifests) -> None:
    del api(made)["securityContext"]["allowPrivilegeEscalation"]


def writable_root(made: Manifests) -> None:
    api(made)["securityContext"]["readOnlyRootFilesystem"] = False


def capabilities(made: Manifests) -> None:
    api(made)["securityContext"]["capabilities"] = {"add": ["SYS_PTRACE"], "drop": ["ALL"]}


def root(made: Manifests) -> None:
    del pod(made, "StatefulSet", "etcd")["securityContext"]["runAsNonRoot"]


def host_network(made: Manifests) -> None:
    pod(made, "StatefulSet", "etcd")["hostNetwork"] = True


def host_path(made: Manifests) -> None:
    pod(made, "StatefulSet", "etcd")["volumes"].append({"name": "node", "hostPath": {"path": "/"}})


def no_startup_probe(made: Manifests) -> None:
    del api(made)["startupProbe"]


def deadly_readiness(made: Manifests) -> None:
    api(made)["livenessProbe"] = api(made)["readinessProbe"]


def privileged(made: Manifests) -> None:
    api(made)["securityContext"]["privileged"] = True


def no_seccomp(made: Manifests) -> None:
    del pod(made, "Job", "migrate")["securityContext"]["seccompProfile"]


def host_processes(made: Manifests) -> None:
    pod(made, "Deployment", "mage")["hostPID"] = True


def no_cpu_limit(made: Manifests) -> None:
    del pod(made, "StatefulSet", "shard-0")["initContainers"][1]["resources"]["limits"]["cpu"]


def default_account(made: Manifests) -> None:
    pod(made, "Job", "load")["serviceAccountName"] = "default"


def unknown_account(made: Manifests) -> None:
    pod(made, "Job", "load")["serviceAccountName"] = "ghost"


def token(made: Manifests) -> None:
    del pod(made, "Job", "load")["automountServiceAccountToken"]


def all_verbs(made: Manifests) -> None:
    made.append({"kind": "Role", "metadata": {"name": "r", "namespace": SPACE}, "rules": [{"verbs": ["*"]}]})


def reads_secrets(made: Manifests) -> None:
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    made.append({"kind": "Role", "metadata": {"name": "r", "namespace": SPACE}, "rules": [rule]})


def any_pods_shell(made: Manifests) -> None:
    rule = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}
    made.append({"kind": "Role", "metadata": {"name": "r", "namespace": SPACE}, "rules": [rule]})


def any_pods_end(made: Manifests) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete"]}
    made.append({"kind": "Role", "metadata": {"name": "r", "namespace": SPACE}, "rules": [rule]})


def cluster_wide(made: Manifests) -> None:
    made.append({"kind": "ClusterRoleBinding", "metadata": {"name": "r", "namespace": SPACE}})


def no_grace(made: Manifests) -> None:
    del pod(made, "Deployment", "edge")["terminationGracePeriodSeconds"]


def killed_at_once(made: Manifests) -> None:
    pod(made, "Deployment", "edge")["terminationGracePeriodSeconds"] = 0


def password_in_clear(made: Manifests) -> None:
    api(made)["env"].append({"name": "REDIS_PASSWORD", "value": "hunter2"})


def secret_in_config(made: Manifests) -> None:
    one(made, "ConfigMap", "redis")["data"]["redis.conf"] += "requirepass ${secrets:redis}\n"


def leader_only(made: Manifests) -> None:
    node = pod(made, "StatefulSet", "h2o")["containers"][0]
    node["readinessProbe"]["httpGet"] = {"path": "/kubernetes/isLeaderNode", "port": 8080}


def one_node_only(made: Manifests) -> None:
    pod(made, "StatefulSet", "h2o")["containers"][0]["readinessProbe"]["httpGet"]["port"] = 54321


def heap_for_more(made: Manifests) -> None:
    node = pod(made, "StatefulSet", "h2o")["containers"][0]
    node["resources"] = {side: {"cpu": "4", "memory": "4Gi"} for side in ("requests", "limits")}


def no_quantity(made: Manifests) -> None:
    for side in ("requests", "limits"):
        api(made)["resources"][side]["memory"] = "much"


def greedy_heap(made: Manifests) -> None:
    data = one(made, "ConfigMap", "h2o")["data"]
    data["h2o-1.json"] = data["h2o-1.json"].replace('"heap_mb": 5734', '"heap_mb": 7000')


def no_budget(made: Manifests) -> None:
    made.remove(one(made, "PodDisruptionBudget", "shard-2"))


def generous_budget(made: Manifests) -> None:
    one(made, "PodDisruptionBudget", "etcd")["spec"]["maxUnavailable"] = 2


def budget_of_two_in_three(made: Manifests) -> None:
    one(made, "PodDisruptionBudget", "shard-2")["spec"]["maxUnavailable"] = 2


def blocking_budget(made: Manifests) -> None:
    one(made, "PodDisruptionBudget", "api")["spec"]["maxUnavailable"] = 0


def silent_budget(made: Manifests) -> None:
    del one(made, "PodDisruptionBudget", "api")["spec"]["unhealthyPodEvictionPolicy"]


def soft_zones(made: Manifests) -> None:
    pod(made, "StatefulSet", "etcd")["topologySpreadConstraints"][0]["whenUnsatisfiable"] = "ScheduleAnyway"


def one_zone(made: Manifests) -> None:
    del pod(made, "Deployment", "edge")["topologySpreadConstraints"][0]


def one_node(made: Manifests) -> None:
    del pod(made, "StatefulSet", "shard-0")["affinity"]


def spread_of_others(made: Manifests) -> None:
    constraint = pod(made, "StatefulSet", "etcd")["topologySpreadConstraints"][0]
    constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] = "redis"


def no_default_deny(made: Manifests) -> None:
    made.remove(one(made, "NetworkPolicy", "default-deny"))


def no_own_policy(made: Manifests) -> None:
    made.remove(one(made, "NetworkPolicy", "mage"))


def open_port(made: Manifests) -> None:
    del one(made, "NetworkPolicy", "redis")["spec"]["ingress"][0]["ports"]


def open_peer(made: Manifests) -> None:
    del one(made, "NetworkPolicy", "redis")["spec"]["ingress"][0]["from"]


def every_namespace(made: Manifests) -> None:
    one(made, "NetworkPolicy", "redis")["spec"]["ingress"][0]["from"] = [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}
    ]


def every_pod(made: Manifests) -> None:
    one(made, "NetworkPolicy", "redis")["spec"]["ingress"][0]["from"].append({"podSelector": {}})


def every_pod_of_another_namespace(made: Manifests) -> None:
    named = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}}
    one(made, "NetworkPolicy", "redis")["spec"]["egress"][0]["to"] = [named]


def every_address(made: Manifests) -> None:
    one(made, "NetworkPolicy", "redis")["spec"]["egress"][0]["to"] = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]


def any_port(made: Manifests) -> None:
    one(made, "NetworkPolicy", "redis")["spec"]["ingress"][0]["ports"] = [{"protocol": "TCP"}]


def nightly(made: Manifests) -> None:
    made.append({"kind": "CronJob", "metadata": {"name": "nightly", "namespace": SPACE}, "spec": {}})


def bare_pod(made: Manifests) -> None:
    made.append({"kind": "Pod", "metadata": {"name": "shell", "namespace": SPACE}, "spec": {"hostPID": True}})


def plain_redis(made: Manifests) -> None:
    data = one(made, "ConfigMap", "redis")["data"]
    data["redis.conf"] = data["redis.conf"].replace("port 0", "port 6378")


def old_tls(made: Manifests) -> None:
    data = one(made, "ConfigMap", "edge")["data"]
    data["haproxy.cfg"] = data["haproxy.cfg"].replace("ssl-min-ver TLSv1.3", "ssl-min-ver TLSv1.2")


def plain_etcd(made: Manifests) -> None:
    data = one(made, "ConfigMap", "load")["data"]
    assert "https://" in data["job.json"]
    data = one(made, "ConfigMap", "api")["data"]
    data["api.json"] = data["api.json"].replace("https://etcd-0", "http://etcd-0")


def unproven_job(made: Manifests) -> None:
    data = one(made, "ConfigMap", "migrate")["data"]
    data["job.json"] = data["job.json"].replace('"root_certificate"', '"certificate"')


def unproven_mage(made: Manifests) -> None:
    data = one(made, "ConfigMap", "mage")["data"]
    data.update({name: text.replace("https://etcd-", "etcd-") for name, text in data.items()})


def plain_h2o(made: Manifests) -> None:
    data = one(made, "ConfigMap", "h2o")["data"]
    nodes = {name: json.loads(text) for name, text in data.items()}
    data.update({name: json.dumps({**node, "certificates": None}) for name, node in nodes.items()})


def plain_init(made: Manifests) -> None:
    pod(made, "Job", "load")["initContainers"][0]["env"].append({"name": "FROM", "value": "http://elsewhere/data"})


def plain_command(made: Manifests) -> None:
    api(made)["command"] += ["--cache", "redis://redis:6379"]


def no_certificates_in_a_job(made: Manifests) -> None:
    spec = pod(made, "Job", "load")
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "tls"]


def no_certificates(made: Manifests) -> None:
    spec = pod(made, "StatefulSet", "etcd")
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "tls"]


def deleted_data(made: Manifests) -> None:
    one(made, "StatefulSet", "shard-0")["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = "Delete"


def data_in_pod(made: Manifests) -> None:
    del one(made, "StatefulSet", "etcd")["spec"]["volumeClaimTemplates"]


def two_owners(made: Manifests) -> None:
    one(made, "Deployment", "api")["spec"]["replicas"] = 3


def scales_nothing(made: Manifests) -> None:
    one(made, "HorizontalPodAutoscaler", "api")["spec"]["scaleTargetRef"]["name"] = "apy"


def opted_in(made: Manifests) -> None:
    one(made, "Namespace", "breakwater-production")["metadata"]["labels"]["breakwater.dev/chaos"] = "enabled"


def reached_server(made: Manifests) -> None:
    made.append({"kind": "Service", "metadata": {"name": "reach-etcd-0", "namespace": SPACE}})


def runner_rights(made: Manifests) -> None:
    made.append({"kind": "RoleBinding", "metadata": {"name": "experiment-runner", "namespace": SPACE}})


def blockable_api(made: Manifests) -> None:
    data = one(made, "ConfigMap", "api")["data"]
    data["api.json"] = json.dumps(json.loads(data["api.json"]) | {"chaos": True})


def silent_api(made: Manifests) -> None:
    data = one(made, "ConfigMap", "api")["data"]
    data["api.json"] = json.dumps({key: said for key, said in json.loads(data["api.json"]).items() if key != "chaos"})


def lax_namespace(made: Manifests) -> None:
    one(made, "Namespace", "breakwater-production")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = (
        "baseline"
    )


def elsewhere(made: Manifests) -> None:
    one(made, "Service", "redis")["metadata"]["namespace"] = "default"


SPACE = "breakwater-production"
BREACHES: list[tuple[str, Callable[[Manifests], None], str]] = [
    ("fixed-images", latest, "container api runs registry.example.org/breakwater/api:latest"),
    ("fixed-images", untagged, "container configure runs registry.example.org:5000/breakwater/postgres"),
    ("limits", no_memory_limit, "container api has no memory in limits"),
    ("limits", no_cpu_limit, "container warden has no cpu in limits"),
    ("limits", lent_memory, "may take 9Gi"),
    ("limits", no_quantity, "reserves much of memory"),
    ("no-privilege", privileged, "container api is privileged"),
    ("no-privilege", no_seccomp, "has no seccomp profile"),
    ("no-privilege", host_processes, "shares the node's pid namespace"),
    ("no-privilege", escalation, "container api may gain privileges"),
    ("no-privilege", writable_root, "container api may write to its root file system"),
    ("no-privilege", capabilities, "container api asks for capabilities"),
    ("no-privilege", root, "the pod may run as root"),
    ("no-privilege", host_network, "shares the node's network"),
    ("no-privilege", host_path, "mounts a path of the node"),
    ("probes", no_startup_probe, "container api has no startup probe"),
    ("probes", deadly_readiness, "killed by the same request"),
    ("own-account", default_account, "default account"),
    ("own-account", unknown_account, "account ghost does not exist"),
    ("own-account", token, "gets a token"),
    ("least-rights", all_verbs, "grants everything"),
    ("least-rights", reads_secrets, "reads or changes Secrets"),
    ("least-rights", any_pods_shell, "may run commands in any pod"),
    ("least-rights", any_pods_end, "may delete any pod"),
    ("least-rights", cluster_wide, "beyond the environment's namespace"),
    ("grace", no_grace, "says not how long"),
    ("grace", killed_at_once, "takes 0 s"),
    ("no-secret-in-clear", password_in_clear, "has REDIS_PASSWORD in clear"),
    ("no-secret-in-clear", secret_in_config, "redis.conf holds a secret"),
    ("consensus-readiness", leader_only, "asks /kubernetes/isLeaderNode on 8080"),
    ("consensus-readiness", one_node_only, "asks /ready on 54321"),
    ("h2o-memory", greedy_heap, "h2o-1.json gives the JVM 7000 MB"),
    ("h2o-memory", heap_for_more, "5734 MB of a limit of 4Gi"),
    ("disruption-budgets", no_budget, "has 0 disruption budgets"),
    ("disruption-budgets", generous_budget, "too many for a quorum"),
    ("disruption-budgets", budget_of_two_in_three, "too many for a quorum"),
    ("disruption-budgets", blocking_budget, "none blocks drains"),
    ("disruption-budgets", silent_budget, "does not say whether unhealthy"),
    ("spread", soft_zones, "over zones only as a wish"),
    ("spread", one_zone, "in one zone"),
    ("spread", one_node, "on one node"),
    ("spread", spread_of_others, "in one zone"),
    ("network-policies", no_default_deny, "does not deny by default"),
    ("network-policies", no_own_policy, "no network policy of its own"),
    ("network-policies", open_port, "any peer or any port"),
    ("network-policies", open_peer, "any peer or any port"),
    ("network-policies", any_port, "any peer or any port"),
    ("network-policies", every_namespace, "lets every namespace through"),
    ("network-policies", every_pod, "lets every pod of a namespace through"),
    ("network-policies", every_pod_of_another_namespace, "lets every pod of a namespace through"),
    ("network-policies", every_address, "lets every address through"),
    ("known-kinds", nightly, "of a kind that no rule looks into"),
    ("known-kinds", bare_pod, "of a kind that no rule looks into"),
    ("tls", plain_redis, "does not say"),
    ("tls", old_tls, "does not say"),
    ("tls", plain_etcd, "is told http://etcd-0"),
    ("tls", no_certificates, "mounts no certificates"),
    ("tls", no_certificates_in_a_job, "mounts no certificates"),
    ("tls", unproven_job, "does not say"),
    ("tls", unproven_mage, "does not say"),
    ("tls", plain_h2o, "does not say"),
    ("tls", plain_init, "is told http://elsewhere/data"),
    ("tls", plain_command, "is told redis://"),
    ("kept-data", deleted_data, "may delete data"),
    ("kept-data", data_in_pod, "keeps its data in the pod"),
    ("scaled-by-one", two_owners, "states replicas"),
    ("scaled-by-one", scales_nothing, "which does not exist"),
    ("no-chaos-in-production", opted_in, "opts in to faults"),
    ("no-chaos-in-production", runner_rights, "gives experiments rights"),
    ("no-chaos-in-production", reached_server, "lets experiments reach a server"),
    ("no-chaos-in-production", blockable_api, "api.json does not keep experiments from blocking the API"),
    ("no-chaos-in-production", silent_api, "api.json does not keep experiments from blocking the API"),
    ("pod-security", lax_namespace, "does not enforce"),
    ("one-namespace", elsewhere, "outside the environment's"),
]


@pytest.mark.parametrize(("rule", "breach", "said"), BREACHES, ids=lambda value: getattr(value, "__name__", None))
def test_a_breach_is_caught_by_its_rule(
    rule: str, breach: Callable[[Manifests], None], said: str, rendered: Rendered
) -> None:
    made = rendered("production")
    breach(made)
    found = [finding for finding in judge(made, PRODUCTION) if finding.rule == rule]
    assert found
    assert any(said in finding.message for finding in found), [str(finding) for finding in found]


def test_every_rule_has_a_breach_that_it_catches() -> None:
    assert {rule.name for rule in RULES} == {rule for rule, _, _ in BREACHES}


def test_what_is_rendered_is_what_rules_look_into() -> None:
    from infra.kubernetes.render import KIND_ORDER  # noqa: PLC0415

    assert set(KIND_ORDER) <= KNOWN_KINDS


def test_one_value_in_two_spellings_is_no_breach(rendered: Rendered) -> None:
    made = rendered("production")
    api(made)["resources"]["requests"]["memory"] = "1Gi"
    assert api(made)["resources"]["limits"]["memory"] == "1024Mi"
    assert judge(made, PRODUCTION) == []


def test_the_rule_on_tls_names_what_it_lets_pass() -> None:
    (rule,) = [rule for rule in RULES if rule.name == "tls"]
    for number in ("10", "18"):
        assert f"(ADR {number})" in rule.demand
        assert list((ROOT / "docs" / "adr").glob(f"00{number}-*.md"))


def test_an_api_that_may_be_blocked_is_no_breach_outside_production(rendered: Rendered) -> None:
    made = rendered("staging")
    blockable_api(made)
    assert judge(made, Environment("staging")) == []


def test_staging_may_have_what_production_must_not(rendered: Rendered) -> None:
    findings = judge(rendered("staging"), PRODUCTION)
    assert {finding.rule for finding in findings} == {"no-chaos-in-production", "spread"}
