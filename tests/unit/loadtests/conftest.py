"""Fixtures: the fields of a valid load plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.contracts.slots import SlotMap

NS_PER_S = 1_000_000_000


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, Any]:
    host = {"name": "shard-0-0", "host": "127.0.0.1", "port": 5433}
    return {
        "environment": "local",
        "edge_url": "https://127.0.0.1:8443",
        "ca_file": "ca.pem",
        "token_file": "token",
        "etcd": {"hosts": [{"name": "etcd-0", "host": "127.0.0.1", "port": 2379}]},
        "shards": [{"shard": 0, "hosts": [host], "dbname": "features", "user": "app", "passfile": "passfile"}],
        "members": ["etcd-0", "shard-0-0"],
        "slot_map": json.loads(SlotMap.even(1).to_json()),
        "samples_file": str(tmp_path / "samples.jsonl"),
        "run_tag": 2**64 - 1,
        "seed": 1,
        "rates": {"predict": 200, "write": 50, "write_api": 50, "read": 50},
        "deadlines_ms": {"predict": 500, "write": 1000, "read": 500},
        "write_event_time": "2026-11-01T00:00:00Z",
        "start_ns": 0,
        "end_ns": 60 * NS_PER_S,
        "stop_file": str(tmp_path / "stop"),
        "out_dir": str(tmp_path / "parts"),
        "event_log": str(tmp_path / "events.jsonl"),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.json"
