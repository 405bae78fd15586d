"""Cuts a Postgres member off from etcd and from its shard's other members, by packet filtering on loopback.

All members share one network namespace, so a packet is told by its sender's group: as root each Postgres member runs
under a group of its own (infra/local/supervisor.py). Clients still reach a member that is cut off, which is the
dangerous half of a partition: it would go on serving them if it could. Its WAL still reaches replicas on connections
that they opened before, until wal_sender_timeout (5 s) ends them; nothing of theirs comes back, so nothing counts.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from infra.environment import EnvironmentFault
from infra.local.plan import LocalPlan, MemberPlan

IPTABLES: Final = "/usr/sbin/iptables"
WAIT: Final = ("-w", "5")
"""Seconds to wait for another program that changes rules."""
DONE_S: Final = 15.0
LOOPBACK_OUT: Final = ("OUTPUT", "-o", "lo", "-j")


def group_of(member: MemberPlan) -> int:
    """The group that this member's processes have, and no others': its port is unique on the machine."""
    return member.port


def possible() -> bool:
    """Whether this machine lets us filter packets."""
    return os.geteuid() == 0 and Path(IPTABLES).exists() and _iptables("-S", "OUTPUT").returncode == 0


def cut(plan: LocalPlan, member: MemberPlan) -> None:
    """Drop what the member sends to etcd and its peers, and what they send to it; the last rule puts all in force."""
    mend(member)
    peers = [peer for peer in plan.of_shard(_shard(member)) if peer.name != member.name]
    away = [etcd.port for etcd in plan.of("etcd")] + [port for peer in peers for port in _ports(peer)]
    chain = _chain(member)
    _change("-N", chain)
    _change("-A", chain, *_from(member, away))
    for peer in peers:
        _change("-A", chain, *_from(peer, _ports(member)))
    _change("-I", *LOOPBACK_OUT, chain)


def mend(member: MemberPlan) -> bool:
    """Take the member's rules away, also half made ones; True when there were any."""
    if not possible() or _iptables("-S", _chain(member)).returncode != 0:
        return False
    while _iptables("-D", *LOOPBACK_OUT, _chain(member)).returncode == 0:
        pass
    _change("-F", _chain(member))
    _change("-X", _chain(member))
    return True


def dropped(member: MemberPlan) -> tuple[int, int]:
    """Packets dropped so far: sent by the member, and sent to it."""
    listed = _iptables("-L", _chain(member), "-v", "-x", "-n").stdout
    counts = [int(found.group(1)) for found in re.finditer(r"^\s*(\d+)\s+\d+\s+DROP\b", listed, re.MULTILINE)]
    return (counts[0], sum(counts[1:])) if counts else (0, 0)


def _from(sender: MemberPlan, ports: list[int]) -> tuple[str, ...]:
    owner = ("-m", "owner", "--gid-owner", str(group_of(sender)))
    return "-p", "tcp", *owner, "-m", "multiport", "--dports", ",".join(map(str, ports)), "-j", "DROP"


def _ports(member: MemberPlan) -> list[int]:
    return [port for port in (member.port, member.aux_port) if port is not None]


def _shard(member: MemberPlan) -> int:
    if member.shard is None:
        raise EnvironmentFault(f"{member.name} belongs to no shard: only members of Postgres can be cut off here")
    return member.shard


def _chain(member: MemberPlan) -> str:
    return f"breakwater-{member.port}"


def _change(*arguments: str) -> None:
    done = _iptables(*arguments)
    if done.returncode != 0:
        raise EnvironmentFault(
            f"iptables {' '.join(arguments)} failed: {' '.join(done.stderr.split())}; does this kernel have the match "
            "`owner`? `breakwater heal` takes away what was made"
        )


def _iptables(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IPTABLES, *WAIT, *arguments], capture_output=True, text=True, timeout=DONE_S, check=False)
