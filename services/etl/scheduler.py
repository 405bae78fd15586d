"""The member `mage`: `python -m services.etl.scheduler CONFIG` runs Mage and watches that it really starts runs.

Mage's own /api/status answers as long as its web server does; a scheduler that hangs (mage-ai#5621, #5836) is not seen
there. Here it is: the loop says each turn in its log, and what is ordered must begin. Whoever is late is started again
whole, and continues where it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import psycopg
import urllib3
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services import background
from services.contracts.shards import ShardEndpoints
from services.coordination import tls
from services.coordination.readiness import ReadinessServer
from services.etl import mage_runs
from services.etl.errors import EtlError, MageMissing
from services.etl.mage_database import database_url
from services.featurestore.errors import FeatureStoreError
from services.featurestore.sessions import session
from services.shutdown import on_shutdown

PROJECT: Final = Path(__file__).with_name("mage") / "project"
SERVE: Final = Path(__file__).with_name("mage") / "serve.py"
TURN: Final = b"Active pipeline runs:"
"""What the scheduler's loop says each time round (mage_ai/orchestration/pipeline_scheduler_original.py)."""
NOISE: Final = (TURN, b"/api/status", b"Action: list statuses", b"[api.views] Latency")
"""What it says all the time, and of our own questions: not passed on."""
LOOP_S: Final = 2
"""Pause of the scheduler's loop: each of a run's six stages waits for one turn. Mage's 10 s would add a minute."""
STARTING_S: Final = 180.0
"""Importing Mage takes 10 s of CPU, its migrations as much; a starved machine gets its time."""
LATE_S: Final = 20.0
"""A turn takes a fraction of a second, a waiting block begins with the next: beyond this the loop hangs, or has no
database, as long as a shard has no primary. A start costs half a minute and loses nothing, so twice this is enough."""
LOOK_EVERY_S: Final = 2.0
ASK_S: Final = 2.0
END_S: Final = 10.0
HTTP_OK: Final = 200
PASSED_ON: Final = ("HOME", "LANG", "PATH", tls.AUTHORITY, tls.CERTIFICATE, tls.KEY)
"""What the steps need of the environment; steps.py hands on the same."""
SINCE: Final = datetime(2024, 1, 1)  # noqa: DTZ001 - Mage's own form, UTC
"""When the triggers were enabled, as far as Mage is concerned: anything that is past."""
NEVER: Final = "0 0 1 1 *"
"""Mage wants a schedule even where it is inactive."""


