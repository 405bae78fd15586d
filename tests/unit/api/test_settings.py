"""The configuration is read strictly, and what is wrong with it is said before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.api.settings import CONFIG_VARIABLE, SettingsError, load_settings, read_secret


def document(tmp_path: Path) -> dict[str, Any]:
    return {
        "environment": "test",
        "replica": "api-0",
        "host": "127.0.0.1",
        "port": 8080,
        "agent_port": 8081,
        "token_file": str(tmp_path / "token"),
        "admin_token_file": str(tmp_path / "admin_token"),
        "redis": {"host": "127.0.0.1", "port": 6379, "password_file": str(tmp_path / "redis")},
        "etcd": ["http://127.0.0.1:2379"],
        "shards": [
            {
                "shard": 0,
                "hosts": [{"name": "shard-0-0", "host": "127.0.0.1", "port": 5432}],
                "dbname": "features",
                "user": "breakwater_app",
                "passfile": str(tmp_path / "pgpass"),
            }
        ],
        "pool": {"min": 2, "max": 8},
        "registry": {
            "shard": 0,
            "hosts": [{"name": "shard-0-0", "host": "127.0.0.1", "port": 5432}],
            "dbname": "model_registry",
            "user": "breakwater_app",
            "passfile": str(tmp_path / "pgpass"),
        },
        "artifacts": str(tmp_path / "artifacts"),
        "models_dir": str(tmp_path / "models"),
        "genmodel_jar": str(tmp_path / "genmodel.jar"),
        "jvm_heap_mb": 96,
        "watchdog_ms": 250,
        "chaos": True,
    }


def environ(tmp_path: Path, content: dict[str, Any]) -> dict[str, str]:
    path = tmp_path / "api.json"
    path.write_text(json.dumps(content))
    return {CONFIG_VARIABLE: str(path)}


def test_a_complete_configuration_is_read(tmp_path: Path) -> None:
    settings = load_settings(environ(tmp_path, document(tmp_path)))
    assert settings.shards[0].hosts[0].name == "shard-0-0"
    assert settings.pool.max == 8


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"redis\.tls: Extra inputs"):
        load_settings(environ(tmp_path, document(tmp_path) | {"redis": document(tmp_path)["redis"] | {"tls": True}}))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    content = document(tmp_path)
    del content["models_dir"]
    with pytest.raises(SettingsError, match="models_dir: Field required"):
        load_settings(environ(tmp_path, content))


def test_the_variable_must_be_set() -> None:
    with pytest.raises(SettingsError, match=CONFIG_VARIABLE):
        load_settings({})


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.json.*cannot be read"):
        load_settings({CONFIG_VARIABLE: str(tmp_path / "nowhere.json")})


def test_a_secret_is_read_without_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    assert read_secret(path) == "secret"


@pytest.mark.parametrize("content", ["", "\n", None])
def test_an_empty_or_missing_secret_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match="secret file"):
        read_secret(path)


def test_a_replica_in_production_refuses_to_be_damaged(tmp_path: Path) -> None:
    production = document(tmp_path) | {"environment": "production"}
    with pytest.raises(SettingsError, match="chaos is on in production"):
        load_settings(environ(tmp_path, production))
    assert not load_settings(environ(tmp_path, production | {"chaos": False})).chaos
