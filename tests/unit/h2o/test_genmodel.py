"""The scoring runtime comes out of the installed wheel whole, readable and once."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from services.h2o import genmodel
from services.h2o.errors import JarMissing
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


@pytest.mark.parametrize(("content", "said"), [(b"PK\x03\x04 cut off", "is damaged"), (None, "has no www/")])
def test_a_server_jar_that_cannot_give_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    server = tmp_path / "h2o.jar"
    if content is None:
        zipfile.ZipFile(server, "w").close()
    else:
        server.write_bytes(content)
    monkeypatch.setattr(genmodel, "server_jar", lambda: server)
    with pytest.raises(JarMissing, match=f"h2o.jar {said}"):
        extract_genmodel(tmp_path / "lib")
    assert not list((tmp_path / "lib").iterdir())
