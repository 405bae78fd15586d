"""What fails inside a cluster that stays whole: a server in a living pod, a pod, a node of H2O."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from infra.kubernetes.plan import H2O_STATUS, PYTHON
from tests.kubernetes.load import running
from tests.kubernetes.platform import Platform, eventually, ready

Record = Callable[[str, object], None]
WARDEN_S = 2.0
FAILOVER_S = 30.0
REFORMED_S = 180.0
KNOWN_S = 15.0
"""CoreDNS serves a name for 5 s, Patroni's addresses are as old at most; both may date from before the last pod."""
KILL_SERVER = """
import contextlib, json, os, signal, time
from pathlib import Path
member = Path("/var/lib/breakwater")
patroni = json.loads((member / "run/patroni.pid").read_text())["pid"]
postmaster = int((member / "data/postmaster.pid").read_text().split()[0])
parents = {}
for entry in Path("/proc").iterdir():
    with contextlib.suppress(OSError, ValueError):
        parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
began = time.time()
for pid in (patroni, postmaster, *(pid for pid, parent in parents.items() if parent == postmaster)):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
print(began)
"""
ASK_NODE = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.stdin.read(), timeout=5).read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_a_server_killed_in_a_living_pod_is_replaced_at_once(platform: Platform, record_property: Record) -> None:
    primary = eventually("a primary", 60, lambda: platform.primary(0))
    before = _pod(platform, primary)
    with running(platform, predictions=False) as load:
        fault = _kill_server(platform, primary)
        recovered_s = load.recovered_after(0, fault)
        eventually("writes go on", 30, lambda: len(load.acknowledged(0, fault)) > 50)
        eventually("another primary", 30, lambda: platform.primary(0) not in {primary, None})
        others = load.bad(after=fault - 1.0, but_shard=0)
    after = _pod(platform, primary)
    record_property("recovered_s", f"{recovered_s:.2f}")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert _restarts(after, "server") == _restarts(before, "server") + 1
    assert recovered_s < WARDEN_S
    assert others == []
    assert load.lost(platform) == set()
    platform.rolled_out("statefulset/shard-0")


def test_a_failover_after_a_restart_asks_members_where_they_are_now(
    platform: Platform, record_property: Record
) -> None:
    """A member that is replaced has another address, and Patroni by itself would ask at the old one for 10 minutes."""
    platform.kubectl("rollout", "restart", "statefulset/shard-1")
    platform.rolled_out("statefulset/shard-1", timeout_s=400)
    time.sleep(KNOWN_S)
    primary = eventually("a primary", 60, lambda: platform.primary(1))
    with running(platform, predictions=False) as load:
        fault = _kill_server(platform, primary)
        recovered_s = load.recovered_after(1, fault)
        eventually("another primary", 30, lambda: platform.primary(1) not in {primary, None})
    record_property("recovered_s", f"{recovered_s:.2f}")
    since = f"--since={time.monotonic() - fault + 1:.0f}s"
    others = [f"shard-1-{member}" for member in range(3) if f"shard-1-{member}" != primary]
    said = "".join(platform.kubectl("logs", member, "-c", "server", since) for member in others)
    assert "promoted self to leader" in said
    assert "timed out" not in said
    assert load.lost(platform) == set()
    platform.rolled_out("statefulset/shard-1")


def test_a_deleted_primary_loses_no_acknowledged_write(platform: Platform, record_property: Record) -> None:
    primary = eventually("a primary", 60, lambda: platform.primary(0))
    with running(platform, predictions=False) as load:
        fault = time.monotonic()
        platform.kubectl("delete", "pod", primary, "--wait=false")
        eventually("another primary", 60, lambda: platform.primary(0) not in {primary, None})
        deposed = time.monotonic()
        eventually("writes go on", 60, lambda: len(load.acknowledged(0, deposed)) > 50)
        recovered_s = load.longest_pause(0, fault)
        others = load.bad(after=fault, but_shard=0)
    record_property("longest_pause_s", f"{recovered_s:.2f}")
    assert recovered_s < FAILOVER_S
    assert others == []
    assert load.lost(platform) == set()
    platform.rolled_out("statefulset/shard-0")


def test_h2o_reforms_after_the_loss_of_a_node(platform: Platform, record_property: Record) -> None:
    nodes = platform.plan.topology.h2o.nodes
    epoch = eventually("H2O's nodes agree", 120, lambda: _epoch(platform))
    began = time.monotonic()
    platform.kubectl("delete", "pod", "h2o-1", "--grace-period=0", "--force", "--wait=false")
    # readiness is consensus: without one node a node that lives is not ready either
    eventually("another node is not ready", 60, lambda: _asked(platform, "/ready").strip() == "503")
    broken_s = time.monotonic() - began
    eventually("a new cloud", REFORMED_S, lambda: len([p for p in platform.pods("h2o") if ready(p)]) == nodes)
    record_property("unready_after_s", f"{broken_s:.1f}")
    record_property("reformed_after_s", f"{time.monotonic() - began:.1f}")
    assert time.monotonic() - began < REFORMED_S
    assert eventually("they agree", 60, lambda: _epoch(platform)) > epoch


def _kill_server(platform: Platform, member: str) -> float:
    """When by this machine's monotonic clock, seconds."""
    said = platform.kubectl("exec", member, "-c", "warden", "--", PYTHON, "-c", KILL_SERVER)
    return time.monotonic() - (time.time() - float(said))


def _pod(platform: Platform, name: str) -> dict[str, Any]:
    (found,) = platform.get("pods", "--field-selector", f"metadata.name={name}")
    return found


def _restarts(pod: dict[str, Any], container: str) -> int:
    (status,) = [each for each in pod["status"]["containerStatuses"] if each["name"] == container]
    return int(status["restartCount"])


def _epoch(platform: Platform) -> int | None:
    """The cloud's number, where all nodes agree on one."""
    pods = platform.pods("h2o")
    if not pods or not all(ready(pod) for pod in pods):
        return None
    return int(json.loads(_asked(platform, "/status"))["epoch"])


def _asked(platform: Platform, path: str) -> str:
    """What a node says of itself: the body, or the code of a refusal."""
    url = f"http://{platform.plan.member_host('h2o', 'h2o-0')}:{H2O_STATUS}{path}"
    return platform.kubectl("exec", "-i", "h2o-0", "-c", "node", "--", PYTHON, "-c", ASK_NODE, stdin=url)
