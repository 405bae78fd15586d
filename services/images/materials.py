"""An image's bill of materials (CycloneDX 1.5), from what its package databases say; the same for the same packages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

DPKG_FORMAT: Final = "${binary:Package} ${Version} ${Architecture}\\n"
LIST_PYTHON: Final = (
    "from importlib.metadata import distributions\n"
    "for found in distributions(): print(found.metadata['Name'], found.version)"
)


def bill(image: str, digest: str, debian: str, python: str) -> str:
    """`debian` is what dpkg-query says in DPKG_FORMAT, `python` what LIST_PYTHON prints; ValueError when neither
    names a package."""
    components = sorted([*_debian(debian), *_python(python)], key=lambda part: str(part["bom-ref"]))
    if not components:
        raise ValueError(f"{image}: no package found: the image's package database is missing")
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": f"breakwater/{image}", "version": digest}},
        "components": components,
    }
    return json.dumps(document, indent=2) + "\n"


def _debian(listing: str) -> Iterator[dict[str, Any]]:
    for line in listing.splitlines():
        name, version, architecture = line.split()
        plain = name.partition(":")[0]
        yield _component(plain, version, f"pkg:deb/debian/{plain}@{quote(version)}?arch={architecture}")


def _python(listing: str) -> Iterator[dict[str, Any]]:
    for line in listing.splitlines():
        name, version = line.split()
        yield _component(name, version, f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}")


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
