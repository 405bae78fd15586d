"""The command line as a user meets it: exit codes, and one clear line for whatever is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import psycopg
import pytest
from click.testing import CliRunner

from breakwater import workloads
from breakwater.cli import cli, main
from infra.environment import EnvironmentFault
from infra.local import runtime
from infra.local.plan import LocalPlan
from infra.stack import local_plan

ROOT = Path(__file__).resolve().parents[3]
CHANGING = ["up", "down", "heal", "load", "train", "verify", "controls", "soak", "load-test"]
EVERY = [*CHANGING, "status", "endpoints"]


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def handlers() -> Iterator[None]:
    """`main` takes over signals; the test process takes them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def breakwater(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], handlers: None
) -> Breakwater:
    monkeypatch.setenv("BREAKWATER_PROJECT", str(ROOT))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Breakwater(monkeypatch, capsys)


@dataclass(frozen=True, slots=True)
class Breakwater:
    """Runs the entry point as the shell would."""

    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Said:
        self.patch.setattr(sys, "argv", ["breakwater", *words])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = self.captured.readouterr()
        return Said(code, out, err)


def one_line(said: Said) -> str:
    assert said.code == 3
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.startswith("■ ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("name", [None, *sorted(cli.commands)])
def test_every_command_explains_itself(name: str | None) -> None:
    answer = CliRunner().invoke(cli, [*([name] if name else []), "--help"])
    assert answer.exit_code == 0
    assert "Usage:" in answer.output
    if name:
        assert cli.commands[name].help


def test_help_waits_for_nothing_that_only_the_work_needs() -> None:
    heavy = {"alembic", "h2o", "numpy", "pandas", "psycopg", "pyarrow", "redis", "sqlalchemy", "urllib3"}
    program = f"import breakwater.cli, sys; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command", ["up", "down", "status", "endpoints", "heal", "load", "train", "verify", "controls", "load-test"]
)
def test_an_unknown_environment_names_those_that_exist(breakwater: Breakwater, command: str) -> None:
    said = one_line(breakwater(command, "nowhere"))
    assert "no environment 'nowhere'" in said
    assert "known here: local, production, staging" in said


@pytest.mark.parametrize("command", ["status", "endpoints", "verify"])
def test_a_missing_context_is_named_and_no_other_is_used(
    breakwater: Breakwater, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    said = one_line(breakwater(command, "staging"))
    assert "no usable context breakwater-staging" in said
    assert "set KUBECONFIG" in said


def test_without_a_fault_there_is_nothing_to_heal_on_kubernetes(breakwater: Breakwater) -> None:
    assert breakwater("heal", "staging").out.strip() == "nothing to heal in staging"


@pytest.mark.parametrize("command", ["up", "down", "load", "train", "controls"])
def test_an_environment_on_kubernetes_is_not_for_local_commands(breakwater: Breakwater, command: str) -> None:
    assert "staging runs on kubernetes" in one_line(breakwater(command, "staging"))


def test_outside_a_project_it_says_how_to_name_one(breakwater: Breakwater, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BREAKWATER_PROJECT")
    assert "set BREAKWATER_PROJECT" in one_line(breakwater("status", "local"))


def test_a_broken_topology_is_one_line_with_its_field(
    breakwater: Breakwater, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Pulumi.odd.yaml").write_text("config: {'breakwater:runtime': local, 'breakwater:etcd': {members: 4}}")
    monkeypatch.setenv("BREAKWATER_PROJECT", str(tmp_path))
    assert "breakwater:etcd: members is 4: an even etcd cluster" in one_line(breakwater("up", "odd"))


@pytest.mark.parametrize("months", ["0-3", "3-1", "1-13", "x", "", "1-2-3", "-1"])
def test_months_that_are_none_are_refused_before_anything_starts(breakwater: Breakwater, months: str) -> None:
    said = breakwater("load", "local", f"--months={months}")
    assert said.code == 3
    assert "is not a range of months like 1-12" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("verify", "local", "--scenario", "S-99"), "no scenario 'S-99'; there is S-01, S-01-again, "),
        (("verify", "local", "--variant", "flood"), "S-01 has no variant 'flood'; it has server-killed, member-killed"),
        (("controls", "local", "flood"), "no control flood; there is wardens-off, lease-of-a-minute"),
        (("status", "local"), "local is not up"),
        (("load", "local"), "local is not up"),
        (("train", "local"), "local is not up"),
        (("logs", "local", "shard-9-9"), "no member 'shard-9-9' in local; members: etcd-0"),
        (("logs", "local", "etcd-0"), "etcd-0 of local has no logs yet; see `breakwater status local`"),
    ],
)
def test_what_does_not_exist_is_one_line_with_what_does(
    breakwater: Breakwater, words: tuple[str, ...], says: str
) -> None:
    assert says in one_line(breakwater(*words))


