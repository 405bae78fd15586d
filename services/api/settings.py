"""What one replica is started with: a JSON file, read strictly, whose path is in BREAKWATER_API_CONFIG."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.contracts.shards import ShardEndpoints

CONFIG_VARIABLE = "BREAKWATER_API_CONFIG"
REPLICA_VARIABLE = "BREAKWATER_REPLICA"
"""Names the replica where several share one configuration file."""

Port = Annotated[int, Field(gt=0, lt=65536)]


class SettingsError(Exception):
    """The configuration cannot be used; the message says which file and what in it."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisSettings(_Section):
    """The cache. The password is in a file of its own, so that this one holds no secret.

    With `root_certificate` the connection is TLS, and the server's certificate must come from there.
    """

    host: str
    port: Port
    password_file: Path
    root_certificate: Path | None = None


class PoolSettings(_Section):
    """Connections to one shard, reads and writes together; derived from the shard's connection budget."""

    min: int = Field(ge=2)
    max: int = Field(ge=2)


class TraceSettings(_Section):
    """Where traces go: a collector's URL for OTLP over HTTP (`http://127.0.0.1:4318/v1/traces`).

    `sample` of the requests are traced, and those whose caller asks for it.
    """

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$")]
    sample: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Settings(_Section):
    """`etcd` are client URLs, `registry` is the model registry's database, for reloads only, `artifacts` its artifact
    store's URL, `jvm_heap_mb` the -Xmx of the scoring runtime.

    `models_dir` is where each replica keeps, in a directory of its own, the last pointer and remote artifacts' copies.

    `agent_port` is where the watchdog answers the edge, `watchdog_ms` how long the event loop may be blocked. `chaos`
    says whether experiments may block it (with the admin token). `traces` is off without it.
    """

    environment: str
    replica: str
    host: str
    port: Port
    agent_port: Port
    token_file: Path
    admin_token_file: Path
    redis: RedisSettings
    etcd: tuple[str, ...] = Field(min_length=1)
    shards: tuple[ShardEndpoints, ...] = Field(min_length=1)
    pool: PoolSettings
    registry: ShardEndpoints
    artifacts: str
    models_dir: Path
    genmodel_jar: Path
    jvm_heap_mb: int = Field(ge=32)
    watchdog_ms: int = Field(ge=50)
    chaos: bool
    traces: TraceSettings | None = None

    @model_validator(mode="after")
    def _no_chaos_in_production(self) -> Settings:
        if self.chaos and self.environment == "production":
            raise ValueError("chaos is on in production: faults never act there; switch it off")
        return self


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings that the environment names; SettingsError when there are none or they are wrong."""
    name = environ.get(CONFIG_VARIABLE)
    if not name:
        raise SettingsError(f"{CONFIG_VARIABLE} is not set: let it name the replica's JSON configuration")
    try:
        settings = Settings.model_validate_json(Path(name).read_bytes())
    except OSError as error:
        raise SettingsError(f"{name} (from {CONFIG_VARIABLE}) cannot be read: {error.strerror}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise SettingsError(f"{name} is not a valid configuration: {wrong}") from error
    replica = environ.get(REPLICA_VARIABLE)
    return settings.model_copy(update={"replica": replica}) if replica else settings


def read_secret(path: Path) -> str:
    """A secret from its file, without the newline; SettingsError when it is unreadable or empty."""
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"the secret file {path} cannot be read: {error.strerror}") from error
    if not secret:
        raise SettingsError(f"the secret file {path} is empty: create the environment's secrets again")
    return secret
