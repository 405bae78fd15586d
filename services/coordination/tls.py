"""How clients prove themselves to an etcd that demands certificates: files named by etcd's own client variables."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from services.coordination.messages import EtcdError

AUTHORITY, CERTIFICATE, KEY = "ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY"
"""As etcdctl reads them, so that it works in the same place without options."""


def context_from(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """EtcdError when a variable or a file is missing or damaged."""
    missing = [name for name in (AUTHORITY, CERTIFICATE, KEY) if not environ.get(name)]
    if missing:
        raise EtcdError(f"etcd is reached by https, but {', '.join(missing)} is not set: let each name its PEM file")
    return context_of(environ[AUTHORITY], environ[CERTIFICATE], environ[KEY])


def context_of(authority: str | Path, certificate: str | Path, key: str | Path) -> ssl.SSLContext:
    """EtcdError when a file is missing or damaged."""
    try:
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise EtcdError(
            f"the certificates for etcd cannot be used ({error}): see to {authority}, {certificate} and {key}"
        ) from error
    return context
