"""What every pod has in common: labels, security, resources, placement, probes and volumes, as Pulumi arguments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pulumi_kubernetes import apps, core, meta, policy

from infra.kubernetes.plan import CONFIG_DIR, LABEL_DOMAIN, PRIVATE_DIR, TLS_DIR, KubernetesPlan, Workload
from infra.on_kubernetes import Resources

USER: Final = 10001
"""One account for all of ours: no user of any image or node has it."""
GROUP_READ: Final = 0o440
"""Secrets: root owns them, the pod's group reads them. Postgres and libpq take a key like that, libpq no passfile."""

RELOCATE_S: Final = 30
"""How long a pod stays bound to a node that is lost (Kubernetes: 300 s): stateless pods move soon."""


def metadata(
    plan: KubernetesPlan,
    name: str,
    workload: Workload,
    *,
    shard: int | None = None,
    annotations: Mapping[str, str] | None = None,
) -> meta.v1.ObjectMetaArgs:
    """A stable name: DNS names, selectors and policies lean on it, so Pulumi must not add a suffix."""
    return meta.v1.ObjectMetaArgs(
        name=name,
        namespace=plan.namespace,
        labels={**plan.labels(workload, shard=shard), **MANAGED},
        annotations=dict(annotations) if annotations else None,
    )


MANAGED: Final = {"app.kubernetes.io/part-of": "breakwater", "app.kubernetes.io/managed-by": "pulumi"}


def config_map(
    plan: KubernetesPlan, name: str, workload: Workload, files: Mapping[str, str], *, shard: int | None = None
) -> core.v1.ConfigMapInitArgs:
    return core.v1.ConfigMapInitArgs(metadata=metadata(plan, name, workload, shard=shard), data=dict(files))


def digest(files: Mapping[str, str]) -> dict[str, str]:
    """A pod annotation that changes with the configuration, so that a change rolls the pods."""
    content = json.dumps(dict(files), sort_keys=True).encode()
    return {f"{LABEL_DOMAIN}/config": hashlib.sha256(content).hexdigest()[:16]}


def template(
    plan: KubernetesPlan,
    workload: Workload,
    spec: core.v1.PodSpecArgs,
    *,
    shard: int | None = None,
    annotations: Mapping[str, str] | None = None,
) -> core.v1.PodTemplateSpecArgs:
    return core.v1.PodTemplateSpecArgs(
        metadata=meta.v1.ObjectMetaArgs(
            labels={**plan.labels(workload, shard=shard), **MANAGED},
            annotations=dict(annotations) if annotations else None,
        ),
        spec=spec,
    )


def pod(
    plan: KubernetesPlan,
    workload: Workload,
    *,
    containers: Sequence[core.v1.ContainerArgs],
    volumes: Sequence[core.v1.VolumeArgs],
    grace_s: int,
    init: Sequence[core.v1.ContainerArgs] = (),
    shard: int | None = None,
    **options: Any,
) -> core.v1.PodSpecArgs:
    """A pod as all of ours are: its own account without a token, restricted security, spread over zones and nodes."""
    return core.v1.PodSpecArgs(
        service_account_name=workload,
        automount_service_account_token=False,
        enable_service_links=False,
        security_context=core.v1.PodSecurityContextArgs(
            run_as_non_root=True,
            run_as_user=USER,
            run_as_group=USER,
            fs_group=USER,
            # never walk a data directory: Postgres refuses one whose group was let in
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=core.v1.SeccompProfileArgs(type="RuntimeDefault"),
        ),
        init_containers=list(init) or None,
        containers=list(containers),
        volumes=list(volumes),
        termination_grace_period_seconds=grace_s,
        **options,
    )


def container_security() -> core.v1.SecurityContextArgs:
    return core.v1.SecurityContextArgs(
        allow_privilege_escalation=False,
        privileged=False,
        read_only_root_filesystem=True,
        run_as_non_root=True,
        capabilities=core.v1.CapabilitiesArgs(drop=["ALL"]),
    )


def resources(sizes: Resources) -> core.v1.ResourceRequirementsArgs:
    memory = f"{sizes.memory_mb}Mi"
    return core.v1.ResourceRequirementsArgs(
        requests={"cpu": f"{sizes.cpu_m}m", "memory": memory},
        limits={"cpu": f"{sizes.cpu_limit_m}m", "memory": memory},
    )


