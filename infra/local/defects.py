"""Defects put into a running local environment from outside, so that controls can show that the suite sees them.

Nothing in a service or a checker knows of them. Each has its way back, which the experiment's rollbacks call.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterable, Mapping
from typing import Final

import psycopg
import redis

from infra.environment import EnvironmentFault, ProcessId
from infra.local import probe, processes, rolling, servers, shard_config
from infra.local.account import Account
from infra.local.environment import LocalEnvironment
from infra.local.plan import LOOPBACK, LocalPlan, MemberPlan
from infra.local.probe import shard_state
from infra.local.secrets import redis_password_file
from infra.local.servers import CACHE_POLICY
from infra.local.supervisor import Supervisor
from services.contracts.flights import MODEL_NAME
from services.contracts.shards import leader_key
from services.coordination.etcd import EtcdClient, LeaseGone
from services.h2o.state import Keys
from services.registry.announced import Pointer
from services.registry.published import publish, published_generation
from services.registry.registry import ModelRegistry
from services.registry.store import ArtifactStore

APPLICATION: Final = "breakwater-control"
WAIT_S: Final = 30.0
"""Patroni carries out a change of configuration in its next loop (5 s)."""
POLL_S: Final = 0.02
FULL_AT: Final = "100kb"
"""Less than an empty Redis takes."""
CACHE_S: Final = 2.0
SOUND: Final = '"-m" "services.api"'
DEFECTIVE: Final = "infra.local.defective"
CONTROL_S: Final = 300
"""No control lasts longer: what it left behind when it was killed ends then."""
NEVER_MS: Final = 3_600_000
"""No loop is blocked for an hour."""
NEVER_S: Final = 3600.0
"""No Patroni is silent for an hour."""
REDISPATCH: Final = ("retries ", "option redispatch", "retry-on ")
"""How the lines begin by which the edge asks another replica."""


def wardens_off(plan: LocalPlan) -> int:
    """Stop every warden; returns how many there were."""
    supervisor = Supervisor(plan)
    wardens = [state for state in supervisor.states().values() if state.name.endswith("-warden")]
    supervisor.stop(wardens)
    return len(wardens)


def wardens_on(plan: LocalPlan) -> None:
    supervisor = Supervisor(plan)
    supervisor.start([state for state in supervisor.states().values() if state.name.endswith("-warden")])


def fences_off(plan: LocalPlan) -> list[str]:
    """Have every warden of the environment look away from a Patroni that is silent; returns which members'."""
    return _with_wardens(plan, NEVER_S)


def fences_on(plan: LocalPlan) -> list[str]:
    return _with_wardens(plan, plan.topology.postgres.patroni.ttl)


def _with_wardens(plan: LocalPlan, ttl_s: float) -> list[str]:
    """Change for how long a lease lasts by the wardens' configuration, where it is another; returns whose it was.

    One at a time: six interpreters that start at once would be felt by whoever serves.
    """
    changed = []
    for member in plan.of("postgres"):
        path = member.directory / "warden.json"
        config = json.loads(path.read_text()) if path.exists() else None  # a topology may have no wardens
        if config is not None and config["ttl_s"] != ttl_s:
            Account.for_servers().write(path, json.dumps({**config, "ttl_s": ttl_s}, indent=2))
            _restart_warden(plan, member)
            changed.append(member.name)
    return changed


def _restart_warden(plan: LocalPlan, member: MemberPlan) -> None:
    """Returns once it says that it watches."""
    journal = member.directory / "warden-events.jsonl"
    known = len(journal.read_bytes()) if journal.exists() else 0
    supervisor = Supervisor(plan)
    wardens = [state for state in supervisor.states().values() if state.name == f"{member.name}-warden"]
    supervisor.stop(wardens)
    supervisor.start(wardens)
    end = time.monotonic() + WAIT_S
    while not journal.exists() or b'"watching"' not in journal.read_bytes()[known:]:
        if time.monotonic() > end:
            raise EnvironmentFault(f"the warden of {member.name} did not come back within {WAIT_S:.0f} s")
        time.sleep(POLL_S)


def lengthen_lease(plan: LocalPlan, shard: int, ttl_s: int) -> None:
    """Change for how long the shard's leadership lasts, and wait until its primary holds a lease of that length."""
    shard_config.change(plan, shard, {"ttl": ttl_s})
    end = time.monotonic() + WAIT_S
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        while True:
            leader = etcd.get(leader_key(plan.environment, shard))
            with contextlib.suppress(LeaseGone):  # it was changed for the longer one just now
                if leader is not None and etcd.keep_alive(leader.lease) == ttl_s:
                    return
            if time.monotonic() > end:
                raise EnvironmentFault(f"shard {shard} took no lease of {ttl_s} s within {WAIT_S:.0f} s")
            time.sleep(POLL_S)


