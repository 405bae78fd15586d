"""Writes a pod's patroni.yaml and warden.json from what its shard's members share, its own name and its secrets.

`python -m services.postgres.configure SETTINGS_JSON MEMBER_NAME`; run before the server starts, again at each start.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.postgres.directory import MemberDirectory
from services.postgres.errors import ConfigurationInvalid
from services.postgres.patroni import PatroniMember, PatroniPasswords, TlsFiles, render
from services.postgres.warden import WardenConfig


class MemberSettings(BaseModel):
    """What every member of a shard is told. Members are reached at NAME.`domain`; secrets stay in files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: str
    namespace: str
    domain: str
    port: int = Field(gt=0, lt=65536)
    rest_port: int = Field(gt=0, lt=65536)
    etcd: tuple[str, ...] = Field(min_length=1)
    directory: Path
    bin_dir: Path
    secrets_dir: Path
    tls_dir: Path
    ttl_s: int
    loop_wait_s: int
    retry_timeout_s: int
    synchronous: bool
    max_connections: int
    fence_margin_s: int | None

    def tls(self) -> TlsFiles:
        return TlsFiles(
            authority=self.tls_dir / "ca.crt",
            certificate=self.tls_dir / "tls.crt",
            key=self.tls_dir / "tls.key",
            client_certificate=self.tls_dir / "client.crt",
            client_key=self.tls_dir / "client.key",
        )


def read(path: Path) -> MemberSettings:
    """ConfigurationInvalid when the file is missing or says something else."""
    try:
        return MemberSettings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationInvalid(f"{path} does not describe a shard's members: {error}: render it again") from error


def configure(settings: MemberSettings, name: str) -> None:
    """Write both files, mode 0600; whole or not at all, so that a server that restarts meanwhile reads no half."""
    member = PatroniMember(
        scope=settings.scope,
        name=name,
        namespace=settings.namespace,
        host=f"{name}.{settings.domain}",
        port=settings.port,
        rest_port=settings.rest_port,
        etcd=settings.etcd,
        directory=settings.directory,
        bin_dir=settings.bin_dir,
        passwords=PatroniPasswords(
            superuser=_secret(settings, "postgres_superuser"),
            replication=_secret(settings, "postgres_replication"),
            rewind=_secret(settings, "postgres_rewind"),
            rest=_secret(settings, "patroni_rest"),
        ),
        ttl_s=settings.ttl_s,
        loop_wait_s=settings.loop_wait_s,
        retry_timeout_s=settings.retry_timeout_s,
        synchronous=settings.synchronous,
        max_connections=settings.max_connections,
        tls=settings.tls(),
    )
    _write(MemberDirectory(settings.directory).patroni_config, yaml.safe_dump(render(member)))
    if settings.fence_margin_s is not None:
        warden = WardenConfig(
            member=name,
            scope=settings.scope,
            namespace=settings.namespace,
            etcd=tuple(f"https://{host}" for host in settings.etcd),
            # not the member's name: a resolver that is away must not look like a Patroni that is silent
            rest_url=f"https://127.0.0.1:{settings.rest_port}",
            ttl_s=settings.ttl_s,
            fence_margin_s=settings.fence_margin_s,
            directory=settings.directory,
            authority=settings.tls().authority,
        )
        _write(settings.directory / "warden.json", json.dumps(warden.model_dump(mode="json"), indent=2))


def _secret(settings: MemberSettings, name: str) -> str:
    path = settings.secrets_dir / name
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise ConfigurationInvalid(f"the secret file {path} cannot be read: {error.strerror}") from error
    if not secret:
        raise ConfigurationInvalid(f"the secret file {path} is empty: set the stack's secret again")
    return secret


def _write(path: Path, content: str) -> None:
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    partial.replace(path)


def main(arguments: list[str]) -> int:
    match arguments:
        case [path, name]:
            try:
                configure(read(Path(path)), name)
            except ConfigurationInvalid as error:
                sys.stderr.write(f"configure: {error}\n")
                return 2
            return 0
        case _:
            sys.stderr.write("usage: python -m services.postgres.configure SETTINGS_JSON MEMBER_NAME\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
