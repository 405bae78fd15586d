"""Builds the images, checks each, and writes its bill of materials: `python -m services.images.build [NAME...]`.

BASE_IMAGE names the Debian 12 image to start from, IMAGES what comes before an image's name, TAG its tag.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from services.images import materials

ROOT: Final = Path(__file__).resolve().parents[2]
OUT: Final = ROOT / "build" / "images"
BASE_IMAGE: Final = "debian:bookworm-slim"
PREFIX: Final = "localhost/breakwater"
TAG: Final = "0.1.0"
USER: Final = "10001:10001"
AT_ONCE: Final = 3
"""Builds at one time: each waits for the network in turns, and for one processor."""
PYTHON: Final = "/opt/breakwater/bin/python"

MAGE_PYTHON: Final = "/opt/mage/bin/python"
INTERPRETERS: Final = {
    **dict.fromkeys(("api", "postgres", "h2o"), (PYTHON,)),
    "mage": (PYTHON, MAGE_PYTHON),
}
"""Those with packages of their own; each is asked what it has."""
OPTIONAL: Final = "/opt"
"""Where everything stands that no package of Debian's brought: interpreters with their packages, and jars."""


def _imports(*modules: str) -> list[str]:
    return [PYTHON, "-c", f"import {', '.join(modules)}"]


CHECKS: Final[dict[str, tuple[list[str], ...]]] = {
    "mage": (
        _imports("services.etl.scheduler", "services.etl.run", "services.h2o.ensemble"),
        [MAGE_PYTHON, "-c", "import psycopg2, mage_ai"],
        ["/usr/bin/setpriv", "--version"],
    ),
    "api": (
        _imports(
            "services.api.app",
            "services.registry.reconciler",
            "services.featurestore.provision",
            "services.etl.__main__",
        ),
        ["/usr/bin/java", "-version"],
        ["/usr/bin/test", "-s", "/opt/breakwater/h2o-genmodel.jar"],
    ),
    "postgres": (
        _imports("patroni.__main__", "services.postgres.launcher", "services.postgres.configure"),
        _imports("services.postgres.warden", "services.postgres.step_down"),
        ["/usr/lib/postgresql/15/bin/postgres", "--version"],
    ),
    "etcd": (["/usr/bin/etcd", "--version"],),
    "redis": (["/usr/bin/redis-server", "--version"], ["/usr/bin/redis-cli", "--version"]),
    "h2o": (
        _imports("services.h2o.node", "services.h2o.train", "services.registry.registry"),
        ["/usr/bin/java", "-version"],
    ),
    "edge": (["/usr/sbin/haproxy", "-v"],),
}
"""What an image must be able to do as its own user, with a read-only root file system and without a network. They are
built in this order: first the one that takes longest."""
EVERY: Final = (["/usr/bin/install", "--version"], ["/usr/bin/id", "-un"])
"""What every image needs: secret files are installed, and initdb asks for its user's name."""


class ImageBroken(Exception):
    """An image could not be built, or is not what the pods need; the message says which and why."""


def build(docker: str, name: str) -> str:
    """Build one image and return its reference; ImageBroken with the end of what the engine said."""
    reference = f"{os.environ.get('IMAGES', PREFIX)}/{name}:{os.environ.get('TAG', TAG)}"
    dockerfile = f"services/images/{name}/Dockerfile"
    base = f"BASE_IMAGE={os.environ.get('BASE_IMAGE', BASE_IMAGE)}"
    _run([docker, "build", "--build-arg", base, "--tag", reference, "--file", dockerfile, "."])
    return reference


def check(docker: str, name: str, reference: str) -> None:
    """ImageBroken unless the image runs as our user and does everything that CHECKS asks of it."""
    user = _run([docker, "image", "inspect", "--format", "{{.Config.User}}", reference]).strip()
    if user != USER:
        raise ImageBroken(f"{reference} runs as {user or 'root'} and must run as {USER}")
    for command in (*EVERY, *CHECKS[name]):
        program, *arguments = command
        alone = ["--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--entrypoint", program]
        _run([docker, "run", *alone, reference, *arguments])


def describe(docker: str, name: str, reference: str) -> int:
    """Write the bill of materials; returns the image's size in bytes."""
    inspected = _run([docker, "image", "inspect", "--format", "{{.Id}} {{.Size}}", reference]).split()
    listing = [docker, "run", "--rm", "--network", "none", "--entrypoint"]
    debian = _run([*listing, "/usr/bin/dpkg-query", reference, "--show", "--showformat", materials.DPKG_FORMAT])
    own = INTERPRETERS.get(name, ())
    python = "".join(_run([*listing, each, reference, "-c", materials.LIST_PYTHON]) for each in own)
    jars = _run([*listing, own[0], reference, "-c", materials.LIST_JARS, OPTIONAL]) if own else ""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.cdx.json").write_text(materials.bill(name, inspected[0], debian, python, jars))
    return int(inspected[1])


def _make(docker: str, name: str) -> tuple[str, int]:
    reference = build(docker, name)
    check(docker, name, reference)
    return reference, describe(docker, name, reference)


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ImageBroken(f"{' '.join(command)} failed with {done.returncode}:\n{end}")
    return done.stdout


def main(names: Sequence[str]) -> int:
    unknown = sorted(set(names) - CHECKS.keys())
    docker = shutil.which("docker")
    if unknown or docker is None:
        sys.stderr.write(f"no image {unknown[0]}\n" if unknown else "docker is not on PATH: install an engine\n")
        return 2
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for reference, size in pool.map(partial(_make, docker), names or CHECKS):
                sys.stdout.write(f"{reference:<40} {size / 1e6:6.0f} MB\n")
    except ImageBroken as error:
        sys.stderr.write(f"images: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
