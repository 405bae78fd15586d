"""Where H2O's jars are: the server's, and the 5 MB scoring runtime that it carries inside."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import zipfile
from pathlib import Path

from services.h2o.errors import JarMissing

GENMODEL_NAME = "h2o-genmodel.jar"
GENMODEL_ENTRY = f"www/3/{GENMODEL_NAME}"
"""Where h2o.jar keeps the runtime (it serves it to its web clients from there)."""


def server_jar() -> Path:
    """h2o.jar of the installed h2o package, found without importing it (its import takes a second)."""
    spec = importlib.util.find_spec("h2o")
    for location in (spec.submodule_search_locations if spec else None) or ():
        jar = Path(location) / "backend" / "bin" / "h2o.jar"
        if jar.is_file():
            return jar
    raise JarMissing("the Python package h2o is not installed or has no h2o.jar: install requirements.lock")


def extract_genmodel(directory: Path) -> Path:
    """Put the scoring runtime into `directory` (made if absent), readable by all; unchanged when already there.

    Written beside its place and renamed, so that a reader sees the whole jar or none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / GENMODEL_NAME
    jar = server_jar()
    try:
        with zipfile.ZipFile(jar) as archive:
            content = archive.read(GENMODEL_ENTRY)
    except zipfile.BadZipFile as error:
        raise JarMissing(f"{jar} is damaged ({error}): install the Python package h2o again") from None
    except KeyError:
        raise JarMissing(f"{jar} has no {GENMODEL_ENTRY}: this release of h2o carries no runtime") from None
    if target.is_file() and target.read_bytes() == content:
        return target
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{GENMODEL_NAME}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target
