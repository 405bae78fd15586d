"""What each server is started from: files that the real servers accept, closed to others, and no secret in any argv."""

from __future__ import annotations

import dataclasses
import json
import re
import stat
import subprocess
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest
import yaml

from infra.local import defects, secrets, servers, tls
from infra.local.account import Account
from infra.local.plan import LocalPlan
from infra.local.secrets import Secrets
from infra.local.servers import Program
from services.api.openapi import ProblemDetails
from services.api.settings import Settings, TraceSettings
from services.etl.run import RunConfig
from services.etl.scheduler import SchedulerConfig
from services.h2o.node import NodeConfig
from services.registry.reconciler import ReconcilerConfig
from tests.unit.infra.conftest import topology


@pytest.fixture
def programs(plan: LocalPlan, own_secrets: Secrets, account: Account) -> tuple[Program, ...]:
    tls.ensure(plan, account)
    return servers.prepare(plan, own_secrets, account)


def read_etcd(plan: LocalPlan, name: str) -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load((plan.member(name).directory / "etcd.yaml").read_text())
    return content


def test_every_member_is_supervised_and_programs_have_names_of_their_own(
    plan: LocalPlan, programs: tuple[Program, ...]
) -> None:
    assert len({program.name for program in programs}) == len(programs)
    assert {program.member for program in programs} == {member.name for member in plan.members}
    wardens = [program.member for program in programs if program.name.endswith("-warden")]
    assert wardens == [member.name for member in plan.of("postgres")]


def test_no_secret_is_in_argv_or_environment(own_secrets: Secrets, programs: tuple[Program, ...]) -> None:
    said = " ".join(" ".join((*p.command, *(value for pair in p.environment for value in pair))) for p in programs)
    for field in dataclasses.fields(own_secrets):
        assert getattr(own_secrets, field.name) not in said, field.name


