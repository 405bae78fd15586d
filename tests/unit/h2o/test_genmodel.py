"""The scoring runtime comes out of the installed wheel whole, readable and once."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from services.h2o.genmodel import extract_genmodel


def test_the_runtime_is_extracted_once(tmp_path: Path) -> None:
    jar = extract_genmodel(tmp_path / "lib")
    assert stat.S_IMODE(jar.stat().st_mode) == 0o644
    with zipfile.ZipFile(jar) as archive:
        assert "hex/genmodel/MojoModel.class" in archive.namelist()
    first = jar.stat()
    assert extract_genmodel(tmp_path / "lib") == jar
    assert jar.stat().st_ino == first.st_ino
    assert [path.name for path in jar.parent.iterdir()] == [jar.name]


def test_a_damaged_runtime_is_replaced(tmp_path: Path) -> None:
    jar = extract_genmodel(tmp_path)
    size = jar.stat().st_size
    jar.write_bytes(b"torn")
    assert extract_genmodel(tmp_path).stat().st_size == size
