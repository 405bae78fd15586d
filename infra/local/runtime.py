"""Bring a local environment up and down: in order, with progress, repairing what a crash left, never deleting data."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from pydantic import ValidationError

from infra import lock
from infra.environment import EnvironmentFault, ProcessId
from infra.local import defects, mage, probe, processes, secrets, servers, shard_config, tls
from infra.local import supervisor as supervision
from infra.local.account import Account
from infra.local.environment import LocalEnvironment
from infra.local.plan import LOOPBACK, LocalPlan, MemberPlan
from infra.local.processes import Process
from infra.local.secrets import Secrets
from infra.local.servers import Program
from infra.local.supervisor import Supervisor
from infra.names import APP_ROLE, FEATURES_DATABASE, MAGE_DATABASE, MAGE_ROLE, MAGE_SHARD, REGISTRY_SHARD
from infra.topology import Topology
from services.featurestore import migrate, provision
from services.h2o.genmodel import extract_genmodel
from services.registry import registry

POLL_S: Final = 0.05
READY_S: Final = 120.0
"""Ten times what a cold start takes here; a slow machine gets its time, a broken one an answer."""
STOP_ORDER: Final = (("edge",), ("api", "h2o", "registry", "mage"), ("redis", "warden"), ("server",), ("etcd",))
"""Whoever asks stops before whom it asks; what stands side by side stops together. Wardens must not see their servers
stop, and Patroni gives its leader keys back to a living etcd."""
BACKGROUND: Final = ("h2o", "mage")
"""What trains; `up` does not wait for it."""
WAKE_EVERY_S: Final = 0.5
"""How often Patroni is asked to look again while its shard is not whole. By itself it looks once per loop_wait: the
primary of a new shard would count its replicas, which stream within three seconds, only up to 10 s later."""
LEFTOVER_S: Final = 30.0
"""Postgres' own fast shutdown needs a checkpoint."""
MIN_FREE_BYTES: Final = 2 * 1024**3
"""Six data directories with WAL and the flights fill about 1.5 GB; a full disk under Postgres is worse."""
MIN_FREE_AGAIN_BYTES: Final = 512 * 1024**2
"""An environment that has its data needs room for WAL and logs only."""
PLAIN_PATH: Final = re.compile(r"[\w./@+%~=-]+")
"""What every server's configuration carries unquoted: spaces, quotes, commas and comment signs differ in each."""


NO_WAY_TO_STATE: Final = 4
ACCESS_CHECK: Final = (
    f"import os, sys, services.contracts; sys.exit(0 if os.access(sys.argv[1], os.X_OK) else {NO_WAY_TO_STATE})"
)
"""Run as the servers' user: can it import the code, and reach the state directory?"""


class Progress(Protocol):
    """Told what happens, component by component."""

    def begin(self, component: str, what: str) -> None: ...

    def done(self, component: str, what: str) -> None: ...

    def note(self, text: str) -> None: ...


@contextlib.contextmanager
def locked(plan: LocalPlan) -> Iterator[None]:
    """Hold the environment's lock: one command at a time changes it. The kernel frees it when the holder dies.

    An experiment whose command was killed may still be about to strike, or to undo: its end is waited for.
    """
    _make_state(plan)
    with lock.locked(plan.state / "lock", plan.environment):
        lock.wait_free(plan.experiment_lock, plan.environment)
        yield


def _make_state(plan: LocalPlan) -> None:
    if not PLAIN_PATH.fullmatch(str(plan.state)):
        raise EnvironmentFault(
            f"the state directory's path has a space or another character that server configurations do not carry "
            f"({plan.state}); set XDG_STATE_HOME to a plain path"
        )
    missing = [path for path in (plan.state, *plan.state.parents) if not path.exists()]
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)  # whatever the umask: as root the servers are another user, who must get through
        for directory in (plan.supervisor_dir, plan.undo_dir):
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"the state directory {plan.state} cannot be made: {error.strerror} ({error.filename}); "
            "see to its permissions, or set XDG_STATE_HOME to another place"
        ) from error


def up(plan: LocalPlan, progress: Progress) -> None:
    """Bring everything up; calling it on a running environment starts what is down and waits until all is healthy."""
    account = Account.for_servers()
    _preflight(plan, account)
    supervisor = Supervisor(plan)
    was_up = supervisor.is_up()
    _same_topology(plan, was_up)
    if not was_up:
        _clear_leftovers(plan, progress)
        _ports_free(plan)
    _heal_first(plan, progress, was_up)
    if plan.topology.mage.enabled:
        mage.ensure_installed(progress)
    own_secrets = secrets.ensure(plan, account)
    tls.ensure(plan, account)
    extract_genmodel(plan.genmodel_jar.parent)
    programs = servers.prepare(plan, own_secrets, account)
    _supervise(plan, supervisor, supervision.configuration(plan, programs, account), was_up)
    _start_in_order(plan, supervisor, programs, own_secrets, progress)


