"""The environment's own certificate authority and the edge's certificate."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.environment import EnvironmentFault
from infra.local.account import Account
from infra.local.plan import LOOPBACK, LocalPlan

CA_DAYS: Final = 3650
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
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Breakwater {plan.environment} CA")])
        certificate = (
            _builder(name, name, key.public_key(), now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_ca_usage(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        account.write(ca_key_file, _pem(key))
        account.write(plan.ca_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        bundle.unlink(missing_ok=True)
    ca, ca_key, current = _read(plan, ca_key_file, bundle)
    if current and current.not_valid_after_utc - now > datetime.timedelta(days=RENEW_BEFORE_DAYS):
        return
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    certificate = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
            ca.subject,
            key.public_key(),
            now,
            SERVER_DAYS,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    account.write(bundle, certificate.public_bytes(serialization.Encoding.PEM) + _pem(key))


def _read(
    plan: LocalPlan, ca_key_file: Path, bundle: Path
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey, x509.Certificate | None]:
    """The CA, its key, and the edge's certificate if there is one."""
    try:
        ca = x509.load_pem_x509_certificate(plan.ca_file.read_bytes())
        ca_key = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
        current = x509.load_pem_x509_certificate(bundle.read_bytes()) if bundle.exists() else None
    except (ValueError, TypeError) as error:
        raise EnvironmentFault(f"{plan.tls_dir} holds a damaged certificate or key; {START_OVER}") from error
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise EnvironmentFault(f"{ca_key_file} holds no EC key; {START_OVER}")
    return ca, ca_key, current


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
