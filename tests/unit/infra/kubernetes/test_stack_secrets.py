"""The secrets of a stack: complete, closed to others, made once; certificates that their users accept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from infra.environment import EnvironmentFault
from infra.kubernetes.names import CERTIFIED, STACK_SECRETS, certificate
from infra.kubernetes.stack_secrets import CA_KEY, ensure
from tests.unit.infra.kubernetes.conftest import shipped


@pytest.fixture
def made(tmp_path: Path) -> Path:
    ensure(shipped("staging"), tmp_path / "secrets")
    return tmp_path / "secrets"


def test_every_secret_of_the_stack_is_there_and_for_nobody_else(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {*STACK_SECRETS, CA_KEY}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {0o600}


def test_what_is_there_stays_and_what_was_removed_is_made_anew(made: Path) -> None:
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    assert ensure(shipped("staging"), made) == []
    (made / certificate("edge")).unlink()
    assert set(ensure(shipped("staging"), made)) == {"tls_edge_crt", "tls_edge_key"}
    after = {path.name: path.read_bytes() for path in made.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"tls_edge_crt", "tls_edge_key"}


def test_certificates_bear_the_names_by_which_servers_are_reached(made: Path) -> None:
    authority = x509.load_pem_x509_certificate((made / "tls_ca_crt").read_bytes())
    names = {}
    for holder in CERTIFIED:
        found = x509.load_pem_x509_certificate((made / certificate(holder)).read_bytes())
        found.verify_directly_issued_by(authority)
        extensions = {type(extension.value): extension.value for extension in found.extensions}
        alternative = extensions.get(x509.SubjectAlternativeName)
        names[holder] = (
            alternative.get_values_for_type(x509.DNSName)
            if isinstance(alternative, x509.SubjectAlternativeName)
            else []
        )
    assert "*.postgres.breakwater-staging.svc.cluster.local" in names["postgres"]
    assert "*.etcd.breakwater-staging.svc.cluster.local" in names["etcd"]
    assert "*.h2o.breakwater-staging.svc.cluster.local" in names["h2o"]
    assert names["edge"][0] == "staging.breakwater.example.org"
    assert names["client"] == []


def test_half_an_authority_is_refused(made: Path) -> None:
    (made / CA_KEY).unlink()
    with pytest.raises(EnvironmentFault, match="without the other"):
        ensure(shipped("staging"), made)


def test_a_damaged_authority_is_refused(made: Path) -> None:
    (made / CA_KEY).write_text("nonsense")
    (made / "tls_edge_crt").unlink()
    with pytest.raises(EnvironmentFault, match="is damaged"):
        ensure(shipped("staging"), made)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="choose another with --out"):
        ensure(shipped("staging"), tmp_path / "file")
