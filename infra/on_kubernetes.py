"""What only an environment on Kubernetes has: its cluster, images, sizes, disks, and who may reach it."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, field_validator, model_validator

from infra.strict import Model

ImageName = Literal["api", "postgres", "etcd", "redis", "h2o", "mage", "edge"]
IMAGES: Final = get_args(ImageName)


class Images(Model):
    """Where images come from: `registry`/NAME:`tag`, with a digest where one is given.

    `latest` is refused: what runs would then depend on the day a node pulled it.
    """

    registry: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?(/[a-z0-9._-]+)*$")]
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
    digests: dict[ImageName, Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]] = Field(default={})

    @model_validator(mode="after")
    def _fixed(self) -> Images:
        if self.tag == "latest":
            raise ValueError("tag is latest: name the release, so that every node runs the same and a rollback exists")
        return self

    def reference(self, name: ImageName) -> str:
        digest = self.digests.get(name)
        return f"{self.registry}/{name}:{self.tag}{f'@{digest}' if digest else ''}"


class Resources(Model):
    """Of one container. Memory is reserved in full (request = limit), so that a node never has to kill one that keeps
    to its word; CPU above the request is lent, up to the limit. Millicores and MiB."""

    cpu_m: Annotated[int, Field(ge=10)]
    cpu_limit_m: Annotated[int, Field(ge=10)]
    memory_mb: Annotated[int, Field(ge=16)]

    @model_validator(mode="after")
    def _ordered(self) -> Resources:
        if self.cpu_m > self.cpu_limit_m:
            raise ValueError(f"cpu_m {self.cpu_m} is more than cpu_limit_m {self.cpu_limit_m}")
        return self


class Volume(Model):
    """A persistent volume. `storage_class` None takes the cluster's default."""

    size_gb: Annotated[int, Field(ge=1)]
    storage_class: Annotated[str, Field(min_length=1)] | None = None


class Edge(Model):
    """How clients reach the platform. `clients` are the networks that may; `hosts` the names its certificate bears."""

    service: Literal["LoadBalancer", "NodePort", "ClusterIP"] = "LoadBalancer"
    replicas: Annotated[int, Field(ge=2, le=9)] = 2
    clients: list[str] = Field(default=["0.0.0.0/0"], min_length=1)
    hosts: list[str] = Field(default=["localhost"], min_length=1)

    @field_validator("clients")
    @classmethod
    def _clients_networks(cls, value: list[str]) -> list[str]:
        return _networks(value)


def _networks(value: list[str]) -> list[str]:
    for network in value:
        ipaddress.ip_network(network)  # ValueError says what is wrong
    return value


class Sizes(Model):
    """What each container may use. H2O's memory stands in `h2o.memory_mb`, whose split is checked there."""

    etcd: Resources = Resources(cpu_m=100, cpu_limit_m=1000, memory_mb=512)
    postgres: Resources = Resources(cpu_m=250, cpu_limit_m=2000, memory_mb=1024)
    warden: Resources = Resources(cpu_m=50, cpu_limit_m=500, memory_mb=128)
    api: Resources = Resources(cpu_m=500, cpu_limit_m=2000, memory_mb=768)
    edge: Resources = Resources(cpu_m=100, cpu_limit_m=1000, memory_mb=256)
    h2o_cpu_m: Annotated[int, Field(ge=100)] = 1000
    registry: Resources = Resources(cpu_m=50, cpu_limit_m=500, memory_mb=192)
    mage: Resources = Resources(cpu_m=250, cpu_limit_m=2000, memory_mb=2048)
    job: Resources = Resources(cpu_m=250, cpu_limit_m=2000, memory_mb=2048)


class Volumes(Model):
    """Disks that outlive a pod. `models` is shared: its class must offer ReadWriteMany."""

    etcd: Volume = Volume(size_gb=4)
    postgres: Volume = Volume(size_gb=20)
    models: Volume = Volume(size_gb=5)
    mage: Volume = Volume(size_gb=5)

    @property
    def storage_classes(self) -> tuple[str, ...]:
        """Those that the cluster must offer by name."""
        named = {volume.storage_class for volume in (self.etcd, self.postgres, self.models, self.mage)}
        return tuple(sorted(name for name in named if name is not None))


class Scraper(Model):
    """Who collects what the API's replicas count: pods by namespace and labels, which the network rules let in."""

    namespace: Annotated[str, Field(min_length=1)]
    labels: Annotated[dict[str, str], Field(min_length=1)]


class Kubernetes(Model):
    """Only the kubernetes runtime.

    `runners` are the networks from which experiments reach servers directly, as the servers' pods see them: where nodes
    translate addresses, the nodes' own. Without any, none is reachable from outside, and nothing can be proven there.

    `context` is the one kubeconfig context that this environment may be applied to: never the ambient one.
    `placement` required: a member waits rather than share a node or crowd a zone; preferred: it starts where it can.
    `api_in_flight_target` scales the API on the requests that each replica is answering as well. Only where an adapter
    serves that metric from what `scraper` collects: while a metric is missing, Kubernetes takes no replica away.
    """

    context: Annotated[str, Field(min_length=1)]
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    cluster_domain: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")] = "cluster.local"
    placement: Literal["required", "preferred"] = "required"
    images: Images
    edge: Edge = Edge()
    sizes: Sizes = Sizes()
    volumes: Volumes = Volumes()
    runners: list[str] = Field(default=[])
    api_cpu_target: Annotated[int, Field(ge=10, le=95)] = 70
    api_in_flight_target: Annotated[int, Field(ge=1)] | None = None
    scraper: Scraper | None = None

    @field_validator("runners")
    @classmethod
    def _runners_networks(cls, value: list[str]) -> list[str]:
        return _networks(value)

    @model_validator(mode="after")
    def _metric_is_collected(self) -> Kubernetes:
        if self.api_in_flight_target is not None and self.scraper is None:
            raise ValueError(
                "api_in_flight_target needs scraper, the pods that collect the API's metrics for the adapter: the "
                "network rules let nobody else ask, and without the metric no replica would ever be taken away"
            )
        return self
