"""The local environment's certificate authority and the edge's certificate, as files."""

from __future__ import annotations

import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from infra.certificates import Authority, Subject, issue, make_authority, pem, read_authority
from infra.environment import EnvironmentFault
from infra.local.account import Account
from infra.local.plan import LOOPBACK, LocalPlan

SERVER_DAYS: Final = 90
START_OVER: Final = "remove that directory and run `breakwater up` again: clients must then take the new CA"
RENEW_BEFORE_DAYS: Final = 30
"""`up` renews a certificate with less than this left; the CA stays, so clients need nothing new."""


def ensure(plan: LocalPlan, account: Account) -> None:
    """Make CA and edge certificate when missing, and renew the edge's when it is about to end."""
    account.directory(plan.tls_dir, 0o755)
    ca_key_file, bundle = plan.tls_dir / "ca.key", plan.tls_dir / "edge.pem"
    now = datetime.datetime.now(datetime.UTC)
    if not (plan.ca_file.exists() and ca_key_file.exists()):
        made = make_authority(f"Breakwater {plan.environment} CA", now)
        account.write(ca_key_file, pem(made.key))
        account.write(plan.ca_file, made.certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        bundle.unlink(missing_ok=True)
    authority, current = _read(plan)
    if current and current.not_valid_after_utc - now > datetime.timedelta(days=RENEW_BEFORE_DAYS):
        return
    certificate, key = issue(authority, Subject("localhost", ["localhost", LOOPBACK]), now, SERVER_DAYS)
    account.write(bundle, certificate + key)


def _read(plan: LocalPlan) -> tuple[Authority, x509.Certificate | None]:
    """The CA, and the edge's certificate if there is one."""
    ca_key_file, bundle = plan.tls_dir / "ca.key", plan.tls_dir / "edge.pem"
    try:
        authority = read_authority(plan.ca_file.read_bytes(), ca_key_file.read_bytes())
        current = x509.load_pem_x509_certificate(bundle.read_bytes()) if bundle.exists() else None
    except TypeError as error:
        raise EnvironmentFault(f"{ca_key_file} holds no EC key; {START_OVER}") from error
    except ValueError as error:
        raise EnvironmentFault(f"{plan.tls_dir} holds a damaged certificate or key; {START_OVER}") from error
    return authority, current
