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

LIST_JARS: Final = (
    "import hashlib, pathlib, sys, zipfile\n"
    "for jar in sorted(pathlib.Path(sys.argv[1]).rglob('*.jar')):\n"
    "    print('jar', hashlib.sha256(jar.read_bytes()).hexdigest(), jar)\n"
    "    with zipfile.ZipFile(jar) as archive:\n"
    "        for name in archive.namelist():\n"
    "            if name.startswith('META-INF/maven/') and name.endswith('/pom.properties'):\n"
    "                lines = archive.read(name).decode().splitlines()\n"
    "                found = dict(line.split('=', 1) for line in lines if '=' in line)\n"
    "                said = [found.get(key, '').strip() for key in ('groupId', 'artifactId', 'version')]\n"
    "                if all(said): print('maven', *said)"
)
"""Every jar below a folder, and what was built into it, as far as it says so."""


def bill(image: str, digest: str, debian: str, python: str, jars: str = "") -> str:
    """`debian` is what dpkg-query says in DPKG_FORMAT, `python` what LIST_PYTHON prints in each interpreter, `jars`
    what LIST_JARS prints; ValueError when none names a package."""
    found = {part["bom-ref"]: part for part in (*_debian(debian), *_python(python), *_jars(jars))}
    components = [found[reference] for reference in sorted(found)]
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


def _jars(listing: str) -> Iterator[dict[str, Any]]:
    for line in listing.splitlines():
        match line.split(" ", 3):
            case "jar", digest, path:
                name = path.rpartition("/")[2]
                # a jar states no version; its content is what it is
                purl = f"pkg:generic/{quote(name)}?checksum=sha256:{digest}"
                hashes = [{"alg": "SHA-256", "content": digest}]
                yield _component(name, digest[:12], purl) | {"hashes": hashes, "description": path}
            case "maven", group, artifact, version:
                yield _component(f"{group}:{artifact}", version, f"pkg:maven/{group}/{artifact}@{quote(version)}")
            case _:
                raise ValueError(f"a listing of jars says {line!r}")


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