def test_files_and_directories_of_members_are_closed_to_others(plan: LocalPlan, programs: tuple[Program, ...]) -> None:
    assert programs
    for member in plan.members:
        assert stat.S_IMODE(member.directory.stat().st_mode) == 0o700
        for path in member.directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_second_preparation_writes_the_same(
    plan: LocalPlan, own_secrets: Secrets, account: Account, programs: tuple[Program, ...]
) -> None:
    files = [path for path in plan.members_dir.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert servers.prepare(plan, own_secrets, account) == programs
    assert {path: path.read_bytes() for path in plan.members_dir.rglob("*") if path.is_file()} == before


def test_haproxy_accepts_its_configuration(plan: LocalPlan, programs: tuple[Program, ...]) -> None:
    (edge,) = [program for program in programs if program.member == "edge-0"]
    checked = subprocess.run(
        [str(servers.HAPROXY), "-c", "-f", edge.command[-1]], capture_output=True, text=True, check=False, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARNING" not in checked.stdout + checked.stderr


def test_an_edge_that_asks_once_writes_as_before(plan: LocalPlan) -> None:
    sound = servers.edge_config(plan, plan.member("edge-0"))
    config = defects.asking_once(sound)
    predict = config.split("\nbackend predict\n")[1].split("\nbackend api\n")[0]
    assert "retry-on" not in predict
    assert "redispatch" not in predict
    assert "retries 0" in predict
    assert config.split("\nbackend api\n")[1] == sound.split("\nbackend api\n")[1]


@pytest.mark.parametrize("defect", [defects.asking_once, defects.trusting])
def test_haproxy_accepts_a_control_s_configuration(
    plan: LocalPlan, programs: tuple[Program, ...], defect: Callable[[str], str]
) -> None:
    path = plan.member("edge-0").directory / "defective.cfg"
    path.write_text(defect(servers.edge_config(plan, plan.member("edge-0"))))
    assert "httpchk" not in path.read_text() or defect is defects.asking_once
    checked = subprocess.run(
        [str(servers.HAPROXY), "-c", "-f", str(path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARNING" not in checked.stdout + checked.stderr


def test_the_edge_speaks_tls_13_only_and_repeats_predictions_only(plan: LocalPlan) -> None:
    config = servers.edge_config(plan, plan.member("edge-0"))
    backend_predict, backend_api = config.split("\nbackend predict\n")[1].split("\nbackend api\n")
    assert "ssl-min-ver TLSv1.3" in config
    assert "retry-on conn-failure empty-response response-timeout" in backend_predict
    assert "option http-buffer-request" in backend_predict, "else a body that comes after its head is never sent again"
    assert "retry-on conn-failure\n" in backend_api
    for replica in plan.of("api"):
        assert f"server {replica.name} 127.0.0.1:{replica.port} check" in backend_predict
        assert f"server {replica.name} 127.0.0.1:{replica.port} check" in backend_api
        for backend in (backend_predict, backend_api):
            assert f"agent-check agent-port {replica.aux_port} agent-inter 200ms" in backend


def test_when_every_check_fails_somebody_is_asked_all_the_same(plan: LocalPlan) -> None:
    config = servers.edge_config(plan, plan.member("edge-0"))
    assert "use_backend anyone if { nbsrv(api) eq 0 }" in config
    anyone = [line for line in config.split("\nbackend anyone\n")[1].splitlines() if " server " in line]
    assert len(anyone) == len(plan.of("api"))
    assert all(line.endswith(" no-check no-agent-check") for line in anyone)


def test_etcd_listens_on_loopback_and_knows_all_its_peers(plan: LocalPlan, programs: tuple[Program, ...]) -> None:
    assert programs
    for member in plan.of("etcd"):
        config = read_etcd(plan, member.name)
        assert config["name"] == member.name
        assert config["listen-client-urls"] == f"http://127.0.0.1:{member.port}"
        assert config["listen-peer-urls"] == f"http://127.0.0.1:{member.aux_port}"
        assert str(config["initial-cluster"]).count("=http://127.0.0.1:") == 3
        assert config["enable-grpc-gateway"] is True


def test_redis_is_a_cache_with_a_password_and_a_limit(
    plan: LocalPlan, own_secrets: Secrets, programs: tuple[Program, ...]
) -> None:
    assert programs
    lines = (plan.member("redis-0").directory / "redis.conf").read_text().splitlines()
    assert {"bind 127.0.0.1", "protected-mode yes", "appendonly no", 'save ""', "maxmemory 64mb"} <= set(lines)
    assert f"requirepass {own_secrets.redis}" in lines


def test_replicas_can_read_their_configuration(plan: LocalPlan, programs: tuple[Program, ...]) -> None:
    assert programs
    for member in plan.of("api"):
        settings = Settings.model_validate_json((member.directory / "api.json").read_bytes())
        assert settings.replica == member.name
        assert (settings.port, settings.agent_port) == (member.port, member.aux_port)
        assert not settings.chaos, "only where the topology allows faults on the API"


def test_members_of_a_shard_share_scope_and_differ_in_address(plan: LocalPlan, programs: tuple[Program, ...]) -> None:
    assert programs
    listens = set()
    for member in plan.of_shard(1):
        config = yaml.safe_load((member.directory / "patroni.yaml").read_text())
        warden = json.loads((member.directory / "warden.json").read_text())
        assert config["scope"] == warden["scope"] == "shard-1"
        assert config["name"] == warden["member"] == member.name
        assert config["namespace"] == "/breakwater/unit/patroni/"
        listens |= {config["postgresql"]["listen"], config["restapi"]["listen"]}
    assert len(listens) == 6
    assert all(address.startswith("127.0.0.1:") for address in listens)


def test_h2o_nodes_know_each_other_and_their_memory_split(plan: LocalPlan, programs: tuple[Program, ...]) -> None:
    assert programs
    read = [NodeConfig.read(member.directory / "node.json") for member in plan.of("h2o")]
    limits = plan.topology.h2o
    assert limits.heap_mb + limits.native_mb == limits.memory_mb
    for member, config in zip(plan.of("h2o"), read, strict=True):
        assert (config.name, config.status_port) == (member.name, member.aux_port)
        assert (config.memory_mb, config.heap_mb) == (limits.memory_mb, limits.heap_mb)
        assert [(node.name, node.port) for node in config.nodes] == [(m.name, m.port) for m in plan.of("h2o")]


def test_mage_its_steps_and_the_registry_agree_on_where_everything_is(
    plan: LocalPlan, programs: tuple[Program, ...]
) -> None:
    assert programs
    directory = plan.member("mage-0").directory
    config = SchedulerConfig.model_validate_json((directory / "mage.json").read_bytes())
    steps = RunConfig.model_validate_json(config.run_config.read_bytes())
    assert (config.port, config.status_port) == (plan.member("mage-0").port, plan.member("mage-0").aux_port)
    assert (config.database.dbname, config.database.user) == ("mage", "breakwater_mage")
    assert (steps.artifacts, steps.registry) == (plan.artifacts, plan.registry_endpoints())
    assert steps.directory == plan.runs_dir
    assert all(path.exists() for path in (config.owner_password, config.session_secret, config.trigger_token))


def test_replicas_and_registry_use_one_store_and_the_registry_its_own_database(
    plan: LocalPlan, programs: tuple[Program, ...]
) -> None:
    assert programs
    replica = json.loads((plan.member("api-0").directory / "api.json").read_text())
    reconciler = ReconcilerConfig.model_validate_json(
        (plan.member("registry-0").directory / "reconciler.json").read_bytes()
    )
    assert replica["artifacts"] == reconciler.artifacts == plan.artifacts
    assert reconciler.database.dbname == "model_registry"
    elsewhere = LocalPlan(topology(registry={"artifacts": "s3://bucket/models"}), plan.state.parent)
    assert elsewhere.artifacts == "s3://bucket/models"


@pytest.mark.parametrize(
    ("chaos", "allowed"),
    [({"enabled": True, "components": ["api"]}, True), ({"enabled": True, "components": ["redis"]}, False)],
)
def test_replicas_may_be_blocked_only_where_the_topology_says_so(
    tmp_path: Path, account: Account, chaos: dict[str, object], allowed: bool
) -> None:
    plan = LocalPlan(topology(chaos=chaos), tmp_path)
    plan.state.mkdir()
    tls.ensure(plan, account)
    servers.prepare(plan, secrets.ensure(plan, account), account)
    config = json.loads((plan.member("api-0").directory / "api.json").read_text())
    assert config["chaos"] is allowed


def test_replicas_are_told_where_traces_go_if_anywhere(tmp_path: Path, account: Account) -> None:
    endpoint = "http://127.0.0.1:4318/v1/traces"
    for wanted, told in ((None, None), ({"endpoint": endpoint}, TraceSettings(endpoint=endpoint, sample=0.01))):
        plan = LocalPlan(topology(api={"traces": wanted}), tmp_path)
        plan.state.mkdir(exist_ok=True)
        tls.ensure(plan, account)
        servers.prepare(plan, secrets.ensure(plan, account), account)
        settings = Settings.model_validate_json((plan.member("api-0").directory / "api.json").read_bytes())
        assert settings.traces == told


def test_clients_cannot_ask_for_faults_or_inner_state_through_the_edge(plan: LocalPlan) -> None:
    frontend = servers.edge_config(plan, plan.member("edge-0")).split("\nfrontend edge\n")[1].split("\nbackend ")[0]
    assert "http-request return status 404 content-type application/problem+json" in frontend
    assert "if { path,url_dec -m beg /chaos /metrics /readyz }" in frontend


def test_a_reload_alone_may_take_the_edge_longer_than_ten_seconds(plan: LocalPlan) -> None:
    """Preparing takes up to 15 s and swapping 5 s, so that 10 s would hide from the administrator how it ended."""
    config = servers.edge_config(plan, plan.member("edge-0"))
    backend = config.split("\nbackend api\n")[1].split("\nbackend ")[0]
    assert "    http-request set-timeout server 30s if { path /v1/admin/reload-model }\n" in backend
    assert config.count("set-timeout") == 1
    assert "    timeout server 10s\n" in config.split("\nfrontend ")[0]


def test_the_edges_own_answers_are_problems_that_say_what_to_do(plan: LocalPlan) -> None:
    config = servers.edge_config(plan, plan.member("edge-0"))
    answers = re.findall(r"(\d+) content-type application/problem\+json string '([^']+)'(.*)", config)
    assert {int(status) for status, _, _ in answers} == {400, 404, 408, 502, 503, 504}
    for status, body, words in answers:
        said = ProblemDetails.model_validate_json(body)
        assert (said.status, said.title) == (int(status), HTTPStatus(int(status)).phrase)
        assert ": " in said.detail, "what happened, and what to do"
        assert words.startswith(" hdr Retry-After 1") is (status == "503")
