"""What the engine is told beside the objects. The mocks neither wait nor protect: they show what was asked for."""

from __future__ import annotations

import functools
import graphlib
from typing import Any

import pulumi
import pytest
from pulumi.runtime import rpc
from pulumi.runtime.config import set_all_config

from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets
from infra.kubernetes.names import NAMESPACE, STACK_SECRETS
from infra.kubernetes.record import Recorder, event_loop
from infra.kubernetes.wire import MARKED_SECRET as SIGNATURE
from tests.unit.infra.kubernetes.conftest import shipped
from tests.unit.infra.kubernetes.engine import Heard, Request, heard_of, listening

DATA = {
    ("Namespace", "breakwater-production"),
    ("StatefulSet", "etcd"),
    *(("StatefulSet", f"shard-{shard}") for shard in range(4)),
    ("PersistentVolumeClaim", "models"),
    ("PersistentVolumeClaim", "mage"),
}
"""What holds production's data, and whose deletion takes some along. H2O's set holds what can be loaded again."""
WORKLOADS = {"Deployment", "StatefulSet", "Job"}


@functools.cache
def heard(environment: str) -> Heard:
    return heard_of(shipped(environment))


def waits_for_pods(service: Request) -> bool:
    """Pulumi calls a Service made once it has ready endpoints, unless it is headless or selects nothing."""
    spec = service.inputs["spec"]
    return service.kind == "Service" and spec.get("clusterIP") != "None" and bool(spec.get("selector"))


def selected(service: Request, workload: Request) -> bool:
    labels: dict[str, Any] = workload.inputs["spec"]["template"]["metadata"]["labels"]
    wanted = service.inputs["spec"]["selector"].items()
    # a member's own service names its pod, which the set itself labels
    return all(labels.get(key) == value or key == "statefulset.kubernetes.io/pod-name" for key, value in wanted)


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_nobody_waits_for_a_service_that_waits_for_him(environment: str) -> None:
    """Over all that waits: dependencies, components before their parts, and services for the pods behind them."""
    requests = heard(environment).requests
    waits = {each.urn: {*each.message.dependencies, each.message.parent} for each in requests}
    workloads = [each for each in requests if each.kind in WORKLOADS]
    services = [each for each in requests if each.kind == "Service" and waits_for_pods(each)]
    assert {service.name for service in services} >= {"redis", "mage", "edge"}
    for service in services:
        behind = {workload.urn for workload in workloads if selected(service, workload)}
        assert behind, f"nothing stands behind {service.name}"
        waits[service.urn] |= behind
    list(graphlib.TopologicalSorter(waits).static_order())  # CycleError names who waits for each other


def test_production_cannot_be_deleted_in_passing() -> None:
    """Neither by `pulumi destroy` nor by a topology with a shard less; elsewhere both must work."""
    protected = {(each.kind, each.name) for each in heard("production").requests if each.message.protect}
    assert protected == DATA
    keeping = [
        each
        for each in heard("production").objects()
        if each.kind == "PersistentVolumeClaim" or each.inputs.get("spec", {}).get("volumeClaimTemplates")
    ]
    assert {(each.kind, each.name) for each in keeping} == DATA - {("Namespace", "breakwater-production")}
    assert not [each for each in heard("staging").requests if each.message.protect]


def test_every_component_says_what_it_puts_out() -> None:
    """Without that the engine shows it as unfinished, and its outputs reach no other stack."""
    for environment in ("staging", "production"):
        said = heard(environment)
        components = [each.urn for each in said.requests if each.type.startswith("breakwater:kubernetes:")]
        assert len(components) > 10
        assert [urn for urn in components if said.finished.count(urn) != 1] == []


def test_a_renamed_component_is_found_under_its_former_names() -> None:
    class Renamed(Component):
        FORMER_NAMES = ("Etcd", "Quorum")

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def program() -> None:
        Renamed("etcd")

    with event_loop(), listening() as said:
        pulumi.runtime.set_mocks(Recorder(), project="breakwater", stack="staging")
        program()
    (request,) = said.requests
    assert request.type == "breakwater:kubernetes:Renamed"
    former = [alias.spec.type for alias in request.message.aliases]
    assert former == ["breakwater:kubernetes:Etcd", "breakwater:kubernetes:Quorum"]


def test_what_stands_in_a_secret_is_secret_to_the_engine() -> None:
    """Else it lies readable in the stack's state, and in what `pulumi preview` prints."""
    secrets = [each for each in heard("production").objects() if each.kind == "Secret"]
    assert len(secrets) > 10
    for each in secrets:
        data = each.message.object["stringData"]
        # the whole, or each of its values
        values = [data] if SIGNATURE in data else list(data.values())
        assert values
        assert [value for value in values if not is_secret(value)] == [], each.name


def test_the_stacks_secrets_are_secret_before_any_object_takes_them() -> None:
    """The SDK marks what stands in a Secret by itself; what the program makes of a secret elsewhere it does not."""
    with event_loop() as loop:
        pulumi.runtime.set_mocks(Recorder(), project="breakwater", stack="staging")
        values = {f"{NAMESPACE}:{name}": "x" for name in STACK_SECRETS}
        set_all_config(values, secret_keys=list(values))
        secrets = StackSecrets()
        made = [*secrets.tls("etcd").values(), *secrets.client_tls().values(), secrets.passfile("role", "postgres_app")]
        outputs = [each for each in (*made, secrets["redis"]) if isinstance(each, pulumi.Output)]
        assert len(outputs) == len(made) + 1
        assert [loop.run_until_complete(each.is_secret()) for each in outputs] == [True] * len(outputs)


def is_secret(value: Any) -> bool:
    return not isinstance(value, str) and SIGNATURE in value and value[SIGNATURE] == rpc._special_secret_sig


@pytest.mark.parametrize("name", ["migrate", "load"])
def test_pulumi_waits_for_a_job_as_long_as_it_may_take(name: str) -> None:
    """By itself it gives up after ten minutes, in the middle of a first load."""
    job = heard("production").one("Job", name)
    may_take_s = job.inputs["spec"]["activeDeadlineSeconds"]
    waits = job.message.customTimeouts
    for waited in (waits.create, waits.update):
        assert float(waited.removesuffix("s")) > may_take_s
