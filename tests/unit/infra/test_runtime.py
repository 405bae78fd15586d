"""What `up` refuses before it touches anything, what it repairs, and what a lock, an undo file and a purge do."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patroni.utils import patch_config

from infra import lock
from infra.environment import EnvironmentFault, FaultRefused
from infra.local import partition, runtime, servers, shard_config
from infra.local import supervisor as supervision
from infra.local.environment import LocalEnvironment
from infra.local.plan import LocalPlan
from infra.local.supervisor import Supervisor
from tests.unit.infra.conftest import topology


class Silent:
    """Progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, component: str, what: str) -> None: ...

    def done(self, component: str, what: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def made(plan: LocalPlan) -> LocalPlan:
    with runtime.locked(plan):
        return plan


def test_a_command_waits_for_an_experiment_whose_own_command_was_killed(
    made: LocalPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "EXPERIMENT_ENDS_S", 0.2)
    holding = "import sys, time; print('held', flush=True); time.sleep(float(sys.argv[1]))"
    flock = ["/usr/bin/flock", "--no-fork", "--nonblock", str(made.experiment_lock)]
    left = subprocess.Popen([*flock, sys.executable, "-c", holding, "60"], stdout=subprocess.PIPE)
    try:
        assert left.stdout is not None
        assert left.stdout.readline() == b"held\n"
        with pytest.raises(EnvironmentFault, match=r"an experiment on unit, .* has not ended"), runtime.locked(made):
            pass
    finally:
        left.kill()
        left.wait()
    with runtime.locked(made):
        pass


def store(plan: LocalPlan, before: Any) -> None:
    (plan.state / "topology.json").write_text(json.dumps(before.model_dump(mode="json")))


def changed(plan: LocalPlan, **sections: Any) -> LocalPlan:
    return LocalPlan(topology(**sections), plan.state.parent)


# The lock and the state directory.


def test_a_second_command_is_refused_with_the_pid_of_the_first(plan: LocalPlan) -> None:
    with (
        runtime.locked(plan),
        pytest.raises(EnvironmentFault, match=rf"works on unit \(pid {os.getpid()}\)"),
        runtime.locked(plan),
    ):
        pass


def test_the_lock_of_a_command_that_was_killed_is_free(plan: LocalPlan) -> None:
    with runtime.locked(plan):
        pass
    program = (
        "import fcntl, os, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(plan.state / "lock")], check=False, timeout=30)
    with runtime.locked(plan):
        assert (plan.state / "lock").read_text() == str(os.getpid())


def test_the_lock_is_not_handed_down_to_servers(plan: LocalPlan) -> None:
    with runtime.locked(plan):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with runtime.locked(plan), (plan.state / "lock").open() as again, pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        child.kill()
        child.wait()


def test_state_directories_let_the_servers_user_through_whatever_the_umask(tmp_path: Path) -> None:
    plan = LocalPlan(topology(), tmp_path / "new" / "state")
    before = os.umask(0o077)
    try:
        with runtime.locked(plan):
            pass
    finally:
        os.umask(before)
    assert [oct(path.stat().st_mode & 0o777) for path in (plan.state, plan.state.parent, tmp_path / "new")] == [
        "0o755"
    ] * 3
    assert plan.supervisor_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name", ["two words", 'quo"te', "hash#", "semi;colon", "comma,comma", "dollar$", "back\\slash"]
)
def test_a_path_that_server_configurations_do_not_carry_is_refused(tmp_path: Path, name: str) -> None:
    plan = LocalPlan(topology(), tmp_path / name)
    with pytest.raises(EnvironmentFault, match="set XDG_STATE_HOME to a plain path"), runtime.locked(plan):
        pass
    assert not plan.state.exists()


def test_a_state_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    plan = LocalPlan(topology(), tmp_path / "file" / "state")
    with pytest.raises(EnvironmentFault, match="cannot be made: Not a directory"), runtime.locked(plan):
        pass


def test_a_lock_that_cannot_be_opened_is_one_clear_line(plan: LocalPlan) -> None:
    (plan.state / "lock").mkdir()
    with pytest.raises(EnvironmentFault, match="lock cannot be opened: Is a directory"), runtime.locked(plan):
        pass


# Preflight.


def test_missing_servers_are_all_named(made: LocalPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "BINARIES", (Path("/bin/sh"), Path("/nowhere/etcd"), Path("/nowhere/java")))
    with pytest.raises(EnvironmentFault, match="not installed: /nowhere/etcd, /nowhere/java; run `make install`"):
        runtime.up(made, Silent())


@pytest.mark.parametrize(("has_data", "needed"), [(False, "2.1 GB"), (True, "0.5 GB")])
def test_a_full_disk_is_refused_before_a_server_fills_it(
    made: LocalPlan, monkeypatch: pytest.MonkeyPatch, has_data: bool, needed: str
) -> None:
    monkeypatch.setattr(servers, "BINARIES", ())
    monkeypatch.setattr(supervision, "SOCKET_PATH_MAX", 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**8}))
    if has_data:
        made.members_dir.mkdir()
    with pytest.raises(EnvironmentFault, match=f"has 0.1 GB free, the environment needs {needed}"):
        runtime.up(made, Silent())


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "BINARIES", ())
    plan = LocalPlan(topology(), tmp_path / ("long" * 25))
    with runtime.locked(plan), pytest.raises(EnvironmentFault, match="too long for Unix sockets"):
        runtime.up(plan, Silent())


