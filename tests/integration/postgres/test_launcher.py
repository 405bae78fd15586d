"""The launcher: waits while held or while a warden decides, says who it is, and is then Patroni."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.postgres.directory import MEMBER_VARIABLE, MemberDirectory
from services.postgres.processes import ProcessHandle, no_patroni_can_start
from tests.integration.postgres.shard_cluster import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def directory(tmp_path: Path) -> MemberDirectory:
    """A member whose Patroni waits for an etcd that is not there: enough of a Patroni to be one."""
    directory = MemberDirectory(tmp_path.resolve())
    config = {
        "scope": "s",
        "name": "m",
        "restapi": {"listen": "127.0.0.1:0", "connect_address": "127.0.0.1:1"},
        "etcd3": {"hosts": ["127.0.0.1:1"]},
        "postgresql": {
            "listen": "127.0.0.1:1",
            "connect_address": "127.0.0.1:1",
            "data_dir": str(directory.data),
            "bin_dir": "/usr/lib/postgresql/15/bin",
            "authentication": {"superuser": {"username": "p"}, "replication": {"username": "r"}},
        },
    }
    directory.patroni_config.write_text(json.dumps(config))
    directory.run.mkdir()
    return directory


@pytest.fixture
def launched(directory: MemberDirectory) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher, held."""
    directory.hold.touch()
    environment = {**os.environ, "PATRONI_NAME": "somebody-else", "PGHOST": "elsewhere"}
    command = [sys.executable, "-m", "services.postgres.launcher", str(directory.root)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield process
    process.send_signal(signal.SIGKILL)
    process.wait()


def becomes_patroni(process: subprocess.Popen[bytes]) -> bool:
    return b"patroni\0" in Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"services.postgres.", b"")


def test_held_then_waiting_for_the_lock_then_patroni(
    directory: MemberDirectory, launched: subprocess.Popen[bytes]
) -> None:
    with no_patroni_can_start(directory) as alone:
        assert alone
        time.sleep(1)
        assert directory.read_patroni_identity() is None, "held"
        directory.hold.unlink()
        time.sleep(1)
        assert directory.read_patroni_identity() is None, "waits for the warden's decision"
    identity = wait_until("the launcher says who it is", directory.read_patroni_identity, 15)
    assert identity.pid == launched.pid
    wait_until("it is Patroni", lambda: becomes_patroni(launched), 15)
    handle = ProcessHandle.open(identity)
    assert handle is not None, "the process that was named is the one that runs"
    with no_patroni_can_start(directory) as alone:
        assert not alone, "Patroni holds the lock"
    environment = Path(f"/proc/{launched.pid}/environ").read_bytes().split(b"\0")
    assert f"{MEMBER_VARIABLE}={directory.root}".encode() in environment
    assert not [each for each in environment if each.startswith((b"PATRONI_", b"PG"))]
    launched.kill()
    launched.wait()
    assert handle.dead()
    handle.close()
    with no_patroni_can_start(directory) as alone:
        assert alone, "nothing that Patroni started inherited the lock"


def test_a_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.postgres.launcher", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert "render the member's configuration first" in result.stderr
    assert "Traceback" not in result.stderr
