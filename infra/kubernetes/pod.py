"""A pod as its manifest and its status tell: who it is, where it runs, whether it serves, and why it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from infra.kubernetes.plan import LABEL_DOMAIN

COMPONENT: Final = "app.kubernetes.io/component"
NO_IMAGE: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    image: str
    digest: str
    """`sha256:...` of the image that runs; empty where the kubelet names none."""
    running: bool
    restarts: int
    trouble: str | None
    """Why it does not run, by the kubelet's word."""


@dataclass(frozen=True, slots=True)
class Pod:
    """`component` like `postgres/shard-0`. `node` is the address of its machine, None while it has none."""

    name: str
    uid: str
    component: str
    shard: int | None
    node: str | None
    address: str | None
    """Its own, inside the cluster; None while it has none."""
    ready: bool
    leaving: bool
    containers: tuple[Container, ...]
    pending: str | None
    """Why no node took it, by the scheduler's word."""
    of_job: bool
    """It works and ends; it is no member."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Pod:
        metadata, status = manifest["metadata"], manifest.get("status") or {}
        labels = metadata.get("labels") or {}
        shard = labels.get(f"{LABEL_DOMAIN}/shard")
        component = labels.get(COMPONENT, "")
        conditions = {each["type"]: each for each in status.get("conditions") or []}
        scheduled = conditions.get("PodScheduled", {})
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            component=component if shard is None else f"{component}/shard-{shard}",
            shard=None if shard is None else int(shard),
            node=status.get("hostIP"),
            address=status.get("podIP"),
            ready=conditions.get("Ready", {}).get("status") == "True",
            leaving="deletionTimestamp" in metadata,
            containers=tuple(_containers(status)),
            pending=scheduled.get("message") if scheduled.get("status") == "False" else None,
            of_job=any(owner["kind"] == "Job" for owner in metadata.get("ownerReferences") or []),
        )

    def runs(self, container: str) -> bool:
        return any(each.name == container and each.running for each in self.containers)

    def state(self) -> str:
        """In a few words, the worst first."""
        if self.leaving:
            return "ends"
        if self.pending:
            return f"no node takes it: {self.pending}"
        for each in self.containers:
            if each.trouble in NO_IMAGE:
                return (
                    f"image {each.image} cannot be had on its node ({each.trouble}): push or load it, or correct "
                    "breakwater:kubernetes.images"
                )
        waits = [f"{each.name} {each.trouble}" for each in self.containers if each.trouble]
        if waits:
            return ", ".join(waits)
        return "ready" if self.ready else "not ready"


def _containers(status: Mapping[str, Any]) -> Iterator[Container]:
    """Those that run all the time: the pod's own and its sidecars, and init containers that have not ended."""
    for found in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        state = found.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if ended.get("exitCode") == 0 and found in (status.get("initContainerStatuses") or []):
            continue
        yield Container(
            name=found["name"],
            image=found.get("image", ""),
            digest=found.get("imageID", "").rpartition("@")[2],
            running="running" in state,
            restarts=int(found.get("restartCount", 0)),
            trouble=waiting.get("reason") or (f"ended with {ended['exitCode']}" if ended else None),
        )
