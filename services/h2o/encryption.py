"""TLS of an H2O cloud: the files its nodes start with, and how those who ask them know whom they talk to.

A cloud encrypts as a whole: a node that does and one that does not never agree.
"""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from services.h2o.errors import ConfigurationInvalid

KEY_STORE: Final = "node.p12"
SECURITY: Final = "security.properties"
STORE_PASSWORD: Final = "h2oh2o"  # noqa: S105 - what H2O itself assumes; the store's mode protects the key, as a PEM's
ENDS_S: Final = 30.0


class Certificates(BaseModel):
    """PEM files of one node: whom it trusts, and how it proves itself, as a server and to its peers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    authority: Path
    certificate: Path
    key: Path


def scheme(certificates: Certificates | None) -> str:
    return "http" if certificates is None else "https"


def trusting(authority: str | Path) -> ssl.SSLContext:
    """For asking nodes; ConfigurationInvalid when the file is missing or damaged."""
    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationInvalid(f"the authority {authority} of H2O's certificate cannot be used: {error}") from error


def write_stores(certificates: Certificates, directory: Path) -> None:
    """Write what `options` name, for its owner alone. ConfigurationInvalid when certificate and key do not fit."""
    store = directory / KEY_STORE
    store.unlink(missing_ok=True)
    made = subprocess.run(
        [
            *("openssl", "pkcs12", "-export", "-name", "node"),
            *("-in", str(certificates.certificate), "-inkey", str(certificates.key)),
            *("-out", str(store), "-passout", f"pass:{STORE_PASSWORD}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDS_S,
    )
    if made.returncode:
        raise ConfigurationInvalid(
            f"{certificates.certificate} and {certificates.key} make no key store for H2O: "
            f"{' '.join(made.stderr.split())}"
        )
    # A node shows its peers one certificate and trusts that one alone. Of who connects H2O asks no certificate.
    lines = [
        "h2o_ssl_protocol=TLSv1.2",
        f"h2o_ssl_jks_internal={KEY_STORE}",
        f"h2o_ssl_jks_password={STORE_PASSWORD}",
        f"h2o_ssl_jts={KEY_STORE}",
        f"h2o_ssl_jts_password={STORE_PASSWORD}",
    ]
    with os.fdopen(os.open(directory / SECURITY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def options(directory: Path) -> list[str]:
    """h2o.jar's options for both of its ports."""
    return ["-jks", str(directory / KEY_STORE), "-internal_security_conf", str(directory / SECURITY)]
