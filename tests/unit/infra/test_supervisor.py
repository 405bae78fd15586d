"""supervisord's configuration, read back by supervisord's own parser; and its client without a server."""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from infra.environment import EnvironmentFault
from infra.local import servers
from infra.local import supervisor as supervision
from infra.local.account import Account
from infra.local.plan import LocalPlan
from infra.local.secrets import Secrets
from infra.local.servers import Program
from infra.local.supervisor import Supervisor, SupervisorDown
from tests.unit.infra.conftest import topology


def parsed(text: str, path: Path) -> dict[str, Any]:
    """Each program by its name, as supervisord will run it."""
    path.write_text(text)
    options = ServerOptions()
    options.read_config(str(path))
    groups = options.configroot.supervisord.process_group_configs
    return {program.name: program for group in groups for program in group.process_configs}


@pytest.fixture
def programs(plan: LocalPlan, own_secrets: Secrets, account: Account) -> tuple[Program, ...]:
    plan.supervisor_dir.mkdir()
    return servers.prepare(plan, own_secrets, account)


@pytest.fixture
def short_plan() -> Iterator[LocalPlan]:
    """Under a path that fits a Unix socket's name."""
    with tempfile.TemporaryDirectory(prefix="bw-") as root:
        made = LocalPlan(topology(), Path(root))
        made.supervisor_dir.mkdir(parents=True)
        yield made


def test_supervisord_reads_every_program_as_it_was_meant(
    plan: LocalPlan, programs: tuple[Program, ...], account: Account
) -> None:
    found = parsed(supervision.configuration(plan, programs, account), plan.supervisor_dir / "supervisord.conf")
    assert set(found) == {program.name for program in programs}
    for program in programs:
        config = found[program.name]
        assert tuple(shlex.split(config.command))[-len(program.command) :] == program.command
        assert config.directory == str(program.directory)
        assert config.stdout_logfile == str(program.log)
        assert config.environment["HOME"] == str(program.directory)
        assert config.stopwaitsecs == program.stop_wait_s
        assert not config.autostart


@pytest.mark.parametrize("euid", [0, 1000])
def test_as_root_a_member_of_postgres_runs_under_a_group_of_its_own(
    plan: LocalPlan,
    programs: tuple[Program, ...],
    account: Account,
    euid: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    own = [program for program in programs if program.group is not None]
    assert {program.member for program in own} == {member.name for member in plan.of("postgres")}
    assert len({program.group for program in own}) == len(plan.of("postgres"))

    text = supervision.configuration(plan, programs, account)

    sections = {name: body for name, _, body in (part.partition("]") for part in text.split("[program:")[1:])}
    for program in programs:
        changes = f'"/usr/bin/setpriv" "--reuid" "{account.uid}" "--regid" "{program.group}"' in sections[program.name]
        assert changes == (euid == 0 and program.group is not None)
        assert (f"user={account.name}" in sections[program.name]) == (euid == 0 and program.group is None)


def test_each_member_is_a_group(plan: LocalPlan, programs: tuple[Program, ...], account: Account) -> None:
    path = plan.supervisor_dir / "supervisord.conf"
    path.write_text(supervision.configuration(plan, programs, account))
    options = ServerOptions()
    options.read_config(str(path))
    groups = {g.name: {p.name for p in g.process_configs} for g in options.configroot.supervisord.process_group_configs}
    assert set(groups) == {member.name for member in plan.members}
    assert groups["shard-0-1"] == {"shard-0-1-server", "shard-0-1-warden"}


@pytest.mark.parametrize(
    "word", ["100%", "%(here)s", 'a "quoted" word', "it's", "two words", "back\\slash", "percent%%twice", "a=b,c"]
)
def test_words_of_a_command_arrive_unchanged(
    plan: LocalPlan, programs: tuple[Program, ...], account: Account, word: str
) -> None:
    odd = dataclasses.replace(programs[0], command=("/bin/echo", word))
    found = parsed(supervision.configuration(plan, [odd], account), plan.supervisor_dir / "supervisord.conf")
    assert shlex.split(found[odd.name].command) == ["/bin/echo", word]


@pytest.mark.parametrize("name", ["100%", "two words", "%(here)s"])
def test_directories_and_environment_arrive_unchanged(
    tmp_path: Path, plan: LocalPlan, programs: tuple[Program, ...], account: Account, name: str
) -> None:
    directory = tmp_path / name
    directory.mkdir()
    odd = dataclasses.replace(
        programs[0], directory=directory, log=directory / "log", environment=(("WHERE", str(directory)),)
    )
    found = parsed(supervision.configuration(plan, [odd], account), plan.supervisor_dir / "supervisord.conf")[odd.name]
    assert found.directory == str(directory)
    assert found.stdout_logfile == str(directory / "log")
    assert found.environment["WHERE"] == str(directory)


def test_without_supervisord_the_environment_is_not_up(short_plan: LocalPlan) -> None:
    supervisor = Supervisor(short_plan)
    assert not supervisor.is_up()
    with pytest.raises(SupervisorDown, match=r"unit is not up: .*run `breakwater up unit`"):
        supervisor.states()


def test_the_socket_of_a_killed_supervisord_is_no_supervisord(short_plan: LocalPlan) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(short_plan.supervisor_dir / "supervisor.sock"))
    assert not Supervisor(short_plan).is_up()


def test_a_frozen_supervisord_does_not_freeze_the_command(
    short_plan: LocalPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "CALL_S", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_plan.supervisor_dir / "supervisor.sock"))
        silent.listen()
        assert not Supervisor(short_plan).is_up()


def test_a_configuration_that_supervisord_refuses_is_one_clear_line(short_plan: LocalPlan) -> None:
    supervisor = Supervisor(short_plan)
    supervisor.config.write_text("[supervisord]\nnodaemon=perhaps\n")
    with pytest.raises(EnvironmentFault, match=r"supervisord did not start with .*supervisord\.conf: ") as refused:
        supervisor.launch()
    assert "\n" not in str(refused.value)


def test_a_missing_interpreter_is_one_clear_line(short_plan: LocalPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    with pytest.raises(EnvironmentFault, match="/nowhere/bin/python is not installed; run `make install`"):
        Supervisor(short_plan).launch()


def test_a_supervisord_that_never_returns_is_one_clear_line(
    short_plan: LocalPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, supervision.START_S)

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(EnvironmentFault, match=r"did not start within 10 s; see .*supervisord\.log"):
        Supervisor(short_plan).launch()
