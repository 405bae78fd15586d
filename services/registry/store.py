"""Artifacts by what they contain: written whole or not at all, verified whenever they are read.

Any fsspec URL is a store: a directory (the default), s3://bucket/prefix, gs://bucket/prefix. Object stores put an
object as one step; a directory gets the content beside its place, fsync and rename.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from services.registry.errors import ArtifactCorrupt, StoreUnavailable

PUBLIC_FILE: Final = 0o644
PUBLIC_DIRECTORY: Final = 0o755
"""Models are no secrets; the server that scores may run as another user than the one that trains."""


class ArtifactStore:
    """`put` gives the digest under which `read` and `fetch` find the content again."""

    def __init__(self, url: str, *, cache: Path | None = None) -> None:
        """`cache`: directory for copies of what a remote store holds; needed only to `fetch` from one."""
        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise StoreUnavailable(
                f"{url} is not a usable artifact store: {error}; give a directory, or install the package for its URL"
            ) from error
        self._local = isinstance(self._files, LocalFileSystem)
        self._cache = cache

    def put(self, content: bytes) -> str:
        """Store the content and return its sha256. What is there already, and whole, stays untouched."""
        digest = hashlib.sha256(content).hexdigest()
        try:
            if self._holds(digest, content):
                return digest
            if self._local:
                write_whole(Path(self._path(digest)), content)
            else:
                self._files.pipe_file(self._path(digest), content)
        except OSError as error:
            raise StoreUnavailable(
                f"{self.url} does not take an artifact of {len(content)} bytes: {error}; "
                "see to its space and permissions"
            ) from error
        return digest

    def read(self, digest: str) -> bytes:
        """The content; ArtifactCorrupt when it is missing or not what its digest says."""
        try:
            content: bytes = self._files.cat_file(self._path(digest))
        except FileNotFoundError:
            raise ArtifactCorrupt(f"{self.url} has no artifact {digest}: register the model again") from None
        except OSError as error:
            raise StoreUnavailable(f"{self.url} cannot be read: {error}") from error
        actual = hashlib.sha256(content).hexdigest()
        if actual != digest:
            raise ArtifactCorrupt(f"{self._path(digest)} has sha256 {actual}: restore it, or register the model again")
        return content

    def fetch(self, digest: str) -> Path:
        """A local file with the verified content: the store's own, or a copy."""
        content = self.read(digest)
        if self._local:
            return Path(self._path(digest))
        if self._cache is None:
            raise StoreUnavailable(f"{self.url} is remote and there is no cache directory to fetch into")
        copy = self._cache / digest
        if not copy.is_file() or copy.read_bytes() != content:
            write_whole(copy, content)
        return copy

    def _path(self, digest: str) -> str:
        return f"{self._root}/sha256/{digest[:2]}/{digest}"

    def _holds(self, digest: str, content: bytes) -> bool:
        try:
            found: Any = self._files.cat_file(self._path(digest))
        except FileNotFoundError:
            return False
        return bool(found == content)


def write_whole(path: Path, content: bytes) -> None:
    """Write a public file so that a reader, or a power cut, sees all of it or nothing. Directories are made."""
    _make_public(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:16]}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fchmod(out.fileno(), PUBLIC_FILE)
            os.fsync(out.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _make_public(directory: Path) -> None:
    """Each belongs to whom the one above it belongs: what root puts must not keep the store's own user out."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(PUBLIC_DIRECTORY)
        if os.geteuid() == 0:
            above = each.parent.stat()
            os.chown(each, above.st_uid, above.st_gid)
