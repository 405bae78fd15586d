"""Bills of materials: every package once, the same each time; an image without a package database is refused."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from services.images import build, materials
from services.images.materials import LIST_JARS, bill

ROOT = Path(__file__).resolve().parents[3]

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


def test_each_interpreter_and_each_jar_is_listed_once() -> None:
    """Mage's image has two interpreters; what both have in one version is one component."""
    python = "psycopg 3.2.1\nh2o 3.46.0.11\nmage-ai 0.9.80\npsycopg 3.2.1\nh2o 3.46.0.10\n"
    digest = "ab" * 32
    jars = f"jar {digest} /opt/breakwater/h2o-genmodel.jar\nmaven com.google.code.gson gson 2.9.0\n"
    made = json.loads(bill("mage", "sha256:abc", "", python, jars))
    assert [part["purl"] for part in made["components"]] == [
        f"pkg:generic/h2o-genmodel.jar?checksum=sha256:{digest}",
        "pkg:maven/com.google.code.gson/gson@2.9.0",
        "pkg:pypi/h2o@3.46.0.10",
        "pkg:pypi/h2o@3.46.0.11",
        "pkg:pypi/mage-ai@0.9.80",
        "pkg:pypi/psycopg@3.2.1",
    ]
    assert made["components"][0]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    with pytest.raises(ValueError, match="says 'junk'"):
        bill("mage", "sha256:abc", "", "", "junk")


def test_jars_are_found_with_what_was_built_into_them(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with zipfile.ZipFile(tmp_path / "deep" / "scorer.jar", "w") as jar:
        said = "#Generated\nversion=2.9.0\ngroupId=com.google.code.gson\nartifactId=gson\n"
        jar.writestr("META-INF/maven/com.google.code.gson/gson/pom.properties", said)
    command = [sys.executable, "-c", LIST_JARS, str(tmp_path)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256((tmp_path / "deep" / "scorer.jar").read_bytes()).hexdigest()
    assert listed == f"jar {digest} {tmp_path}/deep/scorer.jar\nmaven com.google.code.gson gson 2.9.0\n"


class Engine:
    """docker as far as a bill needs it: answers by what is run in an image."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, command: list[str]) -> str:
        self.asked.append(command)
        if "inspect" in command:
            return "sha256:abc 1000\n"
        if materials.DPKG_FORMAT in command:
            return "libc6 1 amd64\n"
        if materials.LIST_JARS in command:
            return f"jar {'0' * 64} /opt/breakwater/h2o-genmodel.jar\n"
        return f"found-in{command[command.index('--entrypoint') + 1].split('/')[2]} 1\n"


@pytest.mark.parametrize(
    ("image", "own"), [("mage", {"foundinbreakwater", "foundinmage"}), ("api", {"foundinbreakwater"}), ("etcd", set())]
)
def test_an_images_bill_asks_everything_that_has_packages(
    image: str, own: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = Engine()
    monkeypatch.setattr(build, "_run", engine)
    monkeypatch.setattr(build, "OUT", tmp_path)
    assert build.describe("docker", image, "x/y:1") == 1000
    names = {
        part["name"].replace("-", "") for part in json.loads((tmp_path / f"{image}.cdx.json").read_text())["components"]
    }
    assert names == {"libc6", *own, *({"h2ogenmodel.jar"} if own else ())}


def test_every_interpreter_of_a_dockerfile_is_known() -> None:
    """Whoever makes a further environment in an image has it listed."""
    for folder in (ROOT / "services" / "images").glob("*/Dockerfile"):
        made = set(re.findall(r"^COPY --from=build (/opt/\S+) /opt/\S+$", folder.read_text(), re.MULTILINE))
        environments = {f"{path}/bin/python" for path in made if not path.endswith(".jar")}
        assert environments == set(build.INTERPRETERS.get(folder.parent.name, ())), folder