def _supervise(plan: LocalPlan, supervisor: Supervisor, configuration: str, was_up: bool) -> None:
    if not was_up:
        supervisor.config.write_text(configuration)
        (plan.state / "topology.json").write_text(json.dumps(plan.topology.model_dump(mode="json"), indent=2))
        supervisor.launch()
    elif supervisor.config.read_text() != configuration:
        raise EnvironmentFault(_restart(plan, f"what {plan.environment} runs has changed since it came up"))


def _restart(plan: LocalPlan, why: str) -> str:
    return f"{why}; run `breakwater down {plan.environment}` (it keeps the data), then `up` again"


def _same_topology(plan: LocalPlan, was_up: bool) -> None:
    """Refuse what would leave an environment half old, half new, before any file of it is written."""
    stored = plan.state / "topology.json"
    try:
        before = Topology.model_validate_json(stored.read_bytes())
    except FileNotFoundError:
        return
    except ValidationError as error:
        if was_up:
            raise EnvironmentFault(
                _restart(plan, f"{stored}, which says what runs, does not describe a topology")
            ) from error
        return  # `up` writes it anew
    now = plan.topology
    # Who may be hurt is read afresh by every experiment; replicas learn at their next start whether they may be.
    if was_up and before.model_copy(update={"chaos": now.chaos}) != now:
        raise EnvironmentFault(
            _restart(plan, f"Pulumi.{plan.environment}.yaml has changed since {plan.environment} came up")
        )
    etcd_data = any((member.directory / "data").exists() for member in plan.of("etcd"))
    for field, was, wanted in (
        ("local.port_base", before.local.port_base, now.local.port_base),
        ("etcd.members", before.etcd.members, now.etcd.members),
    ):
        if etcd_data and was != wanted:
            raise EnvironmentFault(
                f"breakwater:{field} was {was} and is now {wanted}, but etcd's members keep each other's addresses in "
                f"their data: set it back in Pulumi.{plan.environment}.yaml, or start over with `breakwater down "
                f"{plan.environment} --purge`, which deletes all data"
            )


def _start_in_order(
    plan: LocalPlan, supervisor: Supervisor, programs: Sequence[Program], own_secrets: Secrets, progress: Progress
) -> None:
    def start(component: str) -> None:
        names = {member.name for member in plan.of(component)}
        supervisor.start(program for program in programs if program.member in names)

    shards = range(plan.topology.postgres.shards)
    progress.begin("etcd", "electing a leader")
    start("etcd")
    # What does not need etcd's answer starts beside it: the cores have time while servers wait for their disks.
    start("redis")
    _wait_healthy(plan, supervisor, plan.of("etcd"))
    progress.done("etcd", f"{plan.topology.etcd.members} members, quorum")
    progress.begin("postgres", "electing primaries, replicas cloning")
    start("postgres")
    for shard in shards:
        _wait_shard(plan, supervisor, shard)
        state = probe.shard_state(plan, shard)
        progress.done(
            f"postgres/shard-{shard}",
            f"primary {state.primary}, timeline {state.timeline}, {len(state.synchronous)} synchronous replicas",
        )
    progress.begin("schema", "migrations, slots and partitions")
    for shard in shards:
        if shard_config.configure(plan, shard):
            progress.note(f"shard {shard} had another configuration than the topology says; it is as written again")
        admin = plan.admin_endpoints(shard)
        # Observers read the servers' own views through the application's role.
        provision.ensure_database(admin, APP_ROLE, FEATURES_DATABASE, own_secrets.app, observes=True)
        if shard == REGISTRY_SHARD:
            provision.ensure_database(admin, APP_ROLE, registry.DATABASE, own_secrets.app, observes=True)
        if shard == MAGE_SHARD and plan.topology.mage.enabled:
            provision.ensure_database(admin, MAGE_ROLE, MAGE_DATABASE, own_secrets.mage_database, observes=False)
    start("api")
    migrate.apply([plan.registry_endpoints()], migrations=registry.MIGRATIONS)
    progress.done("schema", provision.prepare_shards(plan.etcd_urls, plan.environment, plan.all_shards()))
    progress.begin("redis", "waiting")
    _wait_healthy(plan, supervisor, plan.of("redis"))
    progress.done("redis", f"cache, {plan.topology.redis.max_memory_mb} MB")
    progress.begin("api", "starting")
    start("edge")
    _wait_healthy(plan, supervisor, plan.of("api"))
    progress.done("api", f"{plan.topology.api.replicas} replicas")
    progress.begin("edge", "starting")
    _wait_healthy(plan, supervisor, plan.of("edge"))
    progress.done("edge", f"{plan.edge_url}  TLS 1.3")
    start("registry")
    # A former primary may restart once more to follow the new one, after its shard was ready.
    _wait_healthy(plan, supervisor, [member for member in plan.members if member.component not in BACKGROUND])
    # Training is no part of serving: its cloud forms behind everybody's back, at low priority (docs/adr/0007).
    for component in BACKGROUND:
        start(component)
    progress.done("h2o", f"{plan.topology.h2o.nodes} nodes, forming their cloud in the background")
    if plan.topology.mage.enabled:
        progress.done("mage", "scheduler of training, starting in the background")


