"""The watch over Mage: what it calls ready, late and hopeless; and the project that it lays out."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
import yaml

from services.contracts.shards import HostPort, ShardEndpoints
from services.etl.mage_database import database_url
from services.etl.scheduler import LATE_S, STARTING_S, Loop, Scheduler, SchedulerConfig, lay_out_project

NOW = 1000.0


def loop(
    *, turned_ago: float | None = 1.0, serves: bool = True, waiting: float = 0.0, began_ago: float = 500.0
) -> Loop:
    turned = None if turned_ago is None else NOW - turned_ago
    return Loop(began_s=NOW - began_ago, turned_s=turned, serves=serves, waiting_s=waiting)


@pytest.mark.parametrize(
    ("state", "obstacle", "hopeless"),
    [
        (loop(), None, False),
        (loop(turned_ago=None, began_ago=20), "starting, for 20 s", False),
        (loop(turned_ago=None, began_ago=STARTING_S + 1), "starting, for 181 s", True),
        (loop(turned_ago=LATE_S + 1), "its scheduler's loop has not turned for 21 s", False),
        (loop(turned_ago=2 * LATE_S + 1), "its scheduler's loop has not turned for 41 s", True),
        (loop(waiting=LATE_S + 1), "an order has waited for 21 s and nothing begins", False),
        (loop(waiting=2 * LATE_S + 1), "an order has waited for 41 s and nothing begins", True),
        (loop(serves=False), "its web server does not answer", False),
    ],
)
def test_what_keeps_mage_from_taking_orders(state: Loop, obstacle: str | None, hopeless: bool) -> None:
    assert state.obstacle(NOW) == obstacle
    assert state.hopeless(NOW) is hopeless


def test_what_waited_before_the_loop_turned_is_not_held_against_it() -> None:
    late = Loop(began_s=NOW - 30)
    late.waits(1000.0, NOW)
    assert late.waiting_s == 0.0
    late.turn(NOW - 10)
    late.turn(NOW - 1)
    late.waits(1000.0, NOW)
    assert (late.waiting_s, late.turned_s) == (10.0, NOW - 1)
    late.waits(3.0, NOW)
    assert late.waiting_s == 3.0


def test_what_mage_says_is_passed_on_with_its_time(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    Scheduler._pass_on(b"INFO:mage_ai.server.scheduler_manager:Start scheduler.\n")
    said = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 INFO:mage_ai\.server\.scheduler_manager:Start scheduler\.\n"
    assert re.fullmatch(said, capsysbinary.readouterr().out)


def endpoints() -> ShardEndpoints:
    hosts = tuple(HostPort(name=f"m-{i}", host="127.0.0.1", port=5000 + i) for i in range(2))
    return ShardEndpoints(shard=0, hosts=hosts, dbname="mage", user="breakwater_mage", passfile=Path("/s/mage.pgpass"))


def config(directory: Path, schedule: str | None) -> SchedulerConfig:
    for name in ("owner", "session", "token"):
        (directory / name).write_text(f"secret-{name}")
    return SchedulerConfig(
        member="mage-0", host="127.0.0.1", port=1, status_port=2, mage_python=Path("/none"), directory=directory,
        database=endpoints(), run_config=directory / "etl.json", owner_password=directory / "owner",
        session_secret=directory / "session", trigger_token=directory / "token", schedule=schedule,
    )  # fmt: skip


@pytest.mark.parametrize(("schedule", "status"), [(None, "inactive"), ("0 3 * * 1", "active")])
def test_the_project_has_a_trigger_for_orders_and_one_for_the_schedule(
    tmp_path: Path, schedule: str | None, status: str
) -> None:
    project = lay_out_project(config(tmp_path, schedule))
    path = project / "pipelines" / "walk_forward" / "triggers.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    order, timed = yaml.safe_load(path.read_text())["triggers"]
    assert (order["name"], order["schedule_type"], order["token"]) == ("order", "api", "secret-token")
    assert (timed["schedule_type"], timed["status"]) == ("time", status)
    assert schedule in {None, timed["schedule_interval"]}
    assert yaml.safe_load((project / "metadata.yaml").read_text())["help_improve_mage"] is False


def test_the_project_is_laid_out_again_over_what_mage_wrote(tmp_path: Path) -> None:
    project = lay_out_project(config(tmp_path, None))
    (project / "steps.py").write_text("broken")
    (project / "mage-wrote-this").touch()
    again = lay_out_project(config(tmp_path, None))
    assert "broken" not in (again / "steps.py").read_text()
    assert (again / "mage-wrote-this").exists()


def test_the_databases_url_names_every_member_and_no_password() -> None:
    url = database_url(endpoints())
    assert url.startswith("postgresql+psycopg2://breakwater_mage:@/mage?host=127.0.0.1:5000&host=127.0.0.1:5001&")
    assert "target_session_attrs=read-write" in url
    assert "passfile=/s/mage.pgpass" in url
    encrypted = database_url(endpoints().model_copy(update={"root_certificate": Path("/ca.pem")}))
    assert "sslmode=verify-full&sslrootcert=/ca.pem" in encrypted
