"""What a cluster must have before an environment is made in it; the cluster is a fake that only answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import pytest

from infra.environment import EnvironmentFault
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.needs import needs
from infra.kubernetes.preflight import DEFAULT_CLASS, demand_quota, demand_room, requests
from tests.unit.infra.kubernetes.conftest import ROOT
from tests.unit.infra.kubernetes.pods import plan

ON_IN_FLIGHT = {"scraper": {"namespace": "monitoring", "labels": {"app": "p"}}, "api_in_flight_target": 8}
Rendered = Callable[[str], list[dict[str, Any]]]


@dataclass
class Answers:
    """A cluster that is right for everything, until a test changes it. Its first storage class is the default."""

    context: str = "test"
    release: tuple[int, int] = (1, 34)
    labels: dict[str, str] | None = None
    classes: list[str] = field(default_factory=lambda: ["local-path"])
    quota: dict[str, str] = field(default_factory=dict)
    adapter: bool = True

    def version(self) -> tuple[int, int]:
        return self.release

    def space(self) -> dict[str, Any] | None:
        return None if self.labels is None else {"metadata": {"labels": self.labels}}

    def storage_classes(self) -> list[dict[str, Any]]:
        return [
            {"metadata": {"name": name, "annotations": {DEFAULT_CLASS: "false" if at else "true"}}}
            for at, name in enumerate(self.classes)
        ]

    def quotas(self) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "small"}, "spec": {"hard": self.quota}}]

    def custom_metrics(self) -> bool:
        return self.adapter

    @property
    def cluster(self) -> Cluster:
        return cast(Cluster, self)


def test_a_cluster_that_has_everything_is_taken_also_a_second_time() -> None:
    demand_room(plan(), Answers().cluster)
    demand_room(plan(), Answers(adapter=False).cluster)
    demand_room(plan(**ON_IN_FLIGHT), Answers().cluster)
    demand_room(plan(), Answers(labels={"app.kubernetes.io/instance": "testing"}).cluster)


@pytest.mark.parametrize(
    ("answers", "settings", "says"),
    [
        (Answers(release=(1, 29)), {}, "it is Kubernetes 1.29, and 1.30 is the oldest"),
        (Answers(labels={}), {}, "its namespace breakwater-testing belongs to somebody else"),
        (Answers(labels={"app.kubernetes.io/instance": "other"}), {}, "belongs to other: name another in"),
        (Answers(classes=[]), {}, "volumes.etcd takes the default storage class, and there is none"),
        (
            Answers(),
            {"volumes": {"models": {"size_gb": 1, "storage_class": "shared"}}},
            r"volumes.models wants storage class shared, which does not exist \(there is local-path\)",
        ),
        (Answers(adapter=False), ON_IN_FLIGHT, r"nobody answers for custom\.metrics\.k8s\.io, from which"),
    ],
)
def test_what_a_cluster_lacks_is_named_before_anything_is_made(
    answers: Answers, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(EnvironmentFault, match=says) as error:
        demand_room(plan(**settings), answers.cluster)
    assert str(error.value).endswith("nothing was made")


def test_what_pods_ask_for_is_summed_as_quotas_count_it(rendered: Rendered) -> None:
    asked = requests(rendered("production"))
    # 4 shards of 3 servers and wardens, 3 etcd, 3 h2o, 3 api at least, 3 edge, redis, registry, mage, 2 jobs
    assert asked["pods"] == 4 * 3 + 3 + 3 + 3 + 3 + 1 + 1 + 1 + 2
    assert asked["persistentvolumeclaims"] == 4 * 3 + 3 + 2
    assert asked["memory"] == asked["requests.memory"] > 4 * 3 * 4096 * 1024**2
    assert asked["limits.cpu"] > asked["requests.cpu"]
    gib = 1024**3
    assert asked["requests.storage"] == (4 * 3 * 100 + 3 * 8 + 20 + 20) * gib
    assert asked["shared.storageclass.storage.k8s.io/requests.storage"] == 20 * gib
    assert asked["fast.storageclass.storage.k8s.io/persistentvolumeclaims"] == 4 * 3 + 3 + 1


def test_a_quota_that_is_too_small_is_named_with_both_figures(rendered: Rendered) -> None:
    needed = requests(rendered("production"))
    enough = {"pods": "100", "requests.memory": "1Ti", "count/services": "1", "requests.storage": "2Ti"}
    demand_quota(plan(), Answers(quota=enough).cluster, lambda: needed)
    with pytest.raises(EnvironmentFault, match=r"pods 20 where 29 is needed \(quota small\).*nothing was made"):
        demand_quota(plan(), Answers(quota={"pods": "20"}).cluster, lambda: needed)
    with pytest.raises(EnvironmentFault, match=r"requests\.storage 1Ti where 1357209665536 is needed"):
        demand_quota(plan(), Answers(quota={"requests.storage": "1Ti"}).cluster, lambda: needed)


def test_nothing_is_summed_without_a_quota_for_all_pods() -> None:
    def never() -> dict[str, Decimal]:
        raise AssertionError("summed")

    class None_(Answers):
        def quotas(self) -> list[dict[str, Any]]:
            return [{"metadata": {"name": "best-effort"}, "spec": {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}}]

    demand_quota(plan(), None_().cluster, never)


def test_sums_are_made_in_a_process_of_their_own(rendered: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG", "the engine's")
    assert needs(ROOT, "staging") == requests(rendered("staging"))
    with pytest.raises(EnvironmentFault, match=r"could not be summed: .*no environment 'nowhere'"):
        needs(ROOT, "nowhere")
