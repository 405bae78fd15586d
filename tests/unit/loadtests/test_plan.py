"""The load plan refuses what it must not do, and says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.launch import Process, commands, environment
from loadtests.plan import PLAN_VARIABLE, LoadError, LoadPlan
from loadtests.profiles import LONGEST_S
from loadtests.record import NO_SERVER

NS_PER_S = 1_000_000_000


def test_a_plan_is_read_from_the_file_that_the_environment_names(fields: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(fields))
    plan = LoadPlan.from_environment(environment(path))
    assert plan.rates.predict == 200
    assert plan.server("shard-0-0") == 1
    assert plan.server("nobody") == plan.server(None) == NO_SERVER
    assert not plan.over(now_ns=0)
    assert plan.over(now_ns=60 * NS_PER_S)
    plan.stop_file.touch()
    assert plan.over(now_ns=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"edge_url": "https://example.org"}, "loopback"),
        ({"edge_url": "http://127.0.0.1:8080"}, "https"),
        ({"members": ["etcd-0"]}, "shard-0-0 is missing from members"),
        ({"end_ns": 0}, "after start_ns"),
        ({"end_ns": (LONGEST_S + 1) * NS_PER_S}, "at most"),
        ({"surprise": 1}, "surprise"),
        ({"seed": "1"}, "seed"),
        ({"rates": {"predict": -1, "write": 50, "write_api": 50, "read": 50}}, "predict"),
        ({"write_event_time": "2026-11-01T00:00:00"}, "timezone"),
    ],
)
def test_a_plan_that_must_not_run_is_refused(
    fields: dict[str, Any], path: Path, change: dict[str, Any], reason: str
) -> None:
    path.write_text(json.dumps(fields | change))
    with pytest.raises(LoadError, match=reason):
        LoadPlan.load(path)


def test_a_shard_elsewhere_is_refused(fields: dict[str, Any], path: Path) -> None:
    fields["shards"][0]["hosts"][0]["host"] = "192.0.2.1"
    path.write_text(json.dumps(fields))
    with pytest.raises(LoadError, match="not on loopback"):
        LoadPlan.load(path)


def test_no_plan_at_all_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=PLAN_VARIABLE):
        LoadPlan.from_environment({})
    with pytest.raises(LoadError, match="cannot read the load plan"):
        LoadPlan.load(tmp_path / "absent.json")


def test_missing_samples_are_named(fields: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(fields))
    plan = LoadPlan.load(path)
    with pytest.raises(LoadError, match="samples"):
        plan.samples()
    plan.samples_file.touch()
    with pytest.raises(LoadError, match="load flights"):
        plan.samples()


@pytest.mark.parametrize(
    ("rates", "programs"),
    [
        ({"predict": 1, "write": 1, "write_api": 1, "read": 1}, ["locust", "loadtests.writers"]),
        ({"predict": 0, "write": 0, "write_api": 1, "read": 0}, ["locust"]),
        ({"predict": 0, "write": 0, "write_api": 0, "read": 1}, ["loadtests.writers"]),
        ({"predict": 0, "write": 0, "write_api": 0, "read": 0}, []),
    ],
)
def test_only_the_processes_that_a_plan_needs_are_started(
    fields: dict[str, Any], path: Path, rates: dict[str, int], programs: list[str]
) -> None:
    path.write_text(json.dumps(fields | {"rates": rates}))
    assert [command[2] for command in commands(path)] == programs


def test_each_load_process_has_a_number_of_its_own() -> None:
    assert len({process.value for process in Process}) == len(Process.__members__)


def test_a_clusters_own_addresses_get_load_and_no_others(fields: dict[str, Any], path: Path) -> None:
    host = fields["shards"][0]["hosts"][0] | {"host": "shard-0-0.postgres.svc", "address": "10.245.0.11"}
    fields["shards"][0]["hosts"] = [host]
    there = fields | {"edge_url": "https://10.245.0.11:30443", "edge_name": "localhost"}
    path.write_text(json.dumps(there))
    with pytest.raises(LoadError, match="on loopback or an address of the cluster"):
        LoadPlan.load(path)
    path.write_text(json.dumps(there | {"addresses": ["10.245.0.11"]}))
    assert LoadPlan.load(path).shards[0].hosts[0].reached_at == "10.245.0.11"
