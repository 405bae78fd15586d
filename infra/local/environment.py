"""LocalEnvironment: members and fault verbs over supervisord and signals, each with its undo on disk and its proof."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal

from infra import versions
from infra.environment import (
    Capability,
    Edge,
    Endpoints,
    EnvironmentFault,
    FaultProof,
    FaultRefused,
    Health,
    Member,
    NodeAnswer,
    PodId,
    ProcessId,
    Scope,
    ShardState,
)
from infra.local import models, partition, probe, processes, shard_config
from infra.local.account import Account
from infra.local.plan import LOOPBACK, LocalPlan, MemberPlan
from infra.local.processes import Process
from infra.local.secrets import redis_password_file
from infra.local.servers import PACKAGE_OF, VERSION_OF
from infra.local.supervisor import ProgramState, Supervisor, SupervisorDown
from services.contracts.shards import HostPort, ShardEndpoints
from services.coordination.endpoints import EtcdEndpoints
from services.h2o.node import EVENTS

PROOF_S: Final = 5.0
"""SIGKILL ends a process within milliseconds, unless it sleeps in the kernel on a disk."""
CONNECT_S: Final = 0.2
POLL_S: Final = 0.1
HOLD: Final = "hold"


class LocalEnvironment:
    """The local runtime as experiments see it; needs the environment to be up."""

    def __init__(self, plan: LocalPlan) -> None:
        self.plan = plan
        self.name = plan.environment
        self._supervisor = Supervisor(plan)

    # What there is.

    def capabilities(self) -> frozenset[Capability]:
        always: frozenset[Capability] = frozenset(
            {"kill", "kill-jvm", "hold", "stop", "pause", "switchover", "block-loop", "restart", "train"}
        )
        return always | {"isolate"} if partition.possible() else always

    def members(self, component: str | None = None) -> tuple[Member, ...]:
        plans = self.plan.members if component is None else self.plan.of(component)
        try:
            states = self._supervisor.states()
        except SupervisorDown:
            states = {}
        return tuple(self._member(plan, states) for plan in plans)

    def _member(self, plan: MemberPlan, states: dict[str, ProgramState]) -> Member:
        state = next((s for s in states.values() if s.member == plan.name and not s.name.endswith("-warden")), None)
        dsn = url = None
        if plan.shard is not None:
            dsn = self.plan.shard_endpoints(plan.shard).member_conninfo(plan.name, application_name="breakwater")
        elif plan.component == "redis":
            url = f"redis://{LOOPBACK}:{plan.port}/0"
        elif plan.component == "edge":
            url = self.plan.edge_url
        else:
            url = f"http://{LOOPBACK}:{plan.port}"
        return Member(
            name=plan.name,
            component=plan.component,
            shard=plan.shard,
            host=LOOPBACK,
            port=plan.port,
            pid=state.pid if state else None,
            dsn=dsn,
            url=url,
            agent_port=plan.aux_port if plan.component == "api" else None,
        )

    def endpoints(self) -> Endpoints:
        return Endpoints(Edge(self.plan.edge_url, self.plan.ca_file), self.members())

    def shards(self) -> tuple[ShardEndpoints, ...]:
        return self.plan.all_shards()

    def etcd(self) -> EtcdEndpoints:
        return EtcdEndpoints(
            hosts=tuple(HostPort(name=m.name, host=LOOPBACK, port=m.port) for m in self.plan.of("etcd"))
        )

    def shard_state(self, shard: int) -> ShardState:
        return probe.shard_state(self.plan, shard)

    def experiment_lock(self) -> Path:
        return self.plan.experiment_lock

    def health(self) -> tuple[Health, ...]:
        return probe.ask_all(self.plan, self._supervisor.states())

    def obstacle(self, member: str) -> str | None:
        return probe.obstacle(self._plan(member))

    def metrics(self, member: str) -> str | None:
        return probe.metrics(self._plan(member))

    def h2o_answers(self, path: Literal["/ready", "/status"]) -> Mapping[str, NodeAnswer | None]:
        return {node.name: probe.h2o_answer(node, path) for node in self.plan.of("h2o")}

    def versions(self) -> Mapping[str, str]:
        return {
            **{name: versions.of_server(command) for name, command in VERSION_OF.items()},
            **{name: versions.of_package(package) for name, package in PACKAGE_OF.items()},
        }

    def logs(self, member: str) -> tuple[Path, ...]:
        directory = self._plan(member).directory / "log"
        return tuple(sorted(directory.glob("*.log"), key=lambda path: path.stat().st_mtime))

    def token_file(self) -> Path:
        return self.plan.token_file

    def admin_token_file(self) -> Path:
        return self.plan.admin_token_file

    def cache_password_file(self) -> Path:
        return redis_password_file(self.plan)

    def event_files(self) -> tuple[Path, ...]:
        return (
            *(member.directory / "warden-events.jsonl" for member in self.plan.of("postgres")),
            *(member.directory / EVENTS for member in self.plan.of("h2o")),
        )

    def command_lines(self, member: str) -> tuple[tuple[str, ...], ...]:
        """How each of a member's processes was started, as the kernel tells it."""
        return tuple(processes.arguments(process.pid) for process in processes.working_in(self._plan(member).directory))

    def wait_ready(self, *, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while True:
            sick = next((line for line in self.health() if not line.healthy), None)
            if sick is None:
                return
            if time.monotonic() > end:
                raise EnvironmentFault(
                    f"{sick.member} of {self.name} is not healthy after {timeout_s:.0f} s: {sick.state}; "
                    f"read `breakwater logs {self.name} {sick.member}`"
                )
            time.sleep(POLL_S)

    # Faults.

    def kill(self, member: str, *, scope: Scope, hold: bool) -> FaultProof:
        plan = self._allowed(member)
        undo = self._write_undo(member, "start")
        if hold:
            self._hold(plan)
        programs = self._programs(member)
        wardens = [p for p in programs if p.name.endswith("-warden")]
        victims = self._processes(plan, scope, programs)
        if not victims:
            self._unhold(plan)
            undo.unlink()
            raise FaultRefused(f"{member} has no running process; nothing was killed; is it up? `breakwater status`")
        # The warden goes first when it has to go: it must not see its server die.
        victims = tuple(sorted(victims, key=lambda p: p.pid not in {w.pid for w in wardens}))
        t_ns = time.monotonic_ns()
        processes.send(victims, signal.SIGKILL)
        stopped = wardens if scope == "member" else []
        if hold and plan.shard is None:
            stopped = programs
        self._supervisor.stop(stopped)
        identities = tuple(p.id for p in victims)
        processes.wait_gone(identities, timeout_s=PROOF_S)
        proven, evidence = self.is_down(member, identities)
        if not hold:
            undo.unlink()
            left = [p for p in identities if processes.is_alive(p)]
            proven, evidence = not left, f"{len(identities) - len(left)} of {len(identities)} processes gone"
        return FaultProof(member, scope, "SIGKILL", hold, t_ns, identities, proven, evidence)

    def process_of(self, member: str) -> ProcessId | None:
        state = next((s for s in self._programs(member) if s.pid and not s.name.endswith("-warden")), None)
        process = processes.read(state.pid) if state is not None and state.pid is not None else None
        return process.id if process is not None else None

    def is_down(self, member: str, identities: tuple[ProcessId, ...], pod: PodId | None = None) -> tuple[bool, str]:
        plan = self._plan(member)
        left = [p for p in identities if processes.is_alive(p)]
        closed = self._refuses(plan)
        evidence = (
            f"{len(identities) - len(left)} of {len(identities)} processes gone (pid and start time); "
            f"port {plan.port} {'refuses connections' if closed else 'still accepts connections'}"
        )
        return not left and closed, evidence

    def stop(self, member: str) -> FaultProof:
        plan = self._allowed(member)
        self._write_undo(member, "start")
        victims = processes.working_in(plan.directory)
        t_ns = time.monotonic_ns()
        self._supervisor.stop(self._programs(member))
        left = processes.wait_gone((p.id for p in victims), timeout_s=PROOF_S)
        evidence = f"{len(victims) - len(left)} of {len(victims)} processes ended by themselves"
        identities = tuple(p.id for p in victims)
        return FaultProof(member, "member", "stop", True, t_ns, identities, not left and bool(victims), evidence)

    def pause(self, member: str, *, scope: Scope = "member") -> FaultProof:
        plan = self._allowed(member)
        self._write_undo(member, "resume")
        victims = self._processes(plan, scope, self._programs(member))
        t_ns = time.monotonic_ns()
        processes.send(victims, signal.SIGSTOP)
        stopped = self._wait_state(victims, "T")
        evidence = f"{stopped} of {len(victims)} processes are stopped (state T)"
        proven = bool(victims) and stopped == len(victims)
        return FaultProof(member, scope, "SIGSTOP", True, t_ns, tuple(p.id for p in victims), proven, evidence)

    def resume(self, member: str) -> None:
        processes.send(processes.working_in(self._plan(member).directory), signal.SIGCONT)
        self._drop_undo(member, "resume")

    def start(self, member: str) -> None:
        plan = self._plan(member)
        self._unhold(plan)
        self._supervisor.start(self._programs(member))
        self._drop_undo(member, "start")

    def isolate(self, member: str) -> FaultProof:
        plan = self._allowed(member)
        if plan.shard is None or not partition.possible():
            raise FaultRefused(
                f"{member} cannot be cut off: that takes a member of Postgres, root, and {partition.IPTABLES}; "
                "nothing was done"
            )
        self._write_undo(member, "rejoin")
        victims = self._processes(plan, "server", self._programs(member))
        t_ns = time.monotonic_ns()
        partition.cut(self.plan, plan)
        end = time.monotonic() + PROOF_S
        while not all(dropped := partition.dropped(plan)) and time.monotonic() < end:
            time.sleep(POLL_S)
        evidence = f"dropped so far: {dropped[0]} packets to etcd and its peers, {dropped[1]} of theirs to it"
        identities = tuple(p.id for p in victims)
        return FaultProof(member, "network", "isolate", True, t_ns, identities, all(dropped), evidence)

    def rejoin(self, member: str) -> None:
        partition.mend(self._plan(member))
        self._drop_undo(member, "rejoin")

    def switchover(self, member: str) -> FaultProof:
        plan = self._allowed(member)
        if plan.shard is None:
            raise FaultRefused(f"{member} leads no shard, so it cannot hand over; nothing was done")
        victims = self._processes(plan, "postgres", self._programs(member))
        t_ns = time.monotonic_ns()
        said = shard_config.switchover(self.plan, plan)
        end = time.monotonic() + PROOF_S
        while (primary := self.shard_state(plan.shard).primary) in {None, member} and time.monotonic() < end:
            time.sleep(POLL_S)
        proven = primary not in {None, member}
        evidence = f"Patroni: {said}; {primary or 'nobody'} is primary"
        return FaultProof(
            member, "leadership", "switchover", False, t_ns, tuple(p.id for p in victims), proven, evidence
        )

    def block_loop(self, member: str, *, seconds: float) -> FaultProof:
        plan = self._allowed(member)
        process = self.process_of(member)
        if process is None:
            raise FaultRefused(f"{member} does not run; nothing was blocked; is it up? `breakwater status`")
        token = self.plan.admin_token_file.read_text().strip()
        url = f"http://{LOOPBACK}:{plan.port}"
        with ThreadPoolExecutor(max_workers=1) as pool:
            blocking = pool.submit(probe.block_loop, url, token, seconds)
            time.sleep(seconds / 2)
            silent = probe.is_silent(f"{url}/healthz", timeout_s=min(1.0, seconds / 4))
            began_ns, ended_ns = blocking.result()
        proven = silent and processes.is_alive(process)
        evidence = (
            f"blocked for {(ended_ns - began_ns) / 1e9:.3f} s by its own clock; "
            f"{'no answer' if silent else 'an answer'} to /healthz half-way; the process runs on"
        )
        return FaultProof(member, "loop", "block-loop", False, began_ns, (process,), proven, evidence, ended_ns)

    def rotation(self) -> Mapping[str, bool]:
        return probe.rotation(self.plan)

    def heal(self) -> Sequence[str]:
        done = []
        # a model is brought back by servers, so they come first
        for path in sorted(
            self.plan.undo_dir.glob("*.json"), key=lambda path: (models.BRING_BACK in path.name, path.name)
        ):
            try:
                undo = json.loads(path.read_text())
                action, member = str(undo["action"]), str(undo["member"])
            except (ValueError, KeyError, TypeError) as error:
                raise EnvironmentFault(
                    f"{path} is damaged, so its fault cannot be undone by itself: run `breakwater down {self.name}`, "
                    f"then `breakwater up {self.name}`, which ends every fault (the data stays)"
                ) from error
            match action:
                case "resume":
                    self.resume(member)
                case "rejoin":
                    self.rejoin(member)
                case models.BRING_BACK:
                    models.bring_back(self.plan, member)
                case _:
                    self.start(member)
            path.unlink(missing_ok=True)
            done.append(f"{action} {member}")
        return done

    def forget_faults(self) -> bool:
        """Remove holds and undo files when nothing runs any more; True when there were any.

        Which model served is no matter of processes: that stays to be undone.
        """
        found = False
        for path in self.plan.undo_dir.glob("*.json"):
            if models.BRING_BACK in path.name:
                continue
            path.unlink()
            found = True
        return self.release_holds() or found

    def release_holds(self) -> bool:
        """Remove the files and rules that keep members from starting or from finding each other."""
        found = False
        for plan in self.plan.of("postgres"):
            if (plan.directory / HOLD).exists():
                self._unhold(plan)
                found = True
            found = partition.mend(plan) or found
        return found

    # How.

    def _plan(self, member: str) -> MemberPlan:
        try:
            return self.plan.member(member)
        except KeyError as error:
            raise EnvironmentFault(error.args[0]) from error

    def _allowed(self, member: str) -> MemberPlan:
        plan = self._plan(member)
        self.admit_faults(plan.component)
        return plan

    def admit_faults(self, component: str) -> None:
        chaos = self.plan.topology.chaos
        if not chaos.allows(component):
            raise FaultRefused(chaos.refusal(component, self.name))

    def _programs(self, member: str) -> list[ProgramState]:
        return [state for state in self._supervisor.states().values() if state.member == member]

    def _processes(self, plan: MemberPlan, scope: Scope, programs: Iterable[ProgramState]) -> tuple[Process, ...]:
        everything = processes.working_in(plan.directory)
        if scope == "member":
            return everything
        if plan.component == "h2o":
            # the agent is the program itself, and the parent of its JVM
            agents = {p.pid for p in programs}
            return tuple(p for p in everything if p.pid not in agents)
        wardens = [p.pid for p in programs if p.pid and p.name.endswith("-warden")]
        spared = {p.pid for p in processes.with_descendants(wardens)}
        server = tuple(p for p in everything if p.pid not in spared)
        if scope == "server":
            return server
        # The launcher became Patroni; Postgres' processes belong to supervisord itself.
        patroni = {p.pid for p in programs if p.pid and p.pid not in wardens}
        return tuple(p for p in server if (p.pid in patroni) == (scope == "patroni"))

    def _hold(self, plan: MemberPlan) -> None:
        if plan.shard is not None:
            Account.for_servers().write(plan.directory / HOLD, "")

    def _unhold(self, plan: MemberPlan) -> None:
        (plan.directory / HOLD).unlink(missing_ok=True)

    def _write_undo(self, member: str, action: str) -> Path:
        path = self.plan.undo_dir / f"{member}.{action}.json"
        Account.for_servers().write(path, json.dumps({"action": action, "member": member}))
        return path

    def _drop_undo(self, member: str, action: str) -> None:
        (self.plan.undo_dir / f"{member}.{action}.json").unlink(missing_ok=True)

    @staticmethod
    def _refuses(plan: MemberPlan) -> bool:
        with socket.socket() as trial:
            trial.settimeout(CONNECT_S)
            return trial.connect_ex((LOOPBACK, plan.port)) != 0

    @staticmethod
    def _wait_state(victims: Sequence[Process], state: str) -> int:
        end = time.monotonic() + PROOF_S
        while True:
            now = [processes.read(p.pid) for p in victims]
            count = sum(1 for p in now if p is not None and p.state == state)
            if count == len(victims) or time.monotonic() > end:
                return count
            time.sleep(processes.GONE_POLL_S)
