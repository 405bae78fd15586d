"""Certificates for H2O nodes on loopback, as files."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from infra.certificates import Subject, issue, make_authority
from services.h2o.encryption import Certificates


def make_certificates(directory: Path) -> Certificates:
    """Of an authority of their own, valid for a day. `directory` is made if absent."""
    directory.mkdir(exist_ok=True)
    made = Certificates(authority=directory / "ca.crt", certificate=directory / "tls.crt", key=directory / "tls.key")
    now = datetime.datetime.now(datetime.UTC)
    authority = make_authority("test", now)
    certificate, key = issue(authority, Subject("h2o", ["127.0.0.1"], client=True), now, 1)
    made.authority.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(certificate)
    made.key.write_bytes(key)
    return made
