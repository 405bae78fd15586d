"""The CrossGuard pack judges what the program asks for, although Pulumi shows it what the cluster made of that."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.kubernetes.quantity import amount
from infra.policy.model import Environment
from infra.policy.pack import environment_of, resources_of
from infra.policy.rules import RULES, judge
from tests.unit.infra.kubernetes.conftest import ROOT, one

Manifests = list[dict[str, Any]]
Rendered = Callable[[str], Manifests]
PULUMI_POLICY = '''
"""As far as the pack uses pulumi-policy (1.21.0): a pack judges what a file shows as soon as it is made."""
import enum, json, os, types

EnforcementLevel = enum.Enum("EnforcementLevel", ["ADVISORY", "MANDATORY", "DISABLED"])

class StackValidationPolicy:
    def __init__(self, name, description, validate=None, enforcement_level=None):
        self.name, self.description, self.validate = name, description, validate

class PolicyPack:
    def __init__(self, name, policies, enforcement_level=None):
        shown = [types.SimpleNamespace(**each) for each in json.loads(open(os.environ["SHOWN"]).read())]
        said = {}
        for policy in policies:
            policy.validate(types.SimpleNamespace(resources=shown), said.setdefault(policy.name, []).append)
        print(json.dumps({"name": name, "level": enforcement_level.name, "said": said}))
'''


class Shown:
    """As pulumi_policy shows a resource: its outputs, numbers as floats."""

    def __init__(self, resource_type: str, props: Mapping[str, Any]) -> None:
        self.resource_type = resource_type
        self.props = props


def floats(value: Any) -> Any:
    match value:
        case dict():
            return {key: floats(item) for key, item in value.items()}
        case list():
            return [floats(item) for item in value]
        case bool():
            return value
        case int():
            return float(value)
    return value


def canonical(quantity: str) -> str:
    """As the API server spells it: the largest unit that leaves a whole number."""
    value = amount(quantity)
    if quantity.endswith("i"):
        return next(f"{int(value / 1024**p)}{u}i" for p, u in ((3, "G"), (2, "M"), (1, "K")) if value % 1024**p == 0)
    return str(int(value)) if value == int(value) else quantity


def live(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the API server makes of it: its spelling, defaults of its own, replicas, a status."""
    made = copy.deepcopy(manifest)
    made["metadata"] |= {"uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"}
    made["status"] = {"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}
    spec = made.get("spec", {})
    if made["kind"] == "Deployment":
        spec |= {"replicas": spec.get("replicas", 7), "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10}
    if made["kind"] == "Service":
        spec |= {"sessionAffinity": "None", "ipFamilies": ["IPv4"], "clusterIP": spec.get("clusterIP", "10.0.0.9")}
    pod = spec.get("template", {}).get("spec", {})
    if pod:
        pod |= {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "hostNetwork": False}
        pod |= {"restartPolicy": pod.get("restartPolicy", "Always")}
    for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
        container |= {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
        for asked in container["resources"].values():
            asked |= {kind: canonical(quantity) for kind, quantity in asked.items()}
    return made


def shown(made: Manifests) -> list[Shown]:
    """A stack of these, all of them in the cluster already, and what else Pulumi shows of it."""
    others = [
        Shown("pulumi:providers:kubernetes", {"context": "x"}),
        Shown("breakwater:kubernetes:Api", {}),
        Shown("kubernetes:storage.k8s.io/v1:StorageClass", {"kind": "StorageClass", "metadata": {"name": "shared"}}),
    ]
    kept = {"__initialApiVersion": "v1", "__fieldManager": "pulumi-kubernetes"}
    return others + [
        Shown(f"kubernetes:x:{each['kind']}", floats(live(each) | kept | {"__inputs": each})) for each in made
    ]


def test_the_pack_judges_what_the_program_asks_for(rendered: Rendered) -> None:
    for environment in ("staging", "production"):
        made = rendered(environment)
        resources = resources_of(shown(made))
        assert environment_of(resources) == Environment(environment)
        assert resources == made
        assert judge(resources, environment_of(resources)) == []
    assert environment_of([]) == Environment("production")


def test_a_breach_in_the_inputs_is_seen_whatever_the_cluster_has(rendered: Rendered) -> None:
    made = shown(rendered("staging"))
    deployment = next(
        each for each in made if each.props.get("metadata", {}).get("name") == "api" and "Dep" in each.resource_type
    )
    deployment.props["__inputs"]["spec"]["template"]["spec"]["containers"][0]["image"] = "api:latest"
    found = judge(resources_of(made), Environment("staging"))
    assert {finding.rule for finding in found} == {"fixed-images"}


def test_without_inputs_the_servers_spelling_is_no_breach(rendered: Rendered) -> None:
    """Where the live object alone is shown, replicas that the autoscaler chose cannot be told from stated ones."""
    made = [Shown("kubernetes:x:y", floats(live(each))) for each in rendered("production")]
    spelt = one(rendered("production"), "StatefulSet", "h2o")
    container = live(spelt)["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "8Gi"}
    resources = resources_of(made)
    assert not [each for each in resources if "status" in each]
    assert {finding.rule for finding in judge(resources, Environment("production"))} == {"scaled-by-one"}


class Unknown(Mapping[str, Any]):
    """As pulumi_policy's proxy: whoever looks at what a preview does not know is told so by an exception."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known

    def __getitem__(self, key: str) -> Any:
        if key == "status":
            raise RuntimeError("can't be known during preview")
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def test_what_a_preview_does_not_know_is_not_looked_at(rendered: Rendered) -> None:
    made = rendered("staging")
    for inputs in (True, False):
        seen = [Unknown(live(each) | ({"__inputs": each} if inputs else {})) for each in made]
        resources = resources_of([Shown("kubernetes:x:y", each) for each in seen])
        assert len(resources) == len(made)
        assert not [each for each in resources if "status" in each]


def test_pulumi_runs_the_pack_with_nothing_of_ours_installed(rendered: Rendered, tmp_path: Path) -> None:
    """Its environment has pulumi-policy, here a stand-in, and no package of the project's."""
    (tmp_path / "pulumi_policy.py").write_text(PULUMI_POLICY)
    made = rendered("production")
    one(made, "StatefulSet", "etcd")["spec"]["template"]["spec"]["hostNetwork"] = True
    seen = [{"resource_type": each.resource_type, "props": each.props} for each in shown(made)]
    (tmp_path / "shown.json").write_text(json.dumps(seen))
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "infra" / "policy")],
        env={"PYTHONPATH": str(tmp_path), "SHOWN": str(tmp_path / "shown.json")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert (said["name"], said["level"]) == ("breakwater", "MANDATORY")
    assert set(said["said"]) == {rule.name for rule in RULES}
    reports = {name: reports for name, reports in said["said"].items() if reports}
    assert reports == {"no-privilege": ["StatefulSet/etcd: the pod shares the node's network namespace [no-privilege]"]}
