"""Where a runner outside the cluster connects to, and what its servers must prove."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from infra.environment import EnvironmentFault
from infra.kubernetes.pod import Pod
from infra.kubernetes.reach import Reach
from infra.kubernetes.runner import RunnerFiles
from tests.unit.infra.kubernetes.pods import plan, pod, services, shard_pods


@pytest.fixture
def files(tmp_path: Path) -> RunnerFiles:
    return RunnerFiles("testing", tmp_path)


def pods() -> list[Pod]:
    return [Pod.of(made) for made in shard_pods()]


def test_each_member_is_reached_through_its_own_node_and_proves_its_own_name(files: RunnerFiles) -> None:
    made = plan()
    reach = Reach.find(made, files, services(made), pods())
    said = conninfo_to_dict(reach.shard(0).conninfo("read-write", application_name="test"))
    domain = "postgres.breakwater-testing.svc.cluster.local"
    assert said["host"] == ",".join(f"shard-0-{i}.{domain}" for i in range(3))
    assert said["hostaddr"] == "10.0.0.1,10.0.0.2,10.0.0.3"
    assert said["sslmode"] == "verify-full"
    ports = [int(port) for port in str(said["port"]).split(",")]
    assert len(set(ports)) == 3
    assert reach.patroni("shard-0-0").port not in ports
    assert reach.etcd().urls[0].startswith("https://etcd-0.etcd.breakwater-testing.svc.cluster.local:3")
    assert reach.edge.url == "https://10.0.0.1:32443"
    assert reach.edge.name == "edge.example.org"
    assert reach.addresses == ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def test_a_member_without_a_pod_is_looked_for_through_any_node(files: RunnerFiles) -> None:
    made = plan()
    reach = Reach.find(made, files, services(made), pods()[1:])
    assert reach.shard(0).hosts[0].reached_at == "10.0.0.2"


def test_a_load_balancers_address_is_taken_before_a_nodes(files: RunnerFiles) -> None:
    made = plan()
    listed = services(made)
    listed[-1]["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    reach = Reach.find(made, files, listed, pods())
    assert reach.edge.url == "https://192.0.2.1"
    assert "192.0.2.1" in reach.addresses


def test_what_is_missing_is_named(files: RunnerFiles) -> None:
    made = plan()
    with pytest.raises(EnvironmentFault, match=r"breakwater:kubernetes\.runners"):
        Reach.find(plan(runners=[]), files, [], pods())
    with pytest.raises(EnvironmentFault, match="has no pod on any node"):
        Reach.find(made, files, services(made), [Pod.of(pod("x", "api", node=""))])
    with pytest.raises(EnvironmentFault, match="the service reach-etcd-0 is missing"):
        Reach.find(made, files, services(made)[1:], pods())
    listed = services(made)
    del listed[-1]["spec"]["ports"][0]["nodePort"]
    with pytest.raises(EnvironmentFault, match="without an address outside"):
        Reach.find(made, files, listed, pods())


def test_secrets_are_demanded_by_name_and_for_us_alone(files: RunnerFiles) -> None:
    with pytest.raises(EnvironmentFault, match=r"lacks tls_ca_crt, tls_client_crt.*breakwater secrets testing --out"):
        files.open_secrets()
    files.secrets_dir.mkdir()
    for name in ("tls_ca_crt", "tls_client_crt", "tls_client_key", "postgres_app", "api_token"):
        (files.secrets_dir / name).write_text("s3cret")
        (files.secrets_dir / name).chmod(0o600)
    files.open_secrets()
    assert files.passfile.read_text() == "*:*:*:breakwater_app:s3cret\n"
    assert files.passfile.stat().st_mode & 0o777 == 0o600
    files.token_file.chmod(0o640)
    with pytest.raises(EnvironmentFault, match="api_token is open to others: chmod 600 it"):
        files.open_secrets()
