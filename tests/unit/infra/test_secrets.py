"""Secrets are made once, for their owner alone, and show themselves nowhere."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import stat

from infra.local import secrets
from infra.local.account import Account
from infra.local.plan import LocalPlan
from infra.local.secrets import Secrets
from services.featurestore.provision import scram_verifier


def values(found: Secrets) -> list[str]:
    return [getattr(found, field.name) for field in dataclasses.fields(found)]


def test_every_file_is_for_the_owner_alone(plan: LocalPlan, account: Account) -> None:
    secrets.ensure(plan, account)
    assert stat.S_IMODE(plan.secrets_dir.stat().st_mode) == 0o700
    files = list(plan.secrets_dir.iterdir())
    assert len(files) == 15
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_later_calls_keep_them_and_add_what_is_missing(plan: LocalPlan, account: Account) -> None:
    first = secrets.ensure(plan, account)
    assert secrets.ensure(plan, account) == first
    (plan.secrets_dir / "redis").unlink()
    again = secrets.ensure(plan, account)
    assert again.redis != first.redis
    assert dataclasses.replace(again, redis=first.redis) == first


def test_they_are_long_and_all_different(plan: LocalPlan, account: Account) -> None:
    found = values(secrets.ensure(plan, account))
    assert len(set(found)) == len(found)
    assert all(len(value) >= 32 for value in found)


def test_a_loosened_passfile_is_closed_again(plan: LocalPlan, account: Account) -> None:
    secrets.ensure(plan, account)
    plan.passfile.chmod(0o644)
    secrets.ensure(plan, account)
    assert stat.S_IMODE(plan.passfile.stat().st_mode) == 0o600


def test_passfiles_fit_any_member_and_one_role(plan: LocalPlan, own_secrets: Secrets) -> None:
    assert plan.passfile.read_text() == f"127.0.0.1:*:*:breakwater_app:{own_secrets.app}\n"
    assert plan.admin_passfile.read_text() == f"127.0.0.1:*:*:postgres:{own_secrets.superuser}\n"


def test_their_representation_shows_none(own_secrets: Secrets) -> None:
    shown = f"{own_secrets!r} {own_secrets}"
    assert not any(value in shown for value in values(own_secrets))


def test_a_verifier_is_what_rfc_5802_says() -> None:
    """Recomputed from the parts that the server would keep: salt, rounds, stored key, server key."""
    verifier = scram_verifier("correct horse")
    mechanism, rounds_and_salt, keys = verifier.split("$")
    rounds, salt = rounds_and_salt.split(":")
    stored, server = (base64.b64decode(key) for key in keys.split(":"))
    salted = hashlib.pbkdf2_hmac("sha256", b"correct horse", base64.b64decode(salt), int(rounds))
    assert mechanism == "SCRAM-SHA-256"
    assert stored == hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    assert server == hmac.digest(salted, b"Server Key", "sha256")
    assert scram_verifier("correct horse") != verifier, "each has a salt of its own"
    assert "horse" not in verifier