def down(plan: LocalPlan, progress: Progress) -> bool:
    """Stop everything in the reverse order; data stays. False when nothing was running."""
    supervisor = Supervisor(plan)
    if not supervisor.is_up():
        return _clear_leftovers(plan, progress)
    LocalEnvironment(plan).release_holds()
    for together in STOP_ORDER:
        states = supervisor.states().values()
        chosen = [
            s
            for s in states
            if any(s.member.startswith(f"{what}-") or s.name.endswith(f"-{what}") for what in together)
        ]
        progress.begin(", ".join(together), "stopping")
        # An etcd leader hands over before it stops. To one that stops too it tries in vain for seven seconds.
        for each in [[one] for one in chosen] if together == ("etcd",) else [chosen]:
            supervisor.stop(each)
        progress.done(", ".join(together), "stopped")
    supervisor.shutdown()
    _clear_leftovers(plan, progress)
    return True


def purge(plan: LocalPlan) -> None:
    """Delete the environment's state, data included. Only after `down`."""
    try:
        shutil.rmtree(plan.state)
    except FileNotFoundError:
        return
    except OSError as error:
        raise EnvironmentFault(
            f"{plan.state} cannot be deleted: {error.strerror or error} ({error.filename}); run the command as the "
            "user who brought the environment up, or delete it by hand"
        ) from error


def demand_up(plan: LocalPlan) -> None:
    """SupervisorDown, which says how to bring it up, when the environment is not up at all."""
    Supervisor(plan).pid()


def heal(plan: LocalPlan) -> tuple[str, ...]:
    """Undo what experiments left behind, faults and changed configuration alike; one line for each thing undone."""
    done = list(LocalEnvironment(plan).heal())
    supervisor = Supervisor(plan)
    if not supervisor.is_up():
        return tuple(done)
    stopped = [s for s in supervisor.states().values() if s.name.endswith("-warden") and s.pid is None]
    supervisor.start(stopped)
    done += [f"start {warden.name}" for warden in stopped]
    done += [f"{replica} runs without a defect again" for replica in defects.make_sound(plan)]
    done += [f"{replica} has its watchdog again" for replica in defects.watchdogs_on(plan)]
    done += [f"{edge} is configured as the topology says" for edge in defects.edge_sound(plan)]
    done += [f"the fence of {member} is on again" for member in defects.fences_on(plan)]
    for shard in range(plan.topology.postgres.shards):
        if shard_config.configure(plan, shard):
            done.append(f"configuration of shard {shard} as the topology says")
    return tuple(done)


