"""The rendered platform on a real cluster: becomes healthy, is restricted, takes writes, survives its primary."""

from __future__ import annotations

import datetime
import itertools
import threading
import time
import uuid

import httpx
import pytest

from tests.kubernetes.platform import KubectlFailed, Platform, eventually, ready
from tests.kubernetes.training import NAME, training_job

FAILOVER_S = 30.0
FEATURES = {
    "month": 12,
    "day_of_week": 5,
    "departure_minute": 1065,
    "arrival_minute": 1240,
    "distance": 1089,
    "carrier": "AA",
    "origin": "LGA",
    "dest": "MIA",
}
STORED = """
import sys, psycopg
from services.api.settings import load_settings
(shard,) = load_settings().shards
with psycopg.connect(shard.conninfo("read-write", application_name="test")) as connection:
    wanted = sys.stdin.read().split()
    rows = connection.execute("select entity_id::text from features where entity_id = any(%s::uuid[])", (wanted,))
    print(" ".join(row[0] for row in rows))
"""


def test_everything_becomes_healthy(platform: Platform) -> None:
    for workload in ("statefulset/etcd", "statefulset/shard-0", "deployment/redis"):
        platform.rolled_out(workload)
    for workload in ("deployment/registry", "deployment/edge"):
        platform.rolled_out(workload)
    assert len([pod for pod in platform.pods("postgres") if ready(pod)]) == 3
    # all its nodes are replaced together, so that there is no rollout to follow
    eventually("H2O's nodes agree", 120, lambda: all(ready(pod) for pod in platform.pods("h2o")))


def test_predictions_come_through_the_edge_once_a_model_is_trained(platform: Platform) -> None:
    platform.apply([training_job(platform.plan, platform.objects())])
    platform.complete(NAME)
    platform.rolled_out("deployment/api")
    headers = {"Authorization": f"Bearer {platform.token()}"}
    with platform.edge() as url, httpx.Client(verify=platform.trust(), timeout=5.0, headers=headers) as client:
        first = client.post(f"{url}/v1/predict", json={"features": FEATURES})
        again = client.post(f"{url}/v1/predict", json={"features": FEATURES})
    assert first.status_code == 200, first.text
    assert 0 < first.json()["probability"] < 1
    assert again.json() == first.json() | {"source": "cache"}


def test_every_pod_was_admitted_under_pod_security_restricted(platform: Platform) -> None:
    (namespace,) = platform.get("namespaces", "--field-selector", f"metadata.name={platform.plan.namespace}")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for kind in ("statefulsets", "deployments"):
        for made in platform.get(kind):
            wanted = made["spec"]["replicas"]
            assert made["status"].get("replicas") == wanted, f"{made['metadata']['name']} has not all of its pods"
    with pytest.raises(KubectlFailed, match="violates PodSecurity"):
        platform.kubectl("run", "privileged", "--image=none", "--privileged", "--dry-run=server")


def test_a_second_apply_changes_nothing(platform: Platform) -> None:
    objects = platform.objects()
    before = platform.identities()
    assert platform.difference(objects) == ""
    platform.apply(objects)
    assert platform.identities() == before


def test_a_deleted_primary_loses_no_acknowledged_write(platform: Platform) -> None:
    primary = eventually("a primary", 60, lambda: platform.primary(0))
    acknowledged: list[tuple[float, str]] = []
    stop = threading.Event()
    with platform.edge() as url, httpx.Client(verify=platform.trust(), timeout=5.0) as client:
        writer = threading.Thread(target=_write_until, args=(platform, client, url, stop, acknowledged))
        writer.start()
        eventually("writes are acknowledged", 30, lambda: len(acknowledged) > 50)
        deleted = time.monotonic()
        platform.kubectl("delete", "pod", primary, "--wait=false")
        eventually("another primary", 60, lambda: platform.primary(0) not in {primary, None})
        eventually("writes go on", 60, lambda: acknowledged[-1][0] > deleted + FAILOVER_S / 2)
        stop.set()
        writer.join()
    times = [at for at, _ in acknowledged if at > deleted - 1]
    longest = max(after - before for before, after in itertools.pairwise(times))
    assert longest < FAILOVER_S
    keys = {key for _, key in acknowledged}
    stored = set(platform.python("api", STORED, stdin="\n".join(keys)).split())
    assert keys - stored == set()
    platform.rolled_out("statefulset/shard-0")


def _write_until(
    platform: Platform, client: httpx.Client, url: str, stop: threading.Event, acknowledged: list[tuple[float, str]]
) -> None:
    headers = {"Authorization": f"Bearer {platform.token()}"}
    when = datetime.datetime.now(datetime.UTC).isoformat()
    while not stop.is_set():
        key = str(uuid.uuid4())
        write = {"entity_id": key, "event_time": when, "segment": "test", "features": FEATURES}
        try:
            answer = client.post(f"{url}/v1/features", json=write, headers=headers)
        except httpx.HTTPError:
            continue
        if answer.status_code == 200:
            acknowledged.append((time.monotonic(), key))
        time.sleep(0.02)
