"""The program under Pulumi's mocks: outputs, unknown values, missing secrets; every registration well formed."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime.config import set_all_config

from infra.kubernetes import preflight
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.names import NAMESPACE, STACK_SECRETS
from infra.kubernetes.program import deploy
from infra.kubernetes.record import Recorder, event_loop, record
from infra.kubernetes.wire import plain
from infra.topology import TopologyError
from tests.unit.infra.kubernetes.conftest import ROOT, shipped
from tests.unit.infra.kubernetes.test_preflight import Answers


@pytest.fixture(autouse=True)
def own_event_loop() -> Iterator[None]:
    with event_loop():
        yield


def configured(**secrets: str) -> None:
    values = {f"{NAMESPACE}:{name}": secrets.get(name, f"value-of-{name}") for name in STACK_SECRETS}
    set_all_config(values, secret_keys=list(values))


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_components_say_where_they_answer() -> pulumi.Output[None]:
    pulumi.runtime.set_mocks(Recorder(), project="breakwater", stack="staging")
    configured()
    platform = deploy(shipped("staging"))

    def check(values: list[Any]) -> None:
        namespace, urls, endpoints, redis = values
        assert namespace == "breakwater-staging"
        assert urls[0] == "https://etcd-0.etcd.breakwater-staging.svc.cluster.local:2379"
        assert [host.name for host in endpoints.hosts] == ["shard-1-0", "shard-1-1", "shard-1-2"]
        assert "sslmode=verify-full" in endpoints.conninfo("read-write", application_name="test")
        assert redis == "redis.breakwater-staging.svc.cluster.local"

    ground, shard = platform.groundwork, platform.shards[1]
    return pulumi.Output.all(ground.namespace, platform.etcd.urls, shard.endpoints, platform.redis.host).apply(check)


def test_nothing_depends_on_a_value_that_a_preview_does_not_know() -> None:
    known = {(made.type, made.name): plain(made.inputs) for made in record(shipped("staging"))}
    unknown = {(made.type, made.name): plain(made.inputs) for made in record(shipped("staging"), preview=True)}
    assert unknown == known


def test_every_object_belongs_to_a_component_and_is_named_as_in_the_cluster() -> None:
    registered = record(shipped("production"))
    components = {made.type for made in registered if made.type.startswith("breakwater:kubernetes:")}
    assert {kind.rpartition(":")[2] for kind in components} == {
        *(
            "Groundwork",
            "Etcd",
            "Redis",
            "PostgresBase",
            "PostgresShard",
            "DataJob",
            "H2OCluster",
            "Api",
            "Registry",
            "Edge",
            "Mage",
        )
    }
    for made in registered:
        assert not made.is_object or made.inputs["metadata"]["name"] == made.name


def test_the_cluster_is_the_one_that_the_topology_names() -> None:
    (provider,) = [made for made in record(shipped("staging")) if made.type == "pulumi:providers:kubernetes"]
    assert provider.inputs["context"] == "breakwater-staging"


def test_a_missing_secret_ends_the_program_before_anything_is_registered() -> None:
    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, project="breakwater", stack="staging")
    set_all_config({f"{NAMESPACE}:{name}": "x" for name in STACK_SECRETS if name != "redis"}, secret_keys=[])
    with pytest.raises(pulumi.RunError, match=r"lacks 1 of its \d+ secrets: redis; make them"):
        deploy(shipped("staging"))
    assert [made for made in recorder.registered if made.is_object] == []


def test_named_storage_classes_are_looked_for_and_not_made() -> None:
    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, project="breakwater", stack="production")
    configured()

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def program() -> None:
        deploy(shipped("production"))

    program()
    kind = "kubernetes:storage.k8s.io/v1:StorageClass"
    assert sorted(recorder.read) == [(kind, "fast"), (kind, "shared")]
    assert [made for made in recorder.registered if made.type == kind] == []


def test_a_local_environment_has_no_manifests() -> None:
    with pytest.raises(TopologyError, match="local runs on local; manifests are made of"):
        shipped("local")


def taken(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every cluster can take every environment; the contexts that were asked."""
    asked: list[object] = []
    monkeypatch.setattr(Cluster, "of", lambda context, namespace: context)
    monkeypatch.setattr(preflight, "demand_room", lambda plan, cluster: asked.append(cluster))
    monkeypatch.setattr(preflight, "demand_quota", lambda plan, cluster, needs: asked.append(cluster))
    return asked


def test_pulumis_entry_deploys_the_stack_that_is_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, project="breakwater", stack="production")
    configured()
    monkeypatch.setenv("BREAKWATER_PRODUCTION", "change")
    monkeypatch.setattr(sys, "path", [str(ROOT / "infra"), *sys.path])
    asked = taken(monkeypatch)

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def program() -> None:
        runpy.run_path(str(ROOT / "infra"), run_name="__main__")

    program()
    assert "breakwater-production" in {made.name for made in recorder.registered}
    assert str(ROOT / "infra") not in sys.path
    assert asked == ["breakwater-production"] * 2


def test_pulumis_entry_makes_nothing_where_a_quota_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a preview already: later the workloads' pods would be missing, and Pulumi would wait for them in vain."""
    recorder = Recorder(unknown=True)
    pulumi.runtime.set_mocks(recorder, project="breakwater", stack="production", preview=True)
    configured()
    small = Answers(classes=["fast", "shared"], quota={"pods": "20"})
    monkeypatch.setattr(Cluster, "of", lambda context, namespace: small)
    with pytest.raises(pulumi.RunError, match=r"pods 20 where 29 is needed \(quota small\).*nothing was made"):
        runpy.run_path(str(ROOT / "infra"), run_name="__main__")
    assert not recorder.registered


def test_pulumis_entry_makes_nothing_in_a_cluster_that_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("BREAKWATER_PRODUCTION", "change")
    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, project="breakwater", stack="production")
    configured()
    with pytest.raises(pulumi.RunError, match="no usable context breakwater-production"):
        runpy.run_path(str(ROOT / "infra"), run_name="__main__")
    assert not recorder.registered


def test_production_changes_only_with_its_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    pulumi.runtime.set_mocks(recorder, project="breakwater", stack="production")
    configured()
    monkeypatch.delenv("BREAKWATER_PRODUCTION", raising=False)
    with pytest.raises(pulumi.RunError, match=r"production changes only where .* a preview needs no permit"):
        runpy.run_path(str(ROOT / "infra"), run_name="__main__")
    assert recorder.registered == []


def test_a_preview_of_production_needs_no_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(unknown=True)
    pulumi.runtime.set_mocks(recorder, project="breakwater", stack="production", preview=True)
    configured()
    monkeypatch.delenv("BREAKWATER_PRODUCTION", raising=False)
    taken(monkeypatch)

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def program() -> None:
        runpy.run_path(str(ROOT / "infra"), run_name="__main__")

    program()
    assert "breakwater-production" in {made.name for made in recorder.registered}


def test_pulumis_entry_refuses_a_stack_that_runs_elsewhere() -> None:
    pulumi.runtime.set_mocks(Recorder(), project="breakwater", stack="local")
    with pytest.raises(pulumi.RunError, match="local runs on local"):
        runpy.run_path(str(ROOT / "infra"), run_name="__main__")
