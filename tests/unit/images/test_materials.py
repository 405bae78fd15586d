"""Bills of materials: every package once, the same each time; an image without a package database is refused."""

from __future__ import annotations

import json

import pytest

from services.images.materials import bill

DEBIAN = "libc6:amd64 2.36-9+deb12u14 amd64\nredis-server 5:7.0.15-1~deb12u5 amd64\n"


def test_packages_of_both_kinds_are_named_with_their_versions() -> None:
    made = json.loads(bill("redis", "sha256:abc", DEBIAN, "psycopg_binary 3.2.1\n"))
    assert [part["purl"] for part in made["components"]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64",
        "pkg:deb/debian/redis-server@5%3A7.0.15-1~deb12u5?arch=amd64",
        "pkg:pypi/psycopg-binary@3.2.1",
    ]
    assert made["metadata"]["component"] == {"type": "container", "name": "breakwater/redis", "version": "sha256:abc"}


def test_the_order_of_the_database_does_not_matter() -> None:
    turned = "\n".join(DEBIAN.splitlines()[::-1])
    assert bill("redis", "sha256:abc", turned, "") == bill("redis", "sha256:abc", DEBIAN, "")


def test_an_image_without_packages_is_refused() -> None:
    with pytest.raises(ValueError, match="redis: no package found"):
        bill("redis", "sha256:abc", "", "")