def test_a_taken_port_names_the_member_that_needs_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        plan = LocalPlan(topology(local={"port_base": port}), Path("/unused"))
        with pytest.raises(EnvironmentFault, match=rf"port {port}, which etcd-0 needs, is taken"):
            runtime._ports_free(plan)


# A topology that changed.


def test_without_a_stored_topology_everything_is_allowed(made: LocalPlan) -> None:
    runtime._same_topology(made, True)


@pytest.mark.parametrize("sections", [{"local": {"port_base": 25000}}, {"redis": {"max_memory_mb": 128}}])
def test_a_topology_that_changed_while_up_is_refused(made: LocalPlan, sections: dict[str, Any]) -> None:
    store(made, topology())
    with pytest.raises(EnvironmentFault, match=r"has changed since unit came up; run `breakwater down unit`"):
        runtime._same_topology(changed(made, **sections), True)


def test_who_may_be_hurt_may_change_while_up(made: LocalPlan) -> None:
    store(made, topology())
    runtime._same_topology(changed(made, chaos={"enabled": True, "components": ["redis"]}), True)


def test_most_of_a_topology_may_change_while_down(made: LocalPlan) -> None:
    store(made, topology())
    (made.member("etcd-0").directory / "data").mkdir(parents=True)
    runtime._same_topology(changed(made, redis={"max_memory_mb": 128}, postgres={"members_per_shard": 4}), False)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"local": {"port_base": 25000}}, "local.port_base was 24000 and is now 25000"),
        ({"etcd": {"members": 5}}, "etcd.members was 3 and is now 5"),
    ],
)
def test_what_etcds_data_remembers_may_not(made: LocalPlan, sections: dict[str, Any], says: str) -> None:
    store(made, topology())
    now = changed(made, **sections)
    runtime._same_topology(now, False)
    (made.member("etcd-0").directory / "data").mkdir(parents=True)
    with pytest.raises(EnvironmentFault, match=says):
        runtime._same_topology(now, False)


def test_a_damaged_stored_topology_stops_only_a_running_environment(made: LocalPlan) -> None:
    (made.state / "topology.json").write_text('{"environment": "un')
    runtime._same_topology(made, False)
    with pytest.raises(EnvironmentFault, match="does not describe a topology; run `breakwater down unit`"):
        runtime._same_topology(made, True)


# What is left behind.


def test_leftovers_are_stopped_and_data_stays(made: LocalPlan) -> None:
    directory = made.member("redis-0").directory
    directory.mkdir(parents=True)
    (directory / "data").write_text("kept")
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], cwd=directory, start_new_session=True
    )
    progress = Silent()
    try:
        assert runtime.down(made, progress)
        assert left.wait(timeout=10) < 0
    finally:
        left.kill()
        left.wait()
    assert (directory / "data").read_text() == "kept"
    assert progress.notes == ["1 processes outlived their supervisor; stopping them (the data stays)"]
    assert not runtime.down(made, Silent())


def test_etcd_is_stopped_after_those_that_still_need_it(made: LocalPlan) -> None:
    made.members_dir.mkdir()
    ended = made.state / "ended"
    program = (
        "import pathlib, signal, sys, time\n"
        "def end(*_): time.sleep(0.2); open(sys.argv[1], 'a').write(sys.argv[2] + ' '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('/proc/self/comm').write_text(sys.argv[2]); print(flush=True); time.sleep(60)"
    )
    left = []
    try:
        for name in ("etcd", "patroni"):
            words = [sys.executable, "-c", program, str(ended), name]
            left.append(subprocess.Popen(words, cwd=made.members_dir, start_new_session=True, stdout=subprocess.PIPE))
        for process in left:
            assert process.stdout is not None
            process.stdout.readline()
        assert runtime.down(made, Silent())
        assert ended.read_text() == "patroni etcd "
    finally:
        for process in left:
            process.kill()
            process.communicate()