def container(
    name: str,
    image: str,
    command: Sequence[str],
    sizes: Resources,
    mounts: Sequence[core.v1.VolumeMountArgs],
    *,
    env: Mapping[str, str] | None = None,
    ports: Mapping[str, int] | None = None,
    **options: Any,
) -> core.v1.ContainerArgs:
    """`env` and `command` may use $(POD_NAME), which every container knows."""
    return core.v1.ContainerArgs(
        name=name,
        image=image,
        image_pull_policy="IfNotPresent",
        command=list(command),
        env=[IDENTITY, *(core.v1.EnvVarArgs(name=key, value=value) for key, value in (env or {}).items())],
        ports=[
            core.v1.ContainerPortArgs(name=key, container_port=number, protocol="TCP")
            for key, number in (ports or {}).items()
        ]
        or None,
        resources=resources(sizes),
        security_context=container_security(),
        volume_mounts=list(mounts),
        **options,
    )


IDENTITY: Final = core.v1.EnvVarArgs(
    name="POD_NAME",
    value_from=core.v1.EnvVarSourceArgs(field_ref=core.v1.ObjectFieldSelectorArgs(field_path="metadata.name")),
)

# Placement


def placement(plan: KubernetesPlan, workload: Workload, *, shard: int | None = None) -> dict[str, Any]:
    """One member to a node and members spread over zones: demanded or wished for, as the environment says.

    The members of a quorum: losing one node or one zone must never take two of them.
    """
    selector = meta.v1.LabelSelectorArgs(match_labels=plan.labels(workload, shard=shard))
    term = core.v1.PodAffinityTermArgs(topology_key=NODE, label_selector=selector)
    if plan.settings.placement == "required":
        apart = core.v1.PodAntiAffinityArgs(required_during_scheduling_ignored_during_execution=[term])
    else:
        wish = core.v1.WeightedPodAffinityTermArgs(weight=100, pod_affinity_term=term)
        apart = core.v1.PodAntiAffinityArgs(preferred_during_scheduling_ignored_during_execution=[wish])
    return {
        "affinity": core.v1.AffinityArgs(pod_anti_affinity=apart),
        "topology_spread_constraints": [_spread(plan, ZONE, selector)],
    }


def spread(plan: KubernetesPlan, workload: Workload) -> dict[str, Any]:
    """For replicas that may be more than there are nodes: even over zones and nodes, of one release at a time.

    Over those that take pods: a node that is drained or lost has none and gets none. Counted as empty, it would forbid
    every other node to take more than one, so that neither its replicas nor the autoscaler's had a place.
    """
    selector = meta.v1.LabelSelectorArgs(match_labels=plan.labels(workload))
    options: dict[str, Any] = {"match_label_keys": ["pod-template-hash"], "node_taints_policy": "Honor"}
    return {
        "topology_spread_constraints": [
            _spread(plan, ZONE, selector, **options),
            _spread(plan, NODE, selector, **options),
        ]
    }


NODE: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"


def _spread(
    plan: KubernetesPlan, key: str, selector: meta.v1.LabelSelectorArgs, **options: Any
) -> core.v1.TopologySpreadConstraintArgs:
    hard = plan.settings.placement == "required"
    return core.v1.TopologySpreadConstraintArgs(
        max_skew=1,
        topology_key=key,
        when_unsatisfiable="DoNotSchedule" if hard else "ScheduleAnyway",
        label_selector=selector,
        **options,
    )


def move_soon() -> list[core.v1.TolerationArgs]:
    """Replaces a pod without data of its own soon after its node is lost."""
    return [
        core.v1.TolerationArgs(
            key=f"node.kubernetes.io/{state}", operator="Exists", effect="NoExecute", toleration_seconds=RELOCATE_S
        )
        for state in ("not-ready", "unreachable")
    ]


def budget(
    plan: KubernetesPlan,
    name: str,
    workload: Workload,
    *,
    may_leave: int,
    sick_may_leave: bool,
    shard: int | None = None,
) -> policy.v1.PodDisruptionBudgetInitArgs:
    """How many pods a drain may take at once. `sick_may_leave`: pods that are not Ready never hold a drain up."""
    return policy.v1.PodDisruptionBudgetInitArgs(
        metadata=metadata(plan, name, workload, shard=shard),
        spec=policy.v1.PodDisruptionBudgetSpecArgs(
            max_unavailable=may_leave,
            selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels(workload, shard=shard)),
            unhealthy_pod_eviction_policy="AlwaysAllow" if sick_may_leave else "IfHealthyBudget",
        ),
    )


