"""What the machine that runs experiments keeps for an environment on Kubernetes: secrets, undo files, logs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.environment import EnvironmentFault
from infra.kubernetes.names import CA, certificate, key
from infra.local.plan import state_root
from infra.names import APP_ROLE
from services.coordination.endpoints import ClientCertificate

NEEDED: Final = (CA, certificate("client"), key("client"), "postgres_app", "api_token")
"""Of the stack's secrets. No superuser's, no authority's key: experiments write and read as the application does."""
OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class RunnerFiles:
    """Directories and files of one environment; everything in them is ours alone."""

    environment: str
    root: Path

    @classmethod
    def of(cls, environment: str) -> RunnerFiles:
        return cls(environment, state_root() / environment)

    @property
    def undo_dir(self) -> Path:
        return self.root / "undo"

    @property
    def secrets_dir(self) -> Path:
        return self.root / "secrets"

    @property
    def logs_dir(self) -> Path:
        return self.root / "logs"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def experiment_lock(self) -> Path:
        return self.root / "experiment.lock"

    @property
    def ca_file(self) -> Path:
        return self.secrets_dir / CA

    @property
    def token_file(self) -> Path:
        return self.secrets_dir / "api_token"

    @property
    def passfile(self) -> Path:
        return self.root / "app.pgpass"

    def etcd_proof(self) -> ClientCertificate:
        return ClientCertificate(
            authority=self.ca_file,
            certificate=self.secrets_dir / certificate("client"),
            key=self.secrets_dir / key("client"),
        )

    def make(self) -> None:
        """Its directories; EnvironmentFault when they cannot be made."""
        try:
            for directory in (self.root, self.undo_dir, self.logs_dir):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(
                f"{error.filename} cannot be made: {error.strerror}; see to its permissions, or set XDG_STATE_HOME to "
                "another place"
            ) from error

    def open_secrets(self) -> None:
        """See that every needed secret is there, for us alone, and write libpq's passfile. EnvironmentFault if not."""
        missing = [name for name in NEEDED if not (self.secrets_dir / name).is_file()]
        if missing:
            raise EnvironmentFault(
                f"{self.secrets_dir} lacks {', '.join(missing)}: copy these stack secrets there (mode 0600) from the "
                f"directory that `breakwater secrets {self.environment} --out DIR` made"
            )
        for name in NEEDED:
            if (self.secrets_dir / name).stat().st_mode & OTHERS:
                raise EnvironmentFault(f"{self.secrets_dir / name} is open to others: chmod 600 it")
        password = (self.secrets_dir / "postgres_app").read_text().strip()
        line = f"*:*:*:{APP_ROLE}:{password}\n"
        if not self.passfile.is_file() or self.passfile.read_text() != line:
            write(self.passfile, line)


def write(path: Path, content: str) -> None:
    """Whole or not at all, on disk when it returns, never readable by others."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)
