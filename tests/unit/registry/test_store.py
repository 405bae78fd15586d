"""The artifact store: content under its digest, whole or absent, and never believed without looking."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.errors import ArtifactCorrupt, StoreUnavailable
from services.registry.store import ArtifactStore, write_whole


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def place(root: Path, digest: str) -> Path:
    return root / "store" / "sha256" / digest[:2] / digest


def test_content_is_found_under_its_digest(store: ArtifactStore, tmp_path: Path) -> None:
    digest = store.put(b"trees")
    assert digest == hashlib.sha256(b"trees").hexdigest()
    assert store.read(digest) == b"trees"
    assert store.fetch(digest) == place(tmp_path, digest)
    assert stat.S_IMODE(place(tmp_path, digest).stat().st_mode) == 0o644


def test_what_is_there_already_is_left_alone_and_what_is_damaged_is_mended(
    store: ArtifactStore, tmp_path: Path
) -> None:
    digest = store.put(b"trees")
    before = place(tmp_path, digest).stat().st_ino
    store.put(b"trees")
    assert place(tmp_path, digest).stat().st_ino == before
    place(tmp_path, digest).write_bytes(b"treez")
    with pytest.raises(ArtifactCorrupt, match="has sha256"):
        store.read(digest)
    assert store.put(b"trees") == digest
    assert store.read(digest) == b"trees"


def test_a_missing_artifact_is_named(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactCorrupt, match="has no artifact 000"):
        store.read("0" * 64)


def test_a_remote_store_is_fetched_into_the_cache_and_verified_there(tmp_path: Path) -> None:
    remote = ArtifactStore("memory://models", cache=tmp_path / "cache")
    digest = remote.put(b"trees")
    copy = remote.fetch(digest)
    assert copy.read_bytes() == b"trees"
    copy.write_bytes(b"treez")
    assert remote.fetch(digest).read_bytes() == b"trees"
    with pytest.raises(StoreUnavailable, match="no cache directory"):
        ArtifactStore("memory://models").fetch(digest)


@pytest.mark.parametrize("url", ["nowhere://bucket", "s3://bucket/models"])
def test_a_url_that_nothing_here_serves_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="install the package"):
        ArtifactStore(url)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    store = ArtifactStore(str(tmp_path / "store"))
    digest = hashlib.sha256(b"trees").hexdigest()
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            store.put(b"trees")
    assert list(place(tmp_path, digest).parent.iterdir()) == []
    assert store.put(b"trees") == digest


@given(st.binary(min_size=1, max_size=100))
def test_whatever_is_put_is_read(content: bytes) -> None:
    store = ArtifactStore("memory://hypothesis")
    assert store.read(store.put(content)) == content


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to others")
def test_what_root_puts_leaves_the_store_to_its_user(store: ArtifactStore, tmp_path: Path) -> None:
    user = 12345
    for each in (tmp_path, *tmp_path.rglob("*")):
        os.chown(each, user, user)
    digest = store.put(b"model")
    [artifact] = [path for path in tmp_path.rglob("*") if path.name == digest]
    assert artifact.parent.stat().st_uid == artifact.parent.parent.stat().st_uid == user
