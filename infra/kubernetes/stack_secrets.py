"""Makes an environment's secrets as files, one each, for `pulumi config set --secret`; makes only what is missing."""

from __future__ import annotations

import datetime
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from infra.certificates import Authority, Subject, issue, make_authority, pem, read_authority
from infra.environment import EnvironmentFault
from infra.kubernetes.names import CA, CERTIFIED, PASSWORDS, STACK_SECRETS, certificate, key
from infra.kubernetes.plan import KubernetesPlan

SECRET_BYTES: Final = 24
"""192 bits: beyond guessing, short enough for every server's limits."""
CERTIFICATE_DAYS: Final = 365
"""Renewing rolls every server: once a year is a rehearsal, more often a nuisance. docs/runbooks/staging.md says how."""
CA_KEY: Final = ".tls_ca_key"
"""Stays in the directory, hidden from the loop that sets the others: the cluster never needs it, a renewal does."""


def subjects(plan: KubernetesPlan) -> dict[str, Subject]:
    """Whose certificate bears which names. Wildcards cover members that a larger topology adds."""
    here = ("localhost", "127.0.0.1")

    def members(service: str) -> list[str]:
        return [f"*.{plan.service_host(service)}", plan.service_host(service), *here]

    return {
        # etcd's own gateway logs in to itself, and members to each other, with the server's certificate
        "etcd": Subject("etcd", members("etcd"), client=True),
        "postgres": Subject("postgres", members("postgres")),
        "redis": Subject("redis", [plan.service_host("redis"), *here]),
        "h2o": Subject("h2o", members("h2o"), client=True),  # a node is its peers' client too
        "edge": Subject("edge", [*plan.settings.edge.hosts, plan.service_host("edge")]),
        "client": Subject("breakwater", server=False, client=True),
    }


def ensure(plan: KubernetesPlan, directory: Path) -> list[str]:
    """Make what `directory` lacks; the names of what was made. EnvironmentFault when it cannot be written or read."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _fill(plan, directory)
    except OSError as error:
        raise EnvironmentFault(
            f"{error.filename or directory} cannot be written or read: {error.strerror}; choose another with --out"
        ) from error


def _fill(plan: KubernetesPlan, directory: Path) -> list[str]:
    made: list[str] = []

    def put(name: str, content: Callable[[], bytes]) -> None:
        if not (directory / name).exists():
            _write(directory / name, content())
            made.append(name)

    for name in PASSWORDS:
        put(name, lambda: secrets.token_urlsafe(SECRET_BYTES).encode())
    now = datetime.datetime.now(datetime.UTC)
    authority = _authority(plan, directory, put, now)
    for name in CERTIFIED:
        present = [(directory / part).exists() for part in (certificate(name), key(name))]
        if not all(present):
            (directory / certificate(name)).unlink(missing_ok=True)
            (directory / key(name)).unlink(missing_ok=True)
            cert, private = issue(authority, subjects(plan)[name], now, CERTIFICATE_DAYS)
            put(certificate(name), lambda content=cert: content)  # type: ignore[misc]
            put(key(name), lambda content=private: content)  # type: ignore[misc]
    missing = [name for name in STACK_SECRETS if not (directory / name).exists()]
    if missing:
        raise AssertionError(f"no way to make {missing}")
    return made


def _authority(
    plan: KubernetesPlan, directory: Path, put: Callable[[str, Callable[[], bytes]], None], now: datetime.datetime
) -> Authority:
    present = [(directory / name).exists() for name in (CA, CA_KEY)]
    if any(present) and not all(present):
        raise EnvironmentFault(
            f"{directory} holds one of {CA} and {CA_KEY} without the other: put it back, or empty the directory, after "
            "which every client must take the new authority"
        )
    if not any(present):
        new = make_authority(f"Breakwater {plan.environment} CA", now)
        put(CA, lambda: new.certificate.public_bytes(serialization.Encoding.PEM))
        put(CA_KEY, lambda: pem(new.key))
        return new
    try:
        return read_authority((directory / CA).read_bytes(), (directory / CA_KEY).read_bytes())
    except (ValueError, TypeError) as error:
        raise EnvironmentFault(f"{directory}/{CA} or {CA_KEY} is damaged ({error}): put it back") from error


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
