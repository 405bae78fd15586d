"""Packets of one group are dropped on real loopback, and pass again: needs root and iptables, like the fault itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from infra.local import partition
from infra.local.account import Account
from infra.local.plan import LocalPlan, MemberPlan
from infra.topology import Topology

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not partition.possible(), reason="cutting a member off takes root and iptables"),
]

# Below the ports that the kernel gives to outgoing connections (from 32768): one of those may have any port there.
PORT_BASE = 29000
ANSWER_S = 0.5
ASK = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=float(sys.argv[2]))"


@pytest.fixture
def plan(tmp_path_factory: pytest.TempPathFactory) -> LocalPlan:
    described = {"environment": "cut", "runtime": "local", "local": {"port_base": PORT_BASE}}
    return LocalPlan(Topology.model_validate(described), tmp_path_factory.mktemp("state"))


@pytest.fixture
def isolated(plan: LocalPlan) -> Iterator[MemberPlan]:
    member = plan.of_shard(0)[0]
    partition.cut(plan, member)
    try:
        yield member
    finally:
        partition.mend(member)


@contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port)):
        yield


def reaches(port: int, *, group: int) -> bool:
    """Whether a process of that group gets a connection."""
    command = [sys.executable, "-c", ASK, str(port), str(ANSWER_S)]
    uid = Account.for_servers().uid
    return (
        subprocess.run(command, user=uid, group=group, extra_groups=[], capture_output=True, check=False).returncode
        == 0
    )


def test_a_member_is_cut_off_from_etcd_and_peers_both_ways_and_from_nobody_else(
    plan: LocalPlan, isolated: MemberPlan
) -> None:
    own = partition.group_of(isolated)
    peer = plan.of_shard(0)[1]
    other = plan.of_shard(1)[0]
    etcd = plan.of("etcd")[0]
    with listening(isolated.port), listening(peer.port), listening(other.port), listening(etcd.port):
        assert not reaches(etcd.port, group=own)
        assert not reaches(peer.port, group=own)
        assert not reaches(isolated.port, group=partition.group_of(peer))
        assert all(partition.dropped(isolated))
        # Clients still reach it, and everybody else reaches everybody.
        assert reaches(isolated.port, group=os.getegid())
        assert reaches(other.port, group=own)
        assert reaches(etcd.port, group=partition.group_of(peer))

        assert partition.mend(isolated)
        assert reaches(etcd.port, group=own)
        assert reaches(isolated.port, group=partition.group_of(peer))
        assert not partition.mend(isolated)


def test_cutting_twice_leaves_nothing_behind_when_mended_once(plan: LocalPlan, isolated: MemberPlan) -> None:
    partition.cut(plan, isolated)
    assert partition.mend(isolated)
    rules = subprocess.run([partition.IPTABLES, "-S"], capture_output=True, text=True, check=True).stdout
    assert str(isolated.port) not in rules
