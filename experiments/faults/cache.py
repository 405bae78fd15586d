"""Actions on the cache: hot keys gone or expiring all at once, and a Redis that is dead or stands still."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final, Literal, cast

import redis

from experiments.errors import ExperimentError
from experiments.faults.clock import wait_until
from experiments.faults.written import record_fault, say, the_fault
from experiments.probes.replica_metrics import counted
from infra import environment as runtime
from infra.environment import Environment, FaultProof, FaultRefused, Member
from infra.stack import open_environment
from loadtests.plan import LoadPlan
from services.contracts.events import Event

How = Literal["delete", "expire", "kill", "pause"]

KEYS: Final = "bw:score:*"
LOCK: Final = ":lock"
HOT_S: Final = 3
"""A key that was asked for within this time is hot: others, of earlier runs, nobody will ask for again."""
ANSWER_S: Final = 2.0

HOT_KEYS: Final = f"""
local hot = {{}}
for _, key in ipairs(redis.call('KEYS', '{KEYS}')) do
    if string.sub(key, -{len(LOCK)}) ~= '{LOCK}' and redis.call('OBJECT', 'IDLETIME', key) < {HOT_S} then
        hot[#hot + 1] = key
    end
end
local struck = 0
"""
DELETE: Final = (
    HOT_KEYS + "for _, key in ipairs(hot) do struck = struck + redis.call('DEL', key) end return {#hot, struck}"
)
EXPIRE: Final = (
    HOT_KEYS
    + """
for _, key in ipairs(hot) do
    redis.call('PEXPIRE', key, ARGV[1])
    if redis.call('PTTL', key) <= tonumber(ARGV[1]) then struck = struck + 1 end
end
return {#hot, struck}
"""
)
"""One step of Redis, so that no client sees some keys struck and others not -> hot keys, and those that were struck."""
EMPTY: Final = "redis.call('FLUSHALL') return redis.call('DBSIZE')"
BEFORE_LOAD_S: Final = 0.05
"""Emptying takes a millisecond; what is measured begins with the first arrival all the same."""


def strike(environment: str, run_dir: str, how: How, left_ms: int) -> dict[str, Any]:
    """Delete all hot keys, leave each `left_ms` to live (past its soft expiry), or kill or pause Redis until `lift`."""
    target = open_environment(environment)
    cache = target.members("redis")[0]
    count(target, run_dir, "before")
    if how in {"delete", "expire"}:
        proof, keys = _expire(target, cache, how, left_ms)
        left = {"left_ms": left_ms} if how == "expire" else {}
        record_fault(Path(run_dir), proof, component="redis", proven=True, keys=keys, **left)
        return {"member": cache.name, "keys": keys}
    proof = target.kill(cache.name, scope="member", hold=True) if how == "kill" else target.pause(cache.name)
    record_fault(Path(run_dir), proof, component="redis", proven=True)
    return {"member": cache.name, "processes": len(proof.processes)}


def begin_empty(environment: str, run_dir: str) -> dict[str, Any]:
    """Empty the cache in the moment before the load's first arrival: every score is missing, at the full rate."""
    target = open_environment(environment)
    cache = target.members("redis")[0]
    process = target.process_of(cache.name)
    if process is None:
        raise FaultRefused(f"{cache.name} does not run, so it cannot be emptied; is it up? `breakwater status`")
    load = LoadPlan.load(Path(run_dir) / "load.json")
    count(target, run_dir, "before")
    if (left_s := load.start_ns / 1e9 - BEFORE_LOAD_S - time.monotonic()) < 0:
        raise ExperimentError(
            f"the load began {-left_s:.1f} s before the cache could be emptied: the machine is too busy"
        )
    time.sleep(left_s)
    t_ns = time.monotonic_ns()
    left = _ask(target, cache, EMPTY, 0)
    keys = len(load.samples())
    proof = FaultProof(cache.name, "keys", "DEL", False, t_ns, (process,), left == 0, f"{left} keys left in the cache")
    say(run_dir, Event.now("run", "load_started"))
    record_fault(Path(run_dir), proof, component="redis", proven=True, keys=keys)
    return {"member": cache.name, "asked_for": keys}


def _expire(target: Environment, cache: Member, how: How, left_ms: int) -> tuple[FaultProof, int]:
    process = target.process_of(cache.name)
    if process is None:
        raise FaultRefused(f"{cache.name} does not run, so it holds no keys; is it up? `breakwater status`")
    t_ns = time.monotonic_ns()
    hot, struck = cast(list[int], _ask(target, cache, DELETE if how == "delete" else EXPIRE, left_ms))
    what = "deleted" if how == "delete" else f"left {left_ms} ms to live"
    evidence = f"{struck} of {hot} hot keys {what} in one step"
    method = "DEL" if how == "delete" else "PEXPIRE"
    proof = FaultProof(cache.name, "keys", method, False, t_ns, (process,), 0 < hot == struck, evidence)
    return proof, struck


def _ask(target: Environment, cache: Member, script: str, argument: int) -> object:
    """What one step of Redis returns."""
    password = target.cache_password_file().read_text()
    try:
        with redis.Redis(cache.host, cache.port, password=password, socket_timeout=ANSWER_S) as client:
            return client.eval(script, 0, argument)
    except redis.RedisError as error:
        raise ExperimentError(f"{cache.name} refused to lose its keys: {error}") from error


def lift(environment: str, run_dir: str, seconds: float) -> dict[str, Any]:
    """Let the fault last until `seconds` after it struck, count, then start or resume Redis if it was that."""
    fault = the_fault(Path(run_dir))
    target = open_environment(environment)
    wait_until(fault.t_ns, after_s=seconds)
    count(target, run_dir, "after")
    say(run_dir, Event.now("fault", "lifted", fault.member))
    if fault.method == "SIGKILL":
        target.start(fault.member)
    elif fault.method == "SIGSTOP":
        target.resume(fault.member)
    return {"member": fault.member}


def count(target: runtime.Environment, run_dir: str, when: Literal["before", "after"]) -> None:
    """Note what each replica has counted so far; one that does not answer is not noted."""
    for member in target.members("api"):
        if member.url is not None and (found := counted(member.url)) is not None:
            say(run_dir, Event.now("metrics", when, member.name, **found))
