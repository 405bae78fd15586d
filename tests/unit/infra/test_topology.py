"""Every bound of the topology is refused with its field and its reason; what the repository ships loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.topology import TopologyError, load, parse

ROOT = Path(__file__).resolve().parents[3]


def parsed(environment: str = "unit", **sections: Any) -> Any:
    config = {"breakwater:runtime": "local", **{f"breakwater:{key}": value for key, value in sections.items()}}
    return parse({"config": config}, environment, source="Pulumi.unit.yaml")


IMAGES = {"registry": "registry.example.org/breakwater", "tag": "1"}


def kubernetes(**settings: Any) -> dict[str, Any]:
    return {"runtime": "kubernetes", "kubernetes": {"context": "c", "images": IMAGES, **settings}}


BOUNDS: list[tuple[dict[str, Any], str, str]] = [
    ({"h2o": {"nodes": 11}}, "breakwater:(whole)", "the local runtime has ports for 10"),
    ({"mage": {"schedule": "every day"}}, "breakwater:mage.schedule", "should match pattern"),
    ({"registry": {"artifact": "/x"}}, "breakwater:registry.artifact", "Extra inputs are not permitted"),
    ({"etcd": {"members": 2}}, "breakwater:etcd", "an even etcd cluster tolerates no more failures"),
    ({"etcd": {"members": 0}}, "breakwater:etcd.members", "greater than or equal to 1"),
    ({"etcd": {"members": 9}}, "breakwater:etcd.members", "less than or equal to 7"),
    ({"postgres": {"patroni": {"ttl": 19}}}, "breakwater:postgres.patroni.ttl", "greater than or equal to 20"),
    (
        {"postgres": {"patroni": {"loop_wait": 11}}},
        "breakwater:postgres.patroni",
        "loop_wait + 2*retry_timeout is 21 s",
    ),
    ({"postgres": {"patroni": {"retry_timeout": 2}}}, "breakwater:postgres.patroni.retry_timeout", "equal to 3"),
    ({"postgres": {"members_per_shard": 2}}, "breakwater:postgres", "strict quorum sync needs at least 3"),
    ({"postgres": {"members_per_shard": 10}}, "breakwater:postgres.members_per_shard", "less than or equal to 9"),
    ({"postgres": {"warden": {"fence_margin": 15}}}, "breakwater:postgres", "it would be fenced for nothing"),
    ({"postgres": {"warden": {"fence_margin": 4}}}, "breakwater:postgres.warden.fence_margin", "equal to 5"),
    ({"postgres": {"shards": 0}}, "breakwater:postgres.shards", "greater than or equal to 1"),
    ({"postgres": {"shards": 18}}, "(whole)", "postgres.shards is 18: the local runtime has ports for 17"),
    ({"postgres": {"max_connections": 100}}, "(whole)", "the API may open 80 connections to one primary"),
    ({"postgres": {"reserved_connections": 11}}, "breakwater:postgres.reserved_connections", "equal to 12"),
    (
        {"postgres": {"reserved_connections": 35}, "chaos": {"enabled": True}},
        "(whole)",
        "the observers of an experiment 24",
    ),
    ({"redis": {"max_memory_mb": 8}}, "breakwater:redis.max_memory_mb", "greater than or equal to 16"),
    ({"h2o": {"heap_share": 0.8}}, "breakwater:h2o", "the split is 0.7 heap and 0.3 native"),
    ({"h2o": {"memory_mb": 100}}, "breakwater:h2o.memory_mb", "greater than or equal to 512"),
    ({"api": {"replicas": 1}}, "breakwater:api.replicas", "greater than or equal to 2"),
    ({"api": {"replicas": 5}}, "breakwater:api", "replicas 5 is more than max_replicas 4"),
    (
        {"api": {"replicas": 31, "max_replicas": 31, "pool": {"min": 1, "max": 1}}},
        "(whole)",
        "api.replicas is 31: the local runtime has ports for 30",
    ),
    ({"api": {"pool": {"min": 9}}}, "breakwater:api.pool", "pool min 9 is more than max 8"),
    (
        {"api": {"traces": {"endpoint": "http://user:secret@127.0.0.1:4318/v1/traces"}}},
        "breakwater:api.traces.endpoint",
        "should match pattern",
    ),
    (
        kubernetes() | {"api": {"traces": {"endpoint": "http://collector:4318/v1/traces"}}},
        "(whole)",
        "let nothing out to a collector yet",
    ),
    ({"local": {"port_base": 80}}, "breakwater:local.port_base", "greater than or equal to 1024"),
    ({"local": {"port_base": 64001}}, "breakwater:local.port_base", "less than or equal to 64000"),
    ({"runtime": "kubernetes"}, "(whole)", "the kubernetes runtime needs breakwater:kubernetes"),
    ({"kubernetes": {"images": IMAGES}}, "breakwater:kubernetes.context", "Field required"),
    (kubernetes(images={**IMAGES, "tag": "latest"}), "breakwater:kubernetes.images", "tag is latest"),
    (kubernetes(images={**IMAGES, "digests": {"api": "sha256:12"}}), "images.digests.api", "should match pattern"),
    (kubernetes(images={**IMAGES, "digests": {"apy": "x"}}), "images.digests.apy", "Input should be"),
    (kubernetes(images={**IMAGES, "registry": "https://x"}), "images.registry", "should match pattern"),
    (kubernetes(namespace="Upper"), "breakwater:kubernetes.namespace", "should match pattern"),
    (kubernetes(placement="maybe"), "breakwater:kubernetes.placement", "Input should be"),
    (kubernetes(edge={"replicas": 1}), "breakwater:kubernetes.edge.replicas", "greater than or equal to 2"),
    (kubernetes(edge={"clients": ["10.0.0.1/8"]}), "breakwater:kubernetes.edge.clients", "has host bits set"),
    (
        kubernetes(sizes={"api": {"cpu_m": 500, "cpu_limit_m": 100, "memory_mb": 768}}),
        "breakwater:kubernetes.sizes.api",
        "cpu_m 500 is more than cpu_limit_m 100",
    ),
    (
        kubernetes(sizes={"api": {"cpu_m": 100, "cpu_limit_m": 100, "memory_mb": 400}}),
        "(whole)",
        "a replica needs 512 MB",
    ),
    (
        kubernetes() | {"chaos": {"enabled": True, "components": ["postgres", "redis", "api"]}},
        "(whole)",
        "chaos.components names redis, api: on Kubernetes faults act on postgres and h2o",
    ),
    (kubernetes(api_cpu_target=99), "breakwater:kubernetes.api_cpu_target", "less than or equal to 95"),
    ({"chaos": {"components": ["postgress"]}}, "breakwater:chaos.components.0", "Input should be"),
    ({"etcd": {"members": "3"}}, "breakwater:etcd.members", "valid integer"),
    ({"etcd": {"membres": 3}}, "breakwater:etcd.membres", "not permitted"),
    ({"postgress": {}}, "breakwater:postgress", "not permitted"),
    ({"runtime": "laptop"}, "breakwater:runtime", "'local' or 'kubernetes'"),
]


@pytest.mark.parametrize(("sections", "field", "reason"), BOUNDS, ids=lambda value: str(value)[:60])
def test_a_bound_is_refused_with_file_field_and_reason(sections: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(TopologyError) as refused:
        parsed(**sections)
    message = str(refused.value)
    assert message.startswith("Pulumi.unit.yaml: ")
    assert f"{field}: " in message
    assert reason in message
    assert "\n" not in message


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(TopologyError) as refused:
        parsed(etcd={"members": 8}, redis={"max_memory_mb": 1})
    assert "etcd.members" in str(refused.value)
    assert "redis.max_memory_mb" in str(refused.value)


def test_production_refuses_chaos() -> None:
    with pytest.raises(TopologyError, match="faults never act there"):
        parsed("production", chaos={"enabled": True})
    assert not parsed("production").chaos.enabled


@pytest.mark.parametrize("name", ["Local", "1st", "a_b", "", "x" * 32])
def test_names_of_environments_are_plain(name: str) -> None:
    with pytest.raises(TopologyError, match="breakwater:environment"):
        parsed(name)


def test_chaos_is_off_unless_it_is_switched_on_and_names_the_component() -> None:
    assert not parsed().chaos.allows("postgres")
    assert not parsed(chaos={"components": ["postgres"]}).chaos.allows("postgres/shard-0")
    allowed = parsed(chaos={"enabled": True, "components": ["postgres"]}).chaos
    assert allowed.allows("postgres/shard-0")
    assert not allowed.allows("redis")


def test_bounds_of_ports_hold_for_the_local_runtime_only() -> None:
    assert parsed(**kubernetes(), postgres={"shards": 18}).postgres.shards == 18


@pytest.mark.parametrize("environment", ["local", "staging", "production"])
def test_the_repositorys_environments_load(environment: str) -> None:
    topology = load(ROOT, environment)
    assert topology.environment == environment
    assert len(topology.digest()) == 64


@given(ttl=st.integers(20, 300), loop_wait=st.integers(1, 300), retry=st.integers(3, 150))
def test_patroni_timing_is_accepted_exactly_when_it_fits_the_lease(ttl: int, loop_wait: int, retry: int) -> None:
    timing = {"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry}
    fits = loop_wait + 2 * retry <= ttl and ttl - loop_wait > 8
    try:
        parsed(postgres={"patroni": timing})
    except TopologyError:
        assert not fits
    else:
        assert fits


@given(replicas=st.integers(2, 30), pool=st.integers(2, 60), connections=st.integers(20, 1000))
def test_the_pools_of_all_replicas_always_fit_the_primary(replicas: int, pool: int, connections: int) -> None:
    try:
        topology = parsed(
            api={"replicas": 2, "max_replicas": replicas, "pool": {"min": 2, "max": pool}},
            postgres={"max_connections": connections},
        )
    except TopologyError:
        assert 2 * pool * (replicas + 1) > connections - 40
    else:
        assert 2 * pool * (replicas + topology.api.surge) <= connections - topology.postgres.reserved_connections


@given(memory=st.integers(512, 1_000_000))
def test_heap_and_native_memory_never_exceed_the_limit(memory: int) -> None:
    h2o = parsed(h2o={"memory_mb": memory}).h2o
    assert 0.699 * memory - 1 < h2o.heap_mb <= 0.7 * memory + 1e-6


def test_the_digest_changes_with_the_topology_and_with_nothing_else() -> None:
    assert parsed().digest() == parsed(etcd={"members": 3}).digest()
    assert parsed().digest() != parsed(etcd={"members": 5}).digest()


def test_a_missing_file_names_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.blue.yaml").write_text("config: {}")
    with pytest.raises(TopologyError, match="known here: blue"):
        load(tmp_path, "green")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "expected a mapping with `config:`"),
        (b"config: [1]", "expected a mapping with `config:`"),
        (b"config: {a: [}", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"config: {1: x}", "config key 1 has no namespace"),
        (b"config: {runtime: local}", "config key 'runtime' has no namespace"),
        (b"config: {'breakwater:environment': x}", "is given by the file's name"),
        (b"config: {}", "breakwater:runtime: Field required"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "Pulumi.broken.yaml").write_bytes(content)
    with pytest.raises(TopologyError) as refused:
        load(tmp_path, "broken")
    assert says in str(refused.value)
    assert "Pulumi.broken.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_directory_in_the_files_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.broken.yaml").mkdir()
    with pytest.raises(TopologyError, match="cannot be read: Is a directory"):
        load(tmp_path, "broken")


def test_keys_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    document = {"config": {"breakwater:runtime": "local", "kubernetes:context": "kind", "aws:region": "eu-north-1"}}
    (tmp_path / "Pulumi.mixed.yaml").write_text(yaml.safe_dump(document))
    assert load(tmp_path, "mixed").runtime == "local"


def test_production_demands_its_placement() -> None:
    with pytest.raises(TopologyError, match=r"kubernetes\.placement in production must be required"):
        parsed("production", **kubernetes(placement="preferred"))


def test_only_production_names_productions_cluster() -> None:
    with pytest.raises(TopologyError, match="only the environment production may name it"):
        parsed("staging", **kubernetes(context="breakwater-production"))
    assert parsed("production", **kubernetes(context="breakwater-production")).kubernetes is not None


def test_images_are_named_by_release_and_digest() -> None:
    digest = "sha256:" + "0" * 64
    images = parsed(**kubernetes(images={**IMAGES, "digests": {"api": digest}})).kubernetes.images
    assert images.reference("api") == f"registry.example.org/breakwater/api:1@{digest}"
    assert images.reference("h2o") == "registry.example.org/breakwater/h2o:1"
