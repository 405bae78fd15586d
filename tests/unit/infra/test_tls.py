"""The environment's CA and edge certificate: a client verifies the chain, renewal keeps the CA."""

from __future__ import annotations

import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from infra.environment import EnvironmentFault
from infra.local import tls
from infra.local.account import Account
from infra.local.plan import LocalPlan


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def edge(plan: LocalPlan) -> Path:
    return plan.tls_dir / "edge.pem"


def handshake(plan: LocalPlan, name: str) -> str:
    """One TLS handshake in memory, with the client as strict as OpenSSL can be; returns the version."""
    client = ssl.create_default_context(cafile=plan.ca_file)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(edge(plan))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.version() or "no handshake"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_strict_client_verifies_the_chain_and_the_name(plan: LocalPlan, account: Account, name: str) -> None:
    tls.ensure(plan, account)
    assert handshake(plan, name) == "TLSv1.3"


def test_another_name_is_not_covered(plan: LocalPlan, account: Account) -> None:
    tls.ensure(plan, account)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(plan, "example.org")


def test_keys_are_private_and_the_ca_is_for_everybody(plan: LocalPlan, account: Account) -> None:
    tls.ensure(plan, account)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in plan.tls_dir.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "edge.pem": 0o600}


def test_the_ca_signs_servers_and_no_further_ca(plan: LocalPlan, account: Account) -> None:
    tls.ensure(plan, account)
    constraints = certificate(plan.ca_file).extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca
    assert constraints.path_length == 0
    assert not certificate(edge(plan)).extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_second_call_changes_nothing(plan: LocalPlan, account: Account) -> None:
    tls.ensure(plan, account)
    before = {path: path.read_bytes() for path in plan.tls_dir.iterdir()}
    tls.ensure(plan, account)
    assert {path: path.read_bytes() for path in plan.tls_dir.iterdir()} == before


@pytest.mark.parametrize(("days", "renewed"), [(31, False), (29, True), (0, True)])
def test_a_certificate_is_renewed_in_its_last_30_days_and_the_ca_stays(
    plan: LocalPlan, account: Account, monkeypatch: pytest.MonkeyPatch, days: int, renewed: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tls, "SERVER_DAYS", days)
        tls.ensure(plan, account)
    ca, first = plan.ca_file.read_bytes(), certificate(edge(plan))
    tls.ensure(plan, account)
    assert (certificate(edge(plan)).serial_number != first.serial_number) is renewed
    assert plan.ca_file.read_bytes() == ca
    assert handshake(plan, "localhost") == "TLSv1.3"
    if renewed:
        left = certificate(edge(plan)).not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        assert left > datetime.timedelta(days=89)


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "edge.pem"])
def test_a_damaged_file_is_one_clear_line(plan: LocalPlan, account: Account, name: str) -> None:
    tls.ensure(plan, account)
    (plan.tls_dir / name).write_bytes(b"\0" * 100)
    with pytest.raises(EnvironmentFault, match="damaged certificate or key; remove that directory"):
        tls.ensure(plan, account)


def test_a_key_of_another_kind_is_one_clear_line(plan: LocalPlan, account: Account) -> None:
    tls.ensure(plan, account)
    key = ed25519.Ed25519PrivateKey.generate()
    (plan.tls_dir / "ca.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(EnvironmentFault, match=r"ca\.key holds no EC key"):
        tls.ensure(plan, account)
