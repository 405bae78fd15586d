"""How each member of a local environment is: asked of the servers themselves, never guessed from a process."""

from __future__ import annotations

import csv
import json
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import redis
import urllib3

from infra import patroni
from infra.answers import json_object
from infra.environment import EnvironmentFault, Health, NodeAnswer, ShardState
from infra.local.plan import LOOPBACK, LocalPlan, MemberPlan
from infra.local.supervisor import ProgramState

ASK_TIMEOUT_S: Final = 1.0
"""Loopback answers within milliseconds; a member that needs longer is reported as not answering."""

BLOCK_SLACK_S: Final = 5.0
"""Beyond the time that a loop is blocked: what its requests waited for is answered first."""

UNANSWERED: Final = ("econ", "eresp", "wretr", "wredis")
"""HAProxy's counts of connections that failed, of answers that did not come or broke off, of retries and of requests
that went to another server instead (management guide, 9.1)."""

_http = urllib3.PoolManager(timeout=ASK_TIMEOUT_S, retries=False, maxsize=4)


def get_json(url: str, *, method: str = "GET", body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """One request on loopback; {} for anything but a JSON object. urllib3's HTTPError or OSError: nothing answers."""
    answer = _http.request(method, url, body=body)
    return answer.status, json_object(answer.data)


def block_loop(url: str, admin_token: str, seconds: float) -> tuple[int, int]:
    """Ask a replica to block its own event loop; its beginning and end (monotonic ns). EnvironmentFault if refused."""
    body = json.dumps({"seconds": seconds}).encode()
    headers = {"Authorization": f"Bearer {admin_token}", "Content-Type": "application/json"}
    try:
        answer = urllib3.request(
            "POST",
            f"{url}/chaos/block-loop",
            body=body,
            headers=headers,
            timeout=seconds + BLOCK_SLACK_S,
            retries=False,
        )
    except urllib3.exceptions.HTTPError as error:
        raise EnvironmentFault(f"{url} did not answer for its blocked loop: {error}; is the replica up?") from error
    if answer.status != 200:  # noqa: PLR2004 - HTTP
        raise EnvironmentFault(f"{url} refuses to block its loop ({answer.status}): is chaos on for component api?")
    done = json.loads(answer.data)
    return int(done["began_ns"]), int(done["ended_ns"])


def is_silent(url: str, *, timeout_s: float) -> bool:
    """True when nothing answers there in time."""
    try:
        urllib3.request("GET", url, timeout=timeout_s, retries=False)
    except urllib3.exceptions.HTTPError:
        return True
    return False


def rotation(plan: LocalPlan) -> dict[str, bool]:
    """Whether the edge sends requests to each replica, by its own word; OSError when the edge does not answer."""
    found: dict[str, bool] = {}
    for row in _edge_rows(plan):
        # "UP 1/2" is on its way down, but still gets requests
        found[row["svname"]] = found.get(row["svname"], False) or row["status"].startswith("UP")
    return found


def unanswered(plan: LocalPlan) -> dict[str, int]:
    """How often the edge has got no answer from each replica since it started, by its own count; OSError likewise.

    Counted are attempts, not requests: what it then asked of another one, and what it could ask of nobody else.
    """
    found: dict[str, int] = {}
    for row in _edge_rows(plan):
        failed = sum(int(row[column] or 0) for column in UNANSWERED)
        found[row["svname"]] = found.get(row["svname"], 0) + failed
    return found


def _edge_rows(plan: LocalPlan) -> list[dict[str, str]]:
    with socket.socket(socket.AF_UNIX) as edge:
        edge.settimeout(ASK_TIMEOUT_S)
        edge.connect(str(plan.of("edge")[0].directory / "admin.sock"))
        edge.sendall(b"show stat -1 4 -1\n")  # every backend, servers only, each of them
        with edge.makefile("r", encoding="ascii") as lines:
            return list(csv.DictReader(line.removeprefix("# ") for line in lines if line.strip()))


def obstacle(replica: MemberPlan) -> str | None:
    """Why an API replica is not ready, by its own word; None when it is."""
    try:
        status, answer = get_json(f"http://{LOOPBACK}:{replica.port}/readyz")
    except (OSError, urllib3.exceptions.HTTPError) as error:
        return f"not answering: {type(error).__name__}"
    return None if status == 200 else str(answer.get("reason") or answer.get("detail") or status)  # noqa: PLR2004 - HTTP


def metrics(replica: MemberPlan) -> str | None:
    """An API replica's /metrics; None when it does not answer."""
    try:
        answer = _http.request("GET", f"http://{LOOPBACK}:{replica.port}/metrics")
    except (OSError, urllib3.exceptions.HTTPError):
        return None
    return answer.data.decode(errors="replace") if answer.status == 200 else None  # noqa: PLR2004 - HTTP


def h2o_answer(node: MemberPlan, path: str) -> NodeAnswer | None:
    """What an H2O node's agent answers; None when it does not."""
    try:
        return NodeAnswer(*get_json(f"http://{LOOPBACK}:{node.aux_port}{path}"))
    except (OSError, urllib3.exceptions.HTTPError):
        return None


def ask_all(plan: LocalPlan, states: dict[str, ProgramState]) -> tuple[Health, ...]:
    """Every member's health, asked in parallel, in the plan's order."""
    with ThreadPoolExecutor(max_workers=len(plan.members)) as pool:
        return tuple(pool.map(lambda member: ask(plan, member, states), plan.members))


def ask(plan: LocalPlan, member: MemberPlan, states: dict[str, ProgramState]) -> Health:
    mine = [state for state in states.values() if state.member == member.name]
    if not any(state.pid for state in mine):
        return Health(member.name, member.component, "-", False, "down")
    kind = member.component.split("/", 1)[0]
    try:
        return _ASK[kind](plan, member)
    except (OSError, urllib3.exceptions.HTTPError, redis.RedisError) as error:
        return Health(member.name, member.component, "-", False, f"not answering ({type(error).__name__})")


def _etcd(plan: LocalPlan, member: MemberPlan) -> Health:
    url = f"http://{LOOPBACK}:{member.port}/v3/maintenance/status"
    _, status = get_json(url, method="POST", body=b"{}")
    own, leader = status.get("header", {}).get("member_id"), status.get("leader")
    healthy = get_json(f"http://{LOOPBACK}:{member.port}/health")[1].get("health") == "true"
    role = "leader" if leader and own == leader else "follower"
    return Health(member.name, member.component, role, healthy, "healthy" if healthy else "no quorum")


def _postgres(plan: LocalPlan, member: MemberPlan) -> Health:
    _, own = get_json(f"http://{LOOPBACK}:{member.aux_port}/patroni")
    _, cluster = get_json(f"http://{LOOPBACK}:{member.aux_port}/cluster")
    return patroni.health(member.name, member.component, own, cluster)


def _redis(plan: LocalPlan, member: MemberPlan) -> Health:
    password = (plan.secrets_dir / "redis").read_text()
    with redis.Redis(LOOPBACK, member.port, password=password, socket_timeout=ASK_TIMEOUT_S) as client:
        client.ping()
    return Health(member.name, member.component, "cache", True, "healthy")


def _h2o(plan: LocalPlan, member: MemberPlan) -> Health:
    _, node = get_json(f"http://{LOOPBACK}:{member.aux_port}/status")
    memory = f"heap {node.get('heap_mb')} + native {node.get('native_mb')} MB"
    state = f"{node.get('cloud')} of {node.get('size')} nodes, consensus" if node.get("ready") else node.get("reason")
    role = "keeper" if node.get("elected") else "node"
    return Health(member.name, member.component, role, bool(node.get("ready")), f"{state}; {memory}")


def _registry(plan: LocalPlan, member: MemberPlan) -> Health:
    ready, answer = get_json(f"http://{LOOPBACK}:{member.port}/ready")
    state = "rows and pointers agree" if ready == 200 else f"not ready: {answer.get('reason') or ready}"  # noqa: PLR2004
    return Health(member.name, member.component, "reconciler", ready == 200, state)  # noqa: PLR2004


def _mage(plan: LocalPlan, member: MemberPlan) -> Health:
    _, answer = get_json(f"http://{LOOPBACK}:{member.aux_port}/status")
    ready, run = bool(answer.get("ready")), answer.get("running")
    state = "takes orders" if run is None else f"run {run} is under way"
    return Health(member.name, member.component, "scheduler", ready, state if ready else str(answer.get("reason")))


def _api(plan: LocalPlan, member: MemberPlan) -> Health:
    alive, _ = get_json(f"http://{LOOPBACK}:{member.port}/healthz")
    ready, reason = get_json(f"http://{LOOPBACK}:{member.port}/readyz")
    state = "ready" if ready == 200 else f"not ready: {reason.get('reason') or reason.get('detail') or ready}"  # noqa: PLR2004
    return Health(member.name, member.component, "replica", alive == 200, state)  # noqa: PLR2004


def _edge(plan: LocalPlan, member: MemberPlan) -> Health:
    context = ssl.create_default_context(cafile=plan.ca_file)
    with (
        socket.create_connection((LOOPBACK, member.port), timeout=ASK_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=LOOPBACK) as secure,
    ):
        version = (secure.version() or "").replace("TLSv", "TLS ")
        return Health(member.name, member.component, version, True, "healthy")


_ASK: Final = {
    "etcd": _etcd,
    "postgres": _postgres,
    "redis": _redis,
    "h2o": _h2o,
    "registry": _registry,
    "mage": _mage,
    "api": _api,
    "edge": _edge,
}


def shard_state(plan: LocalPlan, shard: int) -> ShardState:
    """Ask every member of the shard about itself; primary None when none says that it is."""
    return patroni.shard_state(shard, {member.name: _own_state(member) for member in plan.of_shard(shard)})


def missing_redundancy(plan: LocalPlan, shard: int) -> str | None:
    """What the shard lacks to survive its primary's loss, in words; None when it lacks nothing."""
    needed = plan.topology.postgres.members_per_shard - 1
    state = shard_state(plan, shard)
    if state.primary is None:
        return f"shard {shard} has no running primary"
    if len(state.streaming) < needed:
        return f"shard {shard}: {len(state.streaming)} of {needed} replicas stream"
    if plan.topology.postgres.patroni.synchronous == "quorum" and len(state.synchronous) < needed:
        return f"shard {shard}: {len(state.synchronous)} of {needed} replicas count for the quorum"
    return None


def _own_state(member: MemberPlan) -> dict[str, Any]:
    """Patroni's live word on its own server; empty when it does not answer."""
    try:
        return get_json(f"http://{LOOPBACK}:{member.aux_port}/patroni")[1]
    except (OSError, urllib3.exceptions.HTTPError):
        return {}