def test_a_run_directory_that_is_missing_or_none(breakwater: Breakwater, tmp_path: Path) -> None:
    missing = breakwater("check", str(tmp_path / "nothing"))
    assert missing.code == 3
    assert "does not exist" in missing.err
    assert "holds no run.json: it is not a run directory" in one_line(breakwater("check", str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"schema": 2}'])
def test_a_damaged_run_is_one_line(breakwater: Breakwater, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert "does not describe a run" in one_line(breakwater("check", str(tmp_path)))


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "local", "--seed", "x"),
        ("verify", "local", "--rate", "0"),
        ("train", "local", "--seed", "-1"),
        ("logs", "local"),
        ("launch", "local"),
        ("up", "local", "--fast"),
    ],
)
def test_wrong_use_is_exit_3(breakwater: Breakwater, words: tuple[str, ...]) -> None:
    said = breakwater(*words)
    assert said.code == 3
    assert "Error: " in said.err


def test_down_of_what_is_not_up_is_fine_and_purge_leaves_nothing(breakwater: Breakwater) -> None:
    said = breakwater("down", "local", "--purge")
    assert said == Said(0, "local was not up, its state is deleted\n", "")
    assert not local_plan("local").state.exists()


def test_heal_with_nothing_to_heal(breakwater: Breakwater) -> None:
    assert breakwater("heal", "local") == Said(0, "nothing to heal in local\n", "")


def test_endpoints_of_what_is_down_are_known_for_programs(breakwater: Breakwater) -> None:
    said = breakwater("endpoints", "local", "--json")
    assert said.code == 0
    assert '"pid": null' in said.out
    assert "password=" not in said.out


@pytest.mark.parametrize("command", CHANGING)
def test_one_command_at_a_time_changes_an_environment(breakwater: Breakwater, command: str) -> None:
    with runtime.locked(local_plan("local")):
        assert f"works on local (pid {os.getpid()})" in one_line(breakwater(command, "local"))


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (
            PermissionError(13, "Permission denied", "/var/lib/x"),
            "Permission denied: /var/lib/x; see to its permissions",
        ),
        (psycopg.ProgrammingError("relation missing\nLINE 1"), "Postgres refused: relation missing LINE 1; see"),
        (OSError(28, "No space left on device"), "No space left on device; see to its permissions, its disk"),
        (EnvironmentFault("two\nlines and [red]brackets[/red] [/tmp/x]"), "two lines and [red]brackets[/red] [/tmp/x]"),
    ],
)
def test_trouble_on_the_way_is_one_line_word_for_word(
    breakwater: Breakwater, monkeypatch: pytest.MonkeyPatch, trouble: Exception, says: str
) -> None:
    def fail(plan: LocalPlan) -> None:
        raise trouble

    monkeypatch.setattr(runtime, "heal", fail)
    assert says in one_line(breakwater("heal", "local"))


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_says_how_to_go_on(
    breakwater: Breakwater, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    def interrupt(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(runtime, "up", interrupt)
    said = breakwater("up", "local")
    assert said.code == 130
    assert "`breakwater heal` undoes faults" in said.err
    assert "nothing to heal" in breakwater("heal", "local").out, "the lock was not given back"


def test_an_interruption_says_what_was_under_way(breakwater: Breakwater, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        error = KeyboardInterrupt()
        error.add_note("runs/x holds what was recorded until then")
        raise error

    monkeypatch.setattr(runtime, "up", interrupt)
    assert "runs/x holds what was recorded" in breakwater("up", "local").err


def test_being_ended_is_as_being_interrupted(breakwater: Breakwater, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(runtime, "demand_up", lambda _: None)
    monkeypatch.setattr(workloads, "load", ended)
    assert breakwater("load", "local").code == 130


def test_nohup_means_what_it_says(tmp_path: Path) -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import breakwater.cli as c; sys.argv = ['breakwater', '--version']\n"
        "try: c.main()\n"
        "finally: print(signal.getsignal(signal.SIGHUP).name, signal.getsignal(signal.SIGTERM) is c._interrupt)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
    )
    assert answer.stdout.splitlines()[-1] == "SIG_IGN True"