# Probes


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds between two looks and for each, and how many in a row must fail."""

    every_s: int
    within_s: int
    fails: int


def http_probe(path: str, port: int, timing: Timing, *, scheme: str = "HTTP") -> core.v1.ProbeArgs:
    return _probe(timing, http_get=core.v1.HTTPGetActionArgs(path=path, port=port, scheme=scheme))


def tcp_probe(port: int, timing: Timing) -> core.v1.ProbeArgs:
    return _probe(timing, tcp_socket=core.v1.TCPSocketActionArgs(port=port))


def exec_probe(command: Sequence[str], timing: Timing) -> core.v1.ProbeArgs:
    return _probe(timing, exec_=core.v1.ExecActionArgs(command=list(command)))


def _probe(timing: Timing, **action: Any) -> core.v1.ProbeArgs:
    return core.v1.ProbeArgs(
        period_seconds=timing.every_s, timeout_seconds=timing.within_s, failure_threshold=timing.fails, **action
    )


def pause_before_stop(seconds: int) -> core.v1.LifecycleArgs:
    """Serve on while the rest of the cluster learns that this pod leaves; then SIGTERM."""
    sleep = core.v1.SleepActionArgs(seconds=seconds)
    return core.v1.LifecycleArgs(pre_stop=core.v1.LifecycleHandlerArgs(sleep=sleep))


# Volumes


def mount(name: str, path: Path, *, writable: bool = False, sub_path: str | None = None) -> core.v1.VolumeMountArgs:
    return core.v1.VolumeMountArgs(
        name=name, mount_path=str(path), read_only=None if writable else True, sub_path=sub_path
    )


def config_volume(config_map_name: str) -> core.v1.VolumeArgs:
    source = core.v1.ConfigMapVolumeSourceArgs(name=config_map_name)
    return core.v1.VolumeArgs(name="config", config_map=source)


def secret_volume(name: str, secret_name: str) -> core.v1.VolumeArgs:
    source = core.v1.SecretVolumeSourceArgs(secret_name=secret_name, default_mode=GROUP_READ)
    return core.v1.VolumeArgs(name=name, secret=source)


def scratch_volume(name: str = "tmp", *, memory: bool = False, limit_mb: int = 64) -> core.v1.VolumeArgs:
    source = core.v1.EmptyDirVolumeSourceArgs(medium="Memory" if memory else None, size_limit=f"{limit_mb}Mi")
    return core.v1.VolumeArgs(name=name, empty_dir=source)


CONFIG_MOUNT: Final = mount("config", CONFIG_DIR)
TLS_MOUNT: Final = mount("tls", TLS_DIR)
TMP_MOUNT: Final = mount("tmp", Path("/tmp"), writable=True)  # noqa: S108 - the container's own
PRIVATE_MOUNT: Final = mount("private", PRIVATE_DIR)

INSTALL_SIZE: Final = Resources(cpu_m=10, cpu_limit_m=200, memory_mb=16)


def install_private(image: str, files: Sequence[Path]) -> core.v1.ContainerArgs:
    """An init container that copies secret files to memory with mode 0600, owned by the pod's user."""
    return container(
        "private-files",
        image,
        ["/usr/bin/install", "-m", "0600", "-t", str(PRIVATE_DIR), *map(str, files)],
        INSTALL_SIZE,
        [SECRETS_MOUNT, mount("private", PRIVATE_DIR, writable=True)],
    )


SECRETS_MOUNT: Final = mount("secrets", Path("/run/secrets/breakwater"))


def claim(
    plan: KubernetesPlan, name: str, workload: Workload, *, size_gb: int, storage_class: str | None, mode: str
) -> core.v1.PersistentVolumeClaimInitArgs:
    return core.v1.PersistentVolumeClaimInitArgs(
        metadata=metadata(plan, name, workload),
        spec=core.v1.PersistentVolumeClaimSpecArgs(
            access_modes=[mode],
            storage_class_name=storage_class,
            resources=core.v1.VolumeResourceRequirementsArgs(requests={"storage": f"{size_gb}Gi"}),
        ),
    )


def claim_template(name: str, *, size_gb: int, storage_class: str | None) -> core.v1.PersistentVolumeClaimArgs:
    return core.v1.PersistentVolumeClaimArgs(
        metadata=meta.v1.ObjectMetaArgs(name=name),
        spec=core.v1.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            storage_class_name=storage_class,
            resources=core.v1.VolumeResourceRequirementsArgs(requests={"storage": f"{size_gb}Gi"}),
        ),
    )


KEEP_CLAIMS: Final = apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicyArgs(
    when_deleted="Retain", when_scaled="Retain"
)
"""Members' claims outlive their set: a smaller topology or a deleted set leaves them. Only the namespace's end takes
them along, and in production Pulumi refuses that (KubernetesPlan.protects_data)."""
