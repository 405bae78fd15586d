"""What a node with certificates starts with, and what is said of certificates that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.coordination.tls import AUTHORITY
from services.h2o import client, encryption, server
from services.h2o.encryption import Certificates
from services.h2o.errors import ConfigurationInvalid, TrainingRefused
from tests.h2o_certificates import make_certificates


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


def test_both_ports_encrypt_or_none(certificates: Certificates, tmp_path: Path) -> None:
    clear = server.H2OServer(directory=tmp_path, port=54321, heap_mb=512)
    encrypted = server.H2OServer(directory=tmp_path, port=54321, heap_mb=512, certificates=certificates)

    assert encrypted.command() == [*clear.command(), *encryption.options(tmp_path)]
    assert (clear.url, encrypted.url) == ("http://127.0.0.1:54321", "https://127.0.0.1:54321")


def test_the_stores_are_made_anew_and_for_their_owner_alone(certificates: Certificates, tmp_path: Path) -> None:
    for _ in range(2):
        encryption.write_stores(certificates, tmp_path)

    for name in (encryption.KEY_STORE, encryption.SECURITY):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_key_of_another_certificate_is_named(certificates: Certificates, tmp_path: Path) -> None:
    certificates.key.write_bytes(make_certificates(tmp_path / "others").key.read_bytes())

    with pytest.raises(ConfigurationInvalid, match=r"tls\.key make no key store"):
        encryption.write_stores(certificates, tmp_path)


def test_an_authority_that_is_missing_is_named(certificates: Certificates) -> None:
    certificates.authority.unlink()

    with pytest.raises(ConfigurationInvalid, match=r"authority .*ca\.crt"):
        encryption.trusting(certificates.authority)


def test_training_over_https_wants_to_be_told_whom_to_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AUTHORITY, raising=False)

    with pytest.raises(TrainingRefused, match=f"{AUTHORITY} is not set"), client.connected("https://127.0.0.1:1", ()):
        pass