class SchedulerConfig(BaseModel):
    """mage.json. `port` is Mage's own, `status_port` has /ready and /status. `run_config`: etl.json of the steps.

    `mage_python` is the interpreter of Mage's own environment, `directory` where it works and keeps what it writes.
    The other three paths are files with secrets. `schedule`: cron in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    member: str
    host: str
    port: int
    status_port: int
    mage_python: Path
    directory: Path
    database: ShardEndpoints
    run_config: Path
    owner_password: Path
    session_secret: Path
    trigger_token: Path
    schedule: str | None = None
    loop_s: int = Field(default=LOOP_S, ge=1)
    late_s: float = Field(default=LATE_S, gt=0)


@dataclass
class Loop:
    """What is known of Mage's scheduler; written by the threads that listen, read by who judges.

    `first_s` and `turned_s`: its loop's first and last turn.
    """

    began_s: float
    late_s: float = LATE_S
    first_s: float | None = None
    turned_s: float | None = None
    serves: bool = False
    waiting_s: float = 0.0
    running: int | None = None

    def turn(self, now_s: float) -> None:
        self.turned_s = now_s
        self.first_s = now_s if self.first_s is None else self.first_s

    def waits(self, idle_s: float, now_s: float) -> None:
        """Nothing of what is ordered runs, for `idle_s`; what was so before the loop turned is not its fault."""
        self.waiting_s = 0.0 if self.first_s is None else min(idle_s, now_s - self.first_s)

    def obstacle(self, now_s: float) -> str | None:
        """Why no order would be carried out now; None when one would."""
        if self.turned_s is None:
            return f"starting, for {now_s - self.began_s:.0f} s"
        if now_s - self.turned_s > self.late_s:
            return f"its scheduler's loop has not turned for {now_s - self.turned_s:.0f} s"
        if self.waiting_s > self.late_s:
            return f"an order has waited for {self.waiting_s:.0f} s and nothing begins"
        if not self.serves:
            return "its web server does not answer"
        return None

    def hopeless(self, now_s: float) -> bool:
        """Whether only a new start can help."""
        if self.turned_s is None:
            return now_s - self.began_s > STARTING_S
        return now_s - self.turned_s > 2 * self.late_s or self.waiting_s > 2 * self.late_s


class Scheduler:
    """Mage's process and the watch over it."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._stop = threading.Event()
        self._loop = Loop(time.monotonic(), config.late_s)
        self._process: subprocess.Popen[bytes] | None = None
        self._http = urllib3.PoolManager(retries=False, timeout=ASK_S)
        self._readiness = ReadinessServer(config.host, config.status_port, ready=self.obstacle, status=self.status)

    def run(self) -> int:
        """Until Mage ends, hangs or `stop`; the exit code: supervision starts it again."""
        self._readiness.start()
        self._process = self._start()
        stdout = self._process.stdout
        if stdout is None:
            raise AssertionError("Mage was started without its output")
        threading.Thread(target=self._listen, args=(stdout,), name="mage-log", daemon=True).start()
        try:
            while not self._stop.wait(LOOK_EVERY_S):
                if self._process.poll() is not None:
                    self._note(f"mage ended with {self._process.returncode}")
                    return 1
                self._look()
                if self._loop.hopeless(time.monotonic()):
                    self._note(f"{self.obstacle()}: starting it again")
                    return 1
            return 0
        finally:
            self._end(self._process)
            self._readiness.close()

    def stop(self) -> None:
        self._stop.set()

    def obstacle(self) -> str | None:
        return self._loop.obstacle(time.monotonic())

    def status(self) -> dict[str, Any]:
        reason = self.obstacle()
        return {
            "ready": reason is None,
            "reason": reason,
            "pid": None if self._process is None else self._process.pid,
            "running": self._loop.running,
        }

    def _start(self) -> subprocess.Popen[bytes]:
        config = self._config
        project = lay_out_project(config)
        if not config.mage_python.exists():
            raise MageMissing(f"{config.mage_python} does not exist: run scripts/bootstrap mage")
        environment = {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(project),
            "BREAKWATER_PYTHON": sys.executable,
            "BREAKWATER_ETL_CONFIG": str(config.run_config),
            "MAGE_DATA_DIR": str(config.directory / "data"),
            "MAGE_DATABASE_CONNECTION_URL": database_url(config.database),
            "SCHEDULER_TRIGGER_INTERVAL": str(config.loop_s),
            # its web pages can run any code: only for who knows the owner's password
            "REQUIRE_USER_AUTHENTICATION": "1",
            "DEFAULT_OWNER_PASSWORD": config.owner_password.read_text().strip(),
            "JWT_SECRET": config.session_secret.read_text().strip(),
            "HIDE_API_TRIGGER_TOKEN": "1",
            "DISABLE_TERMINAL": "1",
            "DISABLE_NOTEBOOK_EDIT_ACCESS": "2",
            "DISABLE_AUTO_BROWSER_OPEN": "1",
            "DISABLE_AUTORELOAD": "1",
            "ENABLE_OPEN_AI": "0",
            "ENABLE_HUGGING_FACE": "0",
        }
        return background.spawn(
            [str(config.mage_python), str(SERVE), config.host, str(config.port), str(project)],
            cwd=config.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _listen(self, output: IO[bytes]) -> None:
        """Pass on what Mage says, and remember the loop's turns."""
        for line in output:
            if TURN in line:
                self._loop.turn(time.monotonic())
            if any(word in line for word in NOISE):
                continue
            self._pass_on(line)

    def _look(self) -> None:
        url = f"http://{self._config.host}:{self._config.port}/api/status"
        try:
            self._loop.serves = self._http.request("GET", url).status == HTTP_OK
        except urllib3.exceptions.HTTPError:
            self._loop.serves = False
        if self._loop.turned_s is None:
            return  # its tables may not be there yet
        # a primary that changes takes Mage's database away for seconds: no reason to start anything again
        with (
            contextlib.suppress(FeatureStoreError, psycopg.Error),
            session(self._config.database, application_name=mage_runs.APPLICATION) as connection,
        ):
            self._loop.waits(mage_runs.idle_s(connection), time.monotonic())
            self._loop.running = mage_runs.running(connection)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it: all that it forked dies with it, and nothing of a run is lost by that."""
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)

    def _note(self, text: str) -> None:
        self._pass_on(f"scheduler: {text}\n".encode())

    @staticmethod
    def _pass_on(line: bytes) -> None:
        """With its time: Mage gives its lines none."""
        sys.stdout.buffer.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} ".encode() + line)
        sys.stdout.buffer.flush()


def lay_out_project(config: SchedulerConfig) -> Path:
    """Bring the project's blocks and pipeline to where Mage works, with this environment's triggers; Mage writes there.

    A trigger that Mage has in its database is never forgotten by leaving it out: without a schedule it is inactive.
    """
    project = config.directory / "project"
    shutil.copytree(PROJECT, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    common = {"start_time": SINCE, "last_enabled_at": SINCE, "variables": {}}
    triggers = [
        {
            **common,
            "name": mage_runs.TRIGGER,
            "schedule_type": "api",
            "schedule_interval": None,
            "status": "active",
            "token": config.trigger_token.read_text().strip(),
            "settings": {},
        },
        {
            **common,
            "name": "schedule",
            "schedule_type": "time",
            "schedule_interval": config.schedule or NEVER,
            "status": "active" if config.schedule else "inactive",
            "settings": {"skip_if_previous_running": True},
        },
    ]
    path = project / "pipelines" / mage_runs.PIPELINE / "triggers.yaml"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump({"triggers": triggers}))
    return project


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            try:
                scheduler = Scheduler(SchedulerConfig.model_validate_json(Path(path).read_bytes()))
            except (OSError, ValidationError) as error:
                sys.stderr.write(f"scheduler: {path}: {error}\n")
                return 2

            on_shutdown(scheduler.stop)
            try:
                return scheduler.run()
            except (EtlError, OSError) as error:
                sys.stderr.write(f"scheduler: {error}\n")
                return 2
        case _:
            sys.stderr.write("usage: python -m services.etl.scheduler MAGE_JSON\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