def _preflight(plan: LocalPlan, account: Account) -> None:
    missing = [str(path) for path in servers.BINARIES if not path.exists()]
    if missing:
        raise EnvironmentFault(f"not installed: {', '.join(missing)}; run `make install`")
    longest = max(len(str(member.directory / "run" / ".s.PGSQL.65535")) for member in plan.members)
    if longest > supervision.SOCKET_PATH_MAX:
        raise EnvironmentFault(
            f"the state directory's path is too long for Unix sockets ({longest} characters, {plan.state}); "
            "set XDG_STATE_HOME to a shorter path"
        )
    free = shutil.disk_usage(plan.state).free
    needed = MIN_FREE_AGAIN_BYTES if plan.members_dir.exists() else MIN_FREE_BYTES
    if free < needed:
        raise EnvironmentFault(
            f"{plan.state} has {free / 1e9:.1f} GB free, the environment needs {needed / 1e9:.1f} GB; free some, or "
            "set XDG_STATE_HOME to another disk"
        )
    if os.geteuid() == 0:
        check = subprocess.run(
            [servers.python(), "-c", ACCESS_CHECK, str(plan.state)],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
        if check.returncode == NO_WAY_TO_STATE:
            raise EnvironmentFault(
                f"the user {account.name}, as whom the servers run, cannot get into {plan.state}: a directory above "
                "it is closed to others (`chmod o+x` it), or set XDG_STATE_HOME to another place"
            )
        if check.returncode != 0:
            raise EnvironmentFault(
                f"the user {account.name}, as whom the servers run, cannot use {servers.python()}; run `make install`, "
                "which puts the Python environment where that user can read it"
            )


def _clear_leftovers(plan: LocalPlan, progress: Progress) -> bool:
    """End servers that outlived their supervisor: they hold ports and data that a new one needs. True if any did."""
    left = processes.working_in(plan.state)
    if not left:
        return False
    progress.note(f"{len(left)} processes outlived their supervisor; stopping them (the data stays)")
    processes.send(left, signal.SIGCONT)
    # etcd last: a Patroni that finds it gives its leader key back, and the next start need not wait for the lease.
    etcd = [p for p in left if p.id.name == "etcd"]
    still = _end([p for p in left if p not in etcd])
    for member in etcd:
        still = still or _end([member])  # one by one, as in `down`
    if still:
        raise EnvironmentFault(
            f"these did not stop within {LEFTOVER_S:.0f} s: {', '.join(f'{p.name} (pid {p.pid})' for p in still)}; "
            "look at them, end them by hand, then run the command again"
        )
    return True


def _end(left: Sequence[Process]) -> tuple[ProcessId, ...]:
    """Postgres understands SIGINT as fast shutdown, Patroni and all others take SIGTERM; returns those that stay."""
    processes.send([p for p in left if p.id.name != "postgres"], signal.SIGTERM)
    processes.send([p for p in left if p.id.name == "postgres"], signal.SIGINT)
    return processes.wait_gone((p.id for p in left), timeout_s=LEFTOVER_S)


def _ports_free(plan: LocalPlan) -> None:
    for member in plan.members:
        for port in (member.port, member.aux_port):
            if port is None:
                continue
            with socket.socket() as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind((LOOPBACK, port))
                except OSError as error:
                    raise EnvironmentFault(
                        f"port {port}, which {member.name} needs, is taken by a process that is not ours ({error}); "
                        f"end it, or before the first `up` set another breakwater:local port_base in "
                        f"Pulumi.{plan.environment}.yaml"
                    ) from error


def _heal_first(plan: LocalPlan, progress: Progress, was_up: bool) -> None:
    environment = LocalEnvironment(plan)
    if was_up:
        for line in environment.heal():
            progress.note(f"a fault had been left behind: {line}")
    elif environment.forget_faults():
        progress.note("faults left behind by an earlier run ended with its processes; their holds are removed")


def _wait(what: str, plan: LocalPlan, supervisor: Supervisor, ready: Callable[[], str | None]) -> None:
    """Poll `ready` until it returns None; otherwise it says what is missing."""
    end = time.monotonic() + READY_S
    while True:
        missing = ready()
        if missing is None:
            return
        fatal = [state for state in supervisor.states().values() if state.state == "FATAL"]
        if fatal:
            raise EnvironmentFault(
                f"{fatal[0].name} keeps dying; read `breakwater logs {plan.environment} {fatal[0].member}`"
            )
        if time.monotonic() > end:
            raise EnvironmentFault(
                f"{what} is not ready after {READY_S:.0f} s: {missing}; see `breakwater status {plan.environment}`"
            )
        time.sleep(POLL_S)


def _wait_healthy(plan: LocalPlan, supervisor: Supervisor, members: Sequence[MemberPlan]) -> None:
    def missing() -> str | None:
        states = supervisor.states()
        for member in members:
            health = probe.ask(plan, member, states)
            if not health.healthy:
                return f"{member.name}: {health.state}"
        return None

    what = members[0].component if len({member.component for member in members}) == 1 else "every member"
    _wait(what, plan, supervisor, missing)


def _wait_shard(plan: LocalPlan, supervisor: Supervisor, shard: int) -> None:
    woken_s = time.monotonic()

    def missing() -> str | None:
        nonlocal woken_s
        lacking = probe.missing_redundancy(plan, shard)
        if lacking is not None and time.monotonic() - woken_s > WAKE_EVERY_S:
            # the others too, which are waited for next
            for other in range(plan.topology.postgres.shards):
                shard_config.wake(plan, other)
            woken_s = time.monotonic()
        return lacking

    _wait(f"postgres/shard-{shard}", plan, supervisor, missing)
