"""Starts a member's Patroni: waits while held, takes the server lock shared, says who it is, and becomes Patroni."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from services.postgres.directory import MEMBER_VARIABLE, MemberDirectory, ProcessIdentity
from services.postgres.errors import ConfigurationInvalid

# How often a held server looks whether it may start, seconds: part of the time from `start` to streaming again.
HOLD_POLL_S = 0.05
# What Patroni gets of the caller's environment. PATRONI_* and PG* of a shell would silently override the config.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


def launch(directory: MemberDirectory) -> NoReturn:
    """Never returns. Raises ConfigurationInvalid when the directory is no member's."""
    if not directory.patroni_config.is_file():
        raise ConfigurationInvalid(f"{directory.patroni_config} is missing: render the member's configuration first")
    directory.run.mkdir(mode=0o700, exist_ok=True)
    directory.log.mkdir(mode=0o700, exist_ok=True)
    while directory.hold.exists():
        time.sleep(HOLD_POLL_S)

    lock = os.open(directory.server_lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)  # waits while a warden decides over this server's predecessor
    os.set_inheritable(lock, True)  # Patroni keeps it until its end; what Patroni starts does not get it

    directory.write_patroni_identity(ProcessIdentity(os.getpid(), own_start_ticks()))
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment[MEMBER_VARIABLE] = str(directory.root)
    command = [sys.executable, "-m", "services.postgres.run_patroni", str(directory.patroni_config)]
    os.execve(sys.executable, command, environment)  # noqa: S606 - becoming Patroni is the purpose


def own_start_ticks() -> int:
    """When this process started, clock ticks since boot; an exec does not change it."""
    stat = Path("/proc/self/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            try:
                launch(MemberDirectory(Path(path).resolve()))
            except ConfigurationInvalid as error:
                sys.stderr.write(f"launcher: {error}\n")
            return 2
        case _:
            sys.stderr.write("usage: python -m services.postgres.launcher MEMBER_DIRECTORY\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