def watchdogs_off(plan: LocalPlan) -> list[str]:
    """Give every API replica a watchdog that never finds its loop blocked; returns whom."""
    return _with_watchdogs(plan, NEVER_MS)


def watchdogs_on(plan: LocalPlan) -> list[str]:
    return _with_watchdogs(plan, plan.topology.api.watchdog_ms)


def _with_watchdogs(plan: LocalPlan, limit_ms: int) -> list[str]:
    """Change each replica's configuration where it is another, and restart it; one at a time, so that others serve."""
    account = Account.for_servers()
    changed = []
    for replica in plan.of("api"):
        path = replica.directory / "api.json"
        config = json.loads(path.read_text())
        if config["watchdog_ms"] != limit_ms:
            account.write(path, json.dumps({**config, "watchdog_ms": limit_ms}, indent=2))
            _restart(plan, replica)
            changed.append(replica.name)
    return changed


def make_defective(plan: LocalPlan, defect: str) -> list[str]:
    """Run every API replica with a defect of `infra.local.defective` patched in; returns whom."""
    _supervise(plan, re.escape(SOUND), f'"-m" "{DEFECTIVE}" "{defect}" "services.api"')
    for replica in plan.of("api"):
        _restart(plan, replica)
    return [replica.name for replica in plan.of("api")]


def make_sound(plan: LocalPlan) -> list[str]:
    """Run whatever was made defective as it was, also when only some replicas were; returns whom."""
    _supervise(plan, rf'"-m" "{re.escape(DEFECTIVE)}" "[^"]*" "services\.api"', SOUND)
    environment = LocalEnvironment(plan)
    found = [
        replica
        for replica in plan.of("api")
        if any(DEFECTIVE in words for words in environment.command_lines(replica.name))
    ]
    for replica in found:  # one at a time, so that the others serve
        _restart(plan, replica)
    return [replica.name for replica in found]


def _supervise(plan: LocalPlan, before: str, after: str) -> None:
    """Change what supervisord runs as a replica when it starts one next; `before` is a pattern."""
    config = Supervisor(plan).config
    config.write_text(re.sub(before, after, config.read_text()))


def take_election(plan: LocalPlan) -> str:
    """Have nobody elected as keeper of the H2O cloud: the key belongs to none of the nodes. Returns who held it."""
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        found = etcd.get(Keys.of(plan.environment).keeper)
        etcd.put(Keys.of(plan.environment).keeper, APPLICATION, lease=etcd.grant_lease(CONTROL_S))
    return "nobody" if found is None else found.value


def open_election(plan: LocalPlan) -> None:
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        etcd.delete(Keys.of(plan.environment).keeper)


def point_at(plan: LocalPlan, version: str) -> int:
    """Move the pointer to a registered version without asking any replica; returns the generation it then has."""
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        store = ArtifactStore(plan.artifacts)
        registry = ModelRegistry(plan.registry_endpoints(), etcd, plan.environment, store)
        generation = published_generation(etcd, plan.environment, MODEL_NAME) + 1
        manifest = registry.version(MODEL_NAME, version).manifest
        publish(
            etcd, plan.environment, Pointer(name=MODEL_NAME, version=version, generation=generation, manifest=manifest)
        )
    return generation


def restart_edge(plan: LocalPlan) -> None:
    """Stop the edge and start it again, as if nothing could take its sockets over."""
    supervisor = Supervisor(plan)
    programs = [state for state in supervisor.states().values() if state.member.startswith("edge-")]
    supervisor.stop(programs)
    supervisor.start(programs)


def edge_asks_once(plan: LocalPlan) -> None:
    """Have the edge ask nobody else when a replica has not answered a prediction."""
    for edge in plan.of("edge"):
        _with_edge(plan, edge, asking_once(servers.edge_config(plan, edge)))


def edge_trusts(plan: LocalPlan) -> None:
    """Have the edge ask no replica by HTTP whether it answers; what the replicas' watchdogs say still counts."""
    for edge in plan.of("edge"):
        _with_edge(plan, edge, trusting(servers.edge_config(plan, edge)))


def trusting(config: str) -> str:
    """The same configuration of an edge, but that it believes whoever accepts connections."""
    checks = ("option httpchk", "http-check ")
    return "".join(line for line in config.splitlines(keepends=True) if not line.strip().startswith(checks))


def asking_once(config: str) -> str:
    """The same configuration of an edge, but that a prediction goes to one replica only."""
    before, backend, after = config.partition("backend predict\n")
    own, following, rest = after.partition("backend api\n")
    kept = [line for line in own.splitlines(keepends=True) if not line.strip().startswith(REDISPATCH)]
    return f"{before}{backend}{''.join(kept)}    retries 0\n{following}{rest}"


