"""Which account the servers run as: PostgreSQL refuses root, so root hands them to Debian's postgres account."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.environment import EnvironmentFault

SERVICE_USER: Final = "postgres"


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int

    @classmethod
    def for_servers(cls) -> Account:
        """The caller's own account, or `postgres` when the caller is root."""
        if os.geteuid() != 0:
            try:
                entry = pwd.getpwuid(os.geteuid())
            except KeyError as error:
                raise EnvironmentFault(
                    f"user id {os.geteuid()} has no name on this machine, and PostgreSQL needs one; add the user, or "
                    "run as one that exists"
                ) from error
            return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)
        try:
            entry = pwd.getpwnam(SERVICE_USER)
        except KeyError as error:
            raise EnvironmentFault(
                f"as root the servers run as the user {SERVICE_USER}, which does not exist; run `make install`, "
                "which installs Debian's postgresql"
            ) from error
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def directory(self, path: Path, mode: int = 0o700) -> Path:
        """Make `path` (parents must exist) with the given mode, owned by this account."""
        path.mkdir(mode=mode, exist_ok=True)
        path.chmod(mode)
        self.own(path)
        return path

    def write(self, path: Path, content: str | bytes, mode: int = 0o600) -> None:
        """Write a file whole or not at all, owned by this account; never readable by others on the way."""
        partial = path.with_name(path.name + ".partial")
        partial.unlink(missing_ok=True)
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())
        partial.chmod(mode)
        self.own(partial)
        partial.rename(path)
