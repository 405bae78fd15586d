"""Actions on the H2O cloud: kill the JVM of a node, or a whole node with its keeper, and perhaps another one after."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any, Final, Literal

from experiments.errors import ExperimentError
from experiments.evidence import EVENTS_FILE
from experiments.faults.training import progress
from experiments.faults.written import record_fault, say, the_fault
from experiments.probes.h2o import SOURCE, cloud_of, keeper_key, lacking
from infra.environment import Environment, FaultRefused, Member
from infra.stack import open_environment
from services.contracts.events import Event, monotonic_clock_id, read_events

Whom = Literal["leader", "node", "keeper"]
Again = Literal["no", "at-once", "while-forming"]

REFORMED_S: Final = 90.0
"""Past the promise of 60 s: a cloud that is not whole by then has broken it, and the run need not wait for more."""
FORMING_S: Final = 15.0
"""An epoch is raised a second after the death, and its JVMs start at once."""
STARTING_S: Final = 2.0
"""A JVM that is this old has begun to look for its peers; the cloud forms several seconds later."""
POLL_S: Final = 0.1


def kill_node(environment: str, run_dir: str, seed: int, whom: Whom) -> dict[str, Any]:
    """SIGKILL to a node's JVM; `keeper`: to the whole node whose keeper is elected, JVM included. Nobody starts it.

    `leader` is the cloud's own leader, `node` one of the others, chosen by the seed.
    """
    target = open_environment(environment)
    member = _chosen(target, whom, seed)
    done = progress(target)
    proof = target.kill(member.name, scope="member" if whom == "keeper" else "server", hold=False)
    data = {} if done is None else {"progress": round(100 * done)}
    record_fault(Path(run_dir), proof, component="h2o", proven=True, **data)
    return {"member": proof.member, "progress": done, "evidence": proof.evidence}


def kill_another(environment: str, run_dir: str, seed: int, again: Again) -> dict[str, Any]:
    """Kill the JVM of another node as well: at once, or while the next cloud forms. Nothing for `no`."""
    if again == "no":
        return {"member": None}
    target = open_environment(environment)
    struck = the_fault(Path(run_dir)).member
    others = [node for node in target.members("h2o") if node.name != struck]
    if not others:
        raise ExperimentError(f"{environment} has one H2O node, so there is no other one to kill")
    member = random.Random(seed).choice(others).name  # noqa: S311 - repeatable choice, no secret
    if again == "while-forming":
        _await_next_epoch(run_dir)
        time.sleep(STARTING_S)
    end = time.monotonic() + FORMING_S
    while True:
        with contextlib.suppress(FaultRefused):
            proof = target.kill(member, scope="server", hold=False)
            break
        if time.monotonic() > end:
            raise ExperimentError(f"{member} had no JVM to kill within {FORMING_S:.0f} s")
        time.sleep(POLL_S)
    if not proof.proven:
        raise ExperimentError(f"the second kill, of {member}, had no effect: {proof.evidence}")
    say(run_dir, Event(proof.t_ns, monotonic_clock_id(), "fault", member, "killed_another", {}))
    return {"member": member, "evidence": proof.evidence}


def await_whole(environment: str, run_dir: str) -> dict[str, Any]:
    """Wait until every node is back and all agree; the run goes on without after 90 s (a checker judges that).

    And after 15 s in which nobody ordered another cloud: then none will come.
    """
    target = open_environment(environment)
    began = time.monotonic()
    why: str | None = "not looked at"
    while why is not None and time.monotonic() < began + REFORMED_S:
        if time.monotonic() > began + FORMING_S and not _ordered(run_dir):
            break
        why = lacking({node.name: cloud_of(node.url) for node in target.members("h2o") if node.url is not None})
        time.sleep(POLL_S)
    return {"whole": why is None, "lacking": why}


def over(run_dir: str) -> dict[str, str]:
    """The end of what the fault changed: what follows is the recovery."""
    fault = the_fault(Path(run_dir))
    say(run_dir, Event.now("fault", "lifted", fault.member))
    return {"member": fault.member}


def _chosen(target: Environment, whom: Whom, seed: int) -> Member:
    nodes = target.members("h2o")
    if whom == "keeper":
        keeper = _etcd_value(target, keeper_key(target.name))
        found = [node for node in nodes if node.name == keeper]
    else:
        leader = _leader_port(nodes)
        found = [node for node in nodes if (node.port == leader) == (whom == "leader")]
    if not found:
        raise ExperimentError(f"{target.name} has no H2O node that is its {whom}; see `breakwater status`")
    return found[seed % len(found)]


def _leader_port(nodes: tuple[Member, ...]) -> int:
    """Port of the node that H2O itself calls the cloud's leader."""
    for node in nodes:
        cloud = cloud_of(node.url) if node.url is not None else None
        if cloud is not None:
            return int(str(cloud["nodes"][cloud["leader_idx"]]["ip_port"]).rpartition(":")[2])
    raise ExperimentError("no H2O node says who leads its cloud; see `breakwater status`")


def _await_next_epoch(run_dir: str) -> None:
    end = time.monotonic() + FORMING_S
    while not _ordered(run_dir):
        if time.monotonic() > end:
            raise ExperimentError(f"no new H2O cloud was ordered within {FORMING_S:.0f} s of the kill")
        time.sleep(POLL_S)


def _ordered(run_dir: str) -> bool:
    """Whether the death was noticed: a probe saw since the fault that another cloud is wanted."""
    fault = the_fault(Path(run_dir))
    return any(
        (event.source, event.kind) == (SOURCE, "epoch") and event.t_ns >= fault.t_ns
        for event in read_events(Path(run_dir) / EVENTS_FILE)
    )


def _etcd_value(target: Environment, key: str) -> str | None:
    with contextlib.closing(target.etcd().client()) as etcd:
        found = etcd.get(key)
    return None if found is None else found.value
