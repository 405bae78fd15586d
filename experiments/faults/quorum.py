"""Actions on etcd: one of its members dies, or so many that it has no quorum."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from experiments.faults.clock import wait_until
from experiments.faults.written import read_faults, record_fault, say, the_fault
from infra.stack import open_environment
from services.contracts.events import Event

Count = Literal["one", "majority"]


def kill_etcd(environment: str, run_dir: str, seed: int, count: Count) -> dict[str, Any]:
    """SIGKILL one member of etcd, or a majority, and hold them down; the seed chooses whom."""
    target = open_environment(environment)
    members = target.members("etcd")
    number = 1 if count == "one" else len(members) // 2 + 1
    victims = [members[(seed + at) % len(members)].name for at in range(number)]
    for victim in victims:
        proof = target.kill(victim, scope="member", hold=True)
        record_fault(Path(run_dir), proof, component="etcd", proven=True)
    return {"members": victims}


def start_etcd(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """Start them again, `seconds` after the first died."""
    target = open_environment(environment)
    wait_until(the_fault(Path(run_dir)).t_ns, after_s=seconds)
    faults = read_faults(Path(run_dir))
    for fault in faults:
        say(run_dir, Event.now("fault", "started", fault.member))
        target.start(fault.member)
    return {"members": [fault.member for fault in faults]}
