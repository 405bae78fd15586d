"""The suite against the platform on a real cluster, with the runner's own rights: S-01, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.kubernetes.plan import CHAOS_LABEL
from tests.kubernetes.platform import Platform
from tests.kubernetes.runner import Runner
from tests.kubernetes.training import NAME, training_job

SEEDS = (7, 8)
"""A machine that stands still keeps a run from proving anything: then it is asked again, a broken promise never."""


@pytest.fixture(scope="module")
def serving(platform: Platform) -> Platform:
    """A platform whose replicas serve a model."""
    if not platform.get("jobs", "--field-selector", f"metadata.name={NAME}"):
        platform.apply([training_job(platform.plan, platform.objects())])
    platform.complete(NAME)
    platform.rolled_out("deployment/api")
    return platform


@pytest.fixture(scope="module")
def runner(serving: Platform, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    made = Runner(serving, tmp_path_factory.mktemp("runner"))
    made.prepare()
    return made


def test_status_tells_roles_and_health_of_every_pod(runner: Runner) -> None:
    said = runner("status", "cluster", "--json")
    assert said.code == 0, said.out + said.err
    lines = {line["member"]: line for line in json.loads(said.out)}
    roles = sorted(lines[f"shard-0-{i}"]["role"] for i in range(3))
    assert roles == ["primary", "sync replica", "sync replica"]
    assert all(line["timeline"] for name, line in lines.items() if name.startswith("shard-"))
    assert {line["component"] for line in lines.values()} >= {"etcd", "redis", "h2o", "registry", "api", "edge"}


def test_endpoints_and_logs_are_those_of_the_cluster(runner: Runner) -> None:
    found = json.loads(runner("endpoints", "cluster", "--json").out)
    assert found["edge"]["url"].startswith("https://")
    (member,) = [entry for entry in found["members"] if entry["name"] == "shard-0-0"]
    assert "sslmode=verify-full" in member["dsn"]
    said = runner("logs", "cluster", "shard-0-0")
    assert said.code == 0, said.err
    assert "shard-0-0.warden.log" in said.out
    assert "watching" in said.out


def test_the_runner_strikes_shards_and_h2o_and_looks_into_nothing_else(runner: Runner) -> None:
    """Who runs a command in a replica's pod reads its administrator's token; in Mage's, the owner's password."""
    others = [
        pod["metadata"]["name"] for component in ("api", "mage", "etcd") for pod in runner.platform.pods(component)
    ]
    assert any(name.startswith("api-") for name in others)
    for verb in ("get", "create"):
        assert runner.may(verb, "pods/shard-0-0", "exec")
        assert not runner.may(verb, "pods", "exec"), "in any pod"
        assert [name for name in others if runner.may(verb, f"pods/{name}", "exec")] == []
    assert runner.may("delete", "pods/shard-0-0")
    assert runner.may("delete", "pods/h2o-0")
    assert not runner.may("get", "pods/h2o-0", "exec")
    assert [name for name in others if runner.may("delete", f"pods/{name}")] == []
    for verb in ("get", "list", "watch"):
        assert not runner.may(verb, "secrets")
    assert not runner.may("create", "pods")
    assert not runner.may("get", "pods", "proxy")
    refused = runner.kubectl("exec", others[0], "--", "true")
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr


def kept(verdict: dict[str, Any], promise: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in verdict["promises"] if entry["id"] == promise)
    return found


@pytest.mark.parametrize("variant", ["server-killed", "member-killed"])
def test_s01_is_true(runner: Runner, variant: str, tmp_path: Path) -> None:
    for seed in SEEDS:
        verdict = runner.verify("S-01", variant, seed, tmp_path)
        if verdict["verdict"] != "unknown":
            break
    told = {entry["id"]: (entry["verdict"], entry["value"], entry["reason"]) for entry in verdict["promises"]}
    assert verdict["verdict"] == "true", json.dumps(told, indent=1)
    assert kept(verdict, "lost-writes")["value"] == 0
    # counted by replicas, in whose pods this runner may run nothing
    assert kept(verdict, "descriptors")["verdict"] == "true"
    assert not list(runner.state.joinpath("undo").iterdir())


def test_the_gate_examines_what_runs_and_leaves_the_cloud_whole(runner: Runner, tmp_path: Path) -> None:
    said = runner("gate", "cluster", "--json", "--runs", str(tmp_path))
    assert said.out, f"no answer, exit code {said.code}: {said.err}"
    items = {item["id"]: (item["verdict"], item["seen"]) for item in json.loads(said.out)["items"]}
    for item in ("tls", "memory-split", "readiness"):
        assert items[item][0] == "true", items[item]
    assert f"{runner.platform.plan.topology.h2o.nodes} running" in items["memory-split"][1]
    assert "all ready again" in items["readiness"][1]


def test_a_namespace_that_has_not_opted_in_takes_no_faults(runner: Runner, tmp_path: Path) -> None:
    space = ("namespace", runner.platform.plan.namespace)
    runner.platform.kubectl("label", *space, f"{CHAOS_LABEL}-")
    try:
        said = runner("verify", "cluster", "--variant", "server-killed", "--out", str(tmp_path / "none"))
    finally:
        runner.platform.kubectl("label", *space, f"{CHAOS_LABEL}=enabled")
    assert said.code == 3
    assert "has not opted in to faults" in said.err
    assert not (tmp_path / "none").exists()


def test_an_account_without_the_rights_is_refused_by_name(runner: Runner, tmp_path: Path) -> None:
    token = runner.platform.kubectl("create", "token", "api", "--duration=1h").strip()
    config = runner.kubeconfig.read_text()
    own = json.dumps(token)
    poor = tmp_path / "kubeconfig"
    poor.write_text("\n".join(f"    token: {own}" if "token:" in line else line for line in config.splitlines()))
    said = runner("verify", "cluster", "--out", str(tmp_path / "none"), KUBECONFIG=str(poor))
    assert said.code == 3
    assert "use the account experiment-runner" in said.err


def test_a_cluster_that_does_not_answer_is_named(runner: Runner, tmp_path: Path) -> None:
    away = tmp_path / "kubeconfig"
    lines = runner.kubeconfig.read_text().splitlines()
    away.write_text("\n".join("    server: https://127.0.0.1:9" if "server:" in line else line for line in lines))
    said = runner("status", "cluster", KUBECONFIG=str(away))
    assert said.code == 3
    assert "does not answer" in said.err
    assert "https://127.0.0.1:9" in said.err