def test_etcd_members_stop_one_after_the_other(made: LocalPlan) -> None:
    """A leader that hands over to one that stops too would wait for seven seconds."""
    made.members_dir.mkdir()
    said = made.state / "said"
    program = (
        "import pathlib, signal, sys, time\n"
        "def say(what): open(sys.argv[1], 'a').write(what + ' ')\n"
        "def end(*_): say('asked'); time.sleep(0.2); say('ended'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('/proc/self/comm').write_text('etcd'); print(flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", program, str(said)]
    left = [
        subprocess.Popen(words, cwd=made.members_dir, start_new_session=True, stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for process in left:
            assert process.stdout is not None
            process.stdout.readline()
        assert runtime.down(made, Silent())
        assert said.read_text() == "asked ended asked ended "
    finally:
        for process in left:
            process.kill()
            process.communicate()


def test_purge_deletes_everything_and_may_be_repeated(made: LocalPlan) -> None:
    runtime.purge(made)
    assert not made.state.exists()
    runtime.purge(made)


def test_healing_what_is_down_and_whole_does_nothing(made: LocalPlan) -> None:
    assert runtime.heal(made) == ()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"action": "start"}'])
def test_a_damaged_undo_is_one_clear_line(made: LocalPlan, content: str) -> None:
    (made.undo_dir / "redis-0.start.json").write_text(content)
    with pytest.raises(EnvironmentFault, match=r"redis-0\.start\.json is damaged.*breakwater down unit"):
        runtime.heal(made)


def test_an_undo_for_an_environment_that_is_down_says_so(made: LocalPlan) -> None:
    (made.undo_dir / "redis-0.start.json").write_text('{"action": "start", "member": "redis-0"}')
    with pytest.raises(EnvironmentFault, match="unit is not up"):
        runtime.heal(made)
    assert LocalEnvironment(made).forget_faults()
    assert runtime.heal(made) == ()


def test_an_undo_is_on_disk_whole_before_the_fault(made: LocalPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = changed(made, chaos={"enabled": True, "components": ["redis"]})
    seen: list[object] = []

    def states(_: Supervisor) -> dict[str, Any]:
        seen.extend(json.loads(path.read_text()) for path in made.undo_dir.glob("*.json"))
        return {}

    monkeypatch.setattr(Supervisor, "states", states)
    with pytest.raises(FaultRefused, match="nothing was killed"):
        LocalEnvironment(allowed).kill("redis-0", scope="server", hold=True)
    assert seen == [{"action": "start", "member": "redis-0"}]
    assert list(made.undo_dir.iterdir()) == []


@pytest.mark.parametrize("verb", ["isolate", "switchover"])
def test_what_only_a_member_of_postgres_can_suffer_is_refused_for_others(made: LocalPlan, verb: str) -> None:
    allowed = changed(made, chaos={"enabled": True, "components": ["redis"]})
    with pytest.raises(FaultRefused, match=r"redis-0 .*; nothing was done"):
        getattr(LocalEnvironment(allowed), verb)("redis-0")
    assert list(made.undo_dir.iterdir()) == []


def test_where_packets_cannot_be_filtered_there_is_no_such_fault(
    made: LocalPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "possible", lambda: False)
    allowed = changed(made, chaos={"enabled": True, "components": ["postgres"]})
    environment = LocalEnvironment(allowed)
    assert "isolate" not in environment.capabilities()
    with pytest.raises(FaultRefused, match="shard-0-0 cannot be cut off: that takes a member of Postgres, root"):
        environment.isolate("shard-0-0")
    assert list(made.undo_dir.iterdir()) == []


@pytest.mark.parametrize("verb", ["kill", "stop", "pause", "isolate", "switchover"])
def test_a_fault_where_chaos_is_off_touches_nothing(made: LocalPlan, verb: str) -> None:
    environment = LocalEnvironment(made)
    options: dict[str, Any] = {"scope": "server", "hold": True} if verb == "kill" else {}
    with pytest.raises(FaultRefused, match="not allowed in unit: breakwater:chaos says enabled: false"):
        getattr(environment, verb)("redis-0", **options)
    assert list(made.undo_dir.iterdir()) == []


def test_a_configuration_says_what_is_wanted_when_every_wanted_part_is_there() -> None:
    wanted = {"ttl": 20, "postgresql": {"parameters": {"max_connections": 120}}}
    assert shard_config.says({**wanted, "pause": False}, wanted)
    assert not shard_config.says({**wanted, "ttl": 30}, wanted)
    assert not shard_config.says({"ttl": 20, "postgresql": {"parameters": {}}}, wanted)
    assert not shard_config.says([], wanted)


def test_a_shard_whose_patroni_does_not_answer_is_one_clear_line(made: LocalPlan) -> None:
    made.secrets_dir.mkdir()
    (made.secrets_dir / "patroni_rest").write_text("secret-of-the-test")
    elsewhere = changed(made, local={"port_base": 1024})
    with pytest.raises(EnvironmentFault, match=r"Patroni of shard 0 did not carry out PATCH /config") as refused:
        shard_config.change(elsewhere, 0, {"ttl": 20})
    assert "secret-of-the-test" not in str(refused.value)
    shard_config.wake(elsewhere, 0)


def test_waking_patroni_changes_no_configuration() -> None:
    present = {"ttl": 20, "postgresql": {"parameters": {}}}
    assert not patch_config(dict(present), {shard_config.UNKNOWN_SETTING: None})
    assert patch_config(dict(present), {"ttl": None}), "what Patroni would write"
