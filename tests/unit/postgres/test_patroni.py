"""patroni.yaml: what the platform relies on is in it, and what cannot work is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.postgres.errors import ConfigurationInvalid
from services.postgres.patroni import PatroniMember, PatroniPasswords, render

MEMBER = PatroniMember(
    scope="shard-0",
    name="shard-0-1",
    namespace="/breakwater/local/patroni/",
    host="127.0.0.1",
    port=15432,
    rest_port=18008,
    etcd=("127.0.0.1:2379", "127.0.0.1:2381"),
    directory=Path("/state/members/shard-0-1"),
    bin_dir=Path("/usr/lib/postgresql/15/bin"),
    passwords=PatroniPasswords("super-word", "replication-word", "rewind-word", "rest-word"),
    ttl_s=20,
    loop_wait_s=5,
    retry_timeout_s=5,
    synchronous=True,
    max_connections=100,
)


def rendered(member: PatroniMember) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(render(member)))
    return config


def test_strict_quorum_replication_with_one_standby() -> None:
    dcs = rendered(MEMBER)["bootstrap"]["dcs"]
    assert (dcs["synchronous_mode"], dcs["synchronous_mode_strict"], dcs["synchronous_node_count"]) == (
        "quorum",
        True,
        1,
    )
    assert (dcs["ttl"], dcs["loop_wait"], dcs["retry_timeout"], dcs["primary_start_timeout"]) == (20, 5, 5, 0)
    assert dcs["failsafe_mode"] is True
    assert dcs["check_timeline"] is True
    assert dcs["postgresql"]["use_pg_rewind"] is True


def test_the_control_without_synchronous_replication_differs_in_nothing_else() -> None:
    quorum = rendered(MEMBER)
    asynchronous = rendered(replace(MEMBER, synchronous=False))
    for config in (quorum, asynchronous):
        for key in ("synchronous_mode", "synchronous_mode_strict", "synchronous_node_count"):
            config["bootstrap"]["dcs"].pop(key, None)
    assert quorum == asynchronous


def test_nothing_deletes_data_and_nothing_trades_durability() -> None:
    postgresql = rendered(MEMBER)["postgresql"]
    assert postgresql["remove_data_directory_on_rewind_failure"] is False
    assert postgresql["remove_data_directory_on_diverged_timelines"] is False
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        assert postgresql["parameters"][name] is True


def test_only_loopback_and_only_scram() -> None:
    config = rendered(MEMBER)
    assert config["restapi"]["listen"] == "127.0.0.1:18008"
    assert config["postgresql"]["listen"] == "127.0.0.1:15432"
    assert all(line.endswith(" scram-sha-256") for line in config["postgresql"]["pg_hba"])
    assert "0.0.0.0" not in yaml.safe_dump(config)  # noqa: S104


def test_passwords_are_not_shown_by_accident() -> None:
    assert "super-word" not in repr(MEMBER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ttl_s": 19}, "ttl_s is 19"),
        ({"loop_wait_s": 0}, "loop_wait_s is 0"),
        ({"retry_timeout_s": 2}, "retry_timeout_s is 2"),
        ({"retry_timeout_s": 8}, "exceeds ttl_s"),
        ({"etcd": ()}, "no etcd server"),
        ({"directory": Path("/" + "d" * 100)}, "shorter name"),
    ],
)
def test_what_patroni_would_change_or_postgres_refuse_is_refused_first(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=message):
        render(replace(MEMBER, **change))
