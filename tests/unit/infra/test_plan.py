"""Names, ports and paths of a local environment: unique up to the topology's bounds, and free of passwords."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local import plan as plans
from infra.local.plan import LocalPlan
from infra.local.secrets import Secrets
from infra.topology import MAX_LOCAL_H2O_NODES, MAX_LOCAL_REPLICAS, MAX_LOCAL_SHARDS
from tests.unit.infra.conftest import topology


def planned(shards: int, members: int, etcd: int, replicas: int, base: int, *, nodes: int = 1) -> LocalPlan:
    return LocalPlan(
        topology(
            etcd={"members": etcd},
            postgres={"shards": shards, "members_per_shard": members, "max_connections": 1000},
            h2o={"nodes": nodes},
            api={"replicas": replicas, "max_replicas": replicas},
            local={"port_base": base},
        ),
        Path("/unused"),
    )


@given(
    shards=st.integers(1, MAX_LOCAL_SHARDS),
    members=st.integers(3, 9),
    etcd=st.sampled_from([1, 3, 5, 7]),
    replicas=st.integers(2, MAX_LOCAL_REPLICAS),
    nodes=st.integers(1, MAX_LOCAL_H2O_NODES),
    base=st.integers(1024, 64000),
)
def test_ports_names_and_directories_never_meet(
    *, shards: int, members: int, etcd: int, replicas: int, nodes: int, base: int
) -> None:
    plan = planned(shards, members, etcd, replicas, base, nodes=nodes)
    ports = [port for m in plan.members for port in (m.port, m.aux_port) if port is not None]
    ports += [m.port + 1 for m in plan.of("h2o")]
    assert len(set(ports)) == len(ports)
    assert base <= min(ports)
    assert max(ports) < 65536
    expected = etcd + shards * members + nodes + replicas + len(("redis", "registry", "mage", "edge"))
    assert len({m.name for m in plan.members}) == len(plan.members) == expected
    assert len({m.directory for m in plan.members}) == len(plan.members)


def test_the_upper_bounds_themselves_have_room() -> None:
    plan = planned(MAX_LOCAL_SHARDS, 9, 7, MAX_LOCAL_REPLICAS, 64000)
    ports = [port for m in plan.members for port in (m.port, m.aux_port) if port is not None]
    assert len(set(ports)) == len(ports)


def test_members_are_found_by_component_shard_and_name(plan: LocalPlan) -> None:
    assert [m.name for m in plan.of("postgres/shard-1")] == ["shard-1-0", "shard-1-1", "shard-1-2"]
    assert [m.name for m in plan.of_shard(0)] == ["shard-0-0", "shard-0-1", "shard-0-2"]
    assert len(plan.of("postgres")) == 6
    assert plan.member("etcd-2").component == "etcd"
    with pytest.raises(KeyError, match=r"no member 'etcd-9' in unit; members: etcd-0, "):
        plan.member("etcd-9")


def test_connection_strings_name_the_passfile_and_hold_no_password(plan: LocalPlan, own_secrets: Secrets) -> None:
    for endpoints in (plan.shard_endpoints(0), plan.admin_endpoints(0)):
        for conninfo in (
            endpoints.conninfo("read-write", application_name="unit"),
            endpoints.member_conninfo("shard-0-1", application_name="unit"),
        ):
            assert f"passfile={endpoints.passfile}" in conninfo
            assert "password" not in conninfo
            assert own_secrets.app not in conninfo
            assert own_secrets.superuser not in conninfo
    assert plan.admin_endpoints(0).passfile != plan.shard_endpoints(0).passfile


@pytest.mark.parametrize("configured", ["", "relative/state"])
def test_a_relative_state_home_counts_as_unset(monkeypatch: pytest.MonkeyPatch, configured: str) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", configured)
    assert plans.state_root().is_absolute()
    assert "relative" not in str(plans.state_root())


def test_the_state_home_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert LocalPlan(topology()).state == Path("/somewhere/breakwater/unit")