def edge_sound(plan: LocalPlan) -> list[str]:
    """Give each edge the configuration that the topology has for it; returns who had another."""
    return [edge.name for edge in plan.of("edge") if _with_edge(plan, edge, servers.edge_config(plan, edge))]


def _with_edge(plan: LocalPlan, edge: MemberPlan, config: str) -> bool:
    """Have the edge go on by this configuration; False when it is the one that it has."""
    path = edge.directory / "haproxy.cfg"
    if path.read_text() == config:
        return False
    Account.for_servers().write(path, config)
    rolling.reload_edge(LocalEnvironment(plan), edge)
    return True


def _restart(plan: LocalPlan, replica: MemberPlan) -> None:
    supervisor = Supervisor(plan)
    programs = [state for state in supervisor.states().values() if state.member == replica.name]
    supervisor.stop(programs)
    supervisor.take_again(replica.name)
    supervisor.start([state for state in supervisor.states().values() if state.member == replica.name])
    end = time.monotonic() + WAIT_S
    while not probe.rotation(plan).get(replica.name, False) or probe.obstacle(replica) is not None:
        if time.monotonic() > end:
            raise EnvironmentFault(f"{replica.name} did not come back into rotation within {WAIT_S:.0f} s")
        time.sleep(POLL_S)


def cache_full(plan: LocalPlan) -> None:
    """Leave Redis no room and forbid it to make any: it goes on answering, and stores nothing more."""
    _configure_cache(plan, {"maxmemory-policy": "noeviction", "maxmemory": FULL_AT})


def cache_roomy(plan: LocalPlan) -> None:
    """As the topology has it."""
    limit = f"{plan.topology.redis.max_memory_mb}mb"
    _configure_cache(plan, {"maxmemory": limit, "maxmemory-policy": CACHE_POLICY})


def _configure_cache(plan: LocalPlan, settings: Mapping[str, str]) -> None:
    password = redis_password_file(plan).read_text()
    with redis.Redis(LOOPBACK, plan.of("redis")[0].port, password=password, socket_timeout=CACHE_S) as client:
        for name, value in settings.items():
            client.config_set(name, value)


def set_replication(plan: LocalPlan, shard: int, mode: str) -> None:
    """Make the shard's replication `quorum` or `off` (asynchronous) and wait until the primary has it so."""
    shard_config.change(plan, shard, {"synchronous_mode": mode, "synchronous_mode_strict": mode == "quorum"})
    end = time.monotonic() + WAIT_S
    with psycopg.connect(plan.admin_endpoints(shard).conninfo("read-write", application_name=APPLICATION)) as primary:
        primary.autocommit = True
        while True:
            row = primary.execute("show synchronous_standby_names").fetchone()
            if row is not None and bool(row[0]) == (mode == "quorum"):
                return
            if time.monotonic() > end:
                raise EnvironmentFault(f"shard {shard} did not change its replication to {mode} within {WAIT_S:.0f} s")
            time.sleep(POLL_S)


def hold_replay_back(plan: LocalPlan, shard: int, seconds: float) -> list[str]:
    """Have the shard's standbys go on receiving, and replay nothing, for some seconds; returns whom."""
    primary = shard_state(plan, shard).primary
    standbys = [member.name for member in plan.of_shard(shard) if member.name != primary]
    with contextlib.ExitStack() as stack:
        for name in standbys:
            conninfo = plan.admin_endpoints(shard).member_conninfo(name, application_name=APPLICATION)
            standby = stack.enter_context(psycopg.connect(conninfo, autocommit=True))
            standby.execute("select pg_wal_replay_pause()")
            stack.callback(standby.execute, "select pg_wal_replay_resume()")
        time.sleep(seconds)
    return standbys


def walreceivers(plan: LocalPlan, shard: int) -> tuple[ProcessId, ...]:
    """The process on each replica that receives WAL."""
    primary = shard_state(plan, shard).primary
    found = []
    for member in plan.of_shard(shard):
        if member.name == primary:
            continue
        conninfo = plan.admin_endpoints(shard).member_conninfo(member.name, application_name=APPLICATION)
        with psycopg.connect(conninfo) as replica:
            row = replica.execute("select pid from pg_stat_wal_receiver").fetchone()
        process = processes.read(row[0]) if row else None
        if process is None:
            raise EnvironmentFault(f"{member.name} has no walreceiver: it does not stream; see `breakwater status`")
        found.append(process.id)
    return tuple(found)


def signal_all(identities: Iterable[ProcessId], sig: signal.Signals) -> None:
    """Signal those that still are the same processes."""
    for identity in identities:
        if processes.is_alive(identity):
            os.kill(identity.pid, sig)
