"""Load plans for tests: one shard or none that answers, short, and everything under one directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from loadtests.launch import environment
from loadtests.plan import LoadPlan
from services.contracts.flights import entity_id
from services.contracts.shards import ShardEndpoints
from services.contracts.slots import SlotMap

NS_PER_S = 1_000_000_000
RUN_TAG = 0xB0A7_0000_0000_0001
FLIGHT = {
    "month": 1, "day_of_week": 2, "departure_minute": 315, "arrival_minute": 510, "distance": 1400.0,
    "carrier": "UA", "origin": "EWR", "dest": "IAH", "temp": 39.02, "plane_year": 1999,
}  # fmt: skip
FLIGHT_TIME = "2013-01-01T10:15:00+00:00"


def etcd_at(*urls: str) -> dict[str, Any]:
    """A plan's etcd; servers without encryption."""
    found = [urlsplit(url) for url in urls]
    return {"hosts": [{"name": f"etcd-{at}", "host": url.hostname, "port": url.port} for at, url in enumerate(found)]}


@cache
def startup_s() -> float:
    """How far ahead a plan must start on this machine: load processes import for a second, or ten when it is busy."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import locust, loadtests.writers, pandas"], check=True)
    return 1 + 2 * (time.monotonic() - began)


def write_plan(
    directory: Path, shards: Sequence[ShardEndpoints], *, rates: dict[str, float], seconds: float, **changes: Any
) -> tuple[Path, LoadPlan]:
    """A plan that starts as soon as its processes can and names one loaded flight as its only sample."""
    (directory / "parts").mkdir(exist_ok=True)
    samples = directory / "samples.jsonl"
    flight = entity_id("UA", 1545, "EWR", "IAH")
    sample = {"entity_id": str(flight), "event_time": FLIGHT_TIME, "features": FLIGHT}
    samples.write_text(json.dumps(sample) + "\n")
    start = time.monotonic_ns() + int(startup_s() * NS_PER_S)
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    plan = {
        "environment": "test",
        "edge_url": "https://127.0.0.1:1",
        "ca_file": str(directory / "ca.pem"),
        "token_file": str(directory / "token"),
        "etcd": etcd_at("http://127.0.0.1:1"),
        "shards": [shard.model_dump(mode="json") for shard in shards],
        "members": [host.name for shard in shards for host in shard.hosts],
        "slot_map": json.loads(SlotMap.even(len(shards)).to_json()),
        "samples_file": str(samples),
        "run_tag": RUN_TAG,
        "seed": 7,
        "rates": {"predict": 0, "write": 0, "write_api": 0, "read": 0} | rates,
        "deadlines_ms": {"predict": 500, "write": 1000, "read": 500},
        "write_event_time": month.isoformat(),
        "start_ns": start,
        "end_ns": start + int(seconds * NS_PER_S),
        "stop_file": str(directory / "stop"),
        "out_dir": str(directory / "parts"),
        "event_log": str(directory / "events.jsonl"),
    } | changes
    path = directory / "plan.json"
    path.write_text(json.dumps(plan))
    return path, LoadPlan.load(path)


def start(command: list[str], plan_path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=os.environ | environment(plan_path), stderr=subprocess.PIPE)


def sleep_until(plan: LoadPlan, offset_s: float) -> None:
    """Sleep until `offset_s` after the plan's start."""
    time.sleep(max(0.0, (plan.start_ns - time.monotonic_ns()) / NS_PER_S + offset_s))


def rows(part: Path) -> list[dict[str, Any]]:
    """The part's rows in scheduled order."""
    with pa.OSFile(str(part), "rb") as source, pa.ipc.open_stream(source) as reader:
        found: list[dict[str, Any]] = reader.read_all().sort_by("sched_ns").to_pylist()
    return found
