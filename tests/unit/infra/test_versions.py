"""Versions as programs say them, and what is said when they say none."""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from infra import versions
from infra.local.environment import LocalEnvironment
from infra.local.plan import LocalPlan
from infra.local.servers import PACKAGE_OF, VERSION_OF

PYTHON = (sys.executable, "-S", "-c")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
        ("etcd Version: 3.4.23\nGit SHA: Not provided (use ./build instead of go build)", "3.4.23"),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0", "7.0.15"),
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12-1+deb12u4"),
        ("openjdk 17.0.15 2025-04-15\nOpenJDK Runtime Environment (build 17.0.15+6-Debian-1deb12u1)", "17.0.15"),
    ],
)
def test_a_server_says_its_version_in_words_of_its_own(said: str, found: str) -> None:
    assert versions.of_server(("/bin/echo", said)) == found


def test_a_version_that_cannot_be_had_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions.of_server(("/none/etcd", "--version")) == (
        "not known: /none/etcd does not start: No such file or directory"
    )
    assert versions.of_server(("/bin/echo", "who knows")) == (
        "not known: /bin/echo who knows ended with 0 and named none"
    )
    assert versions.of_server((*PYTHON, "print(15); raise SystemExit(3)")).endswith("ended with 3 and named none")
    assert versions.of_package("no-such-package") == "not known: no package no-such-package is installed"
    monkeypatch.setattr(versions, "ANSWER_S", 0.2)
    began = time.monotonic()
    assert versions.of_server((*PYTHON, "import time; time.sleep(60)")) == (
        f"not known: {sys.executable} did not answer within 0 s"
    )
    assert time.monotonic() - began < 10


def test_a_local_environment_names_each_of_its_servers(plan: LocalPlan) -> None:
    found = LocalEnvironment(plan).versions()
    assert set(found) == {"PostgreSQL", "Patroni", "etcd", "Redis", "HAProxy", "Java", "H2O"}
    assert {name: found[name] for name in PACKAGE_OF} == {name: version(of) for name, of in PACKAGE_OF.items()}
    for name, command in VERSION_OF.items():
        assert found[name].startswith(versions.UNKNOWN) != Path(command[0]).exists(), found[name]
