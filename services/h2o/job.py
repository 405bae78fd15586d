"""One training job on the cloud, run again from its snapshot whenever the cloud is lost, until it is done.

Each attempt is a process of its own: H2O's client is one global connection, and it waits for ever for a job whose node
died. What an attempt leaves unfinished is thrown away with it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from services.coordination.etcd import EtcdUnavailable
from services.h2o.cluster import Cloud, H2OCluster
from services.h2o.errors import TrainingInterrupted, TrainingRefused
from services.h2o.specs import SPEC, EnsembleSpec, JobSpec, SplitSpec
from services.h2o.trained import TrainedModel

ATTEMPTS: Final = 5
"""A job that costs the cloud its life so often will do so again, for want of memory for example."""
WHOLE_S: Final = 180.0
"""Reforming takes 10 to 30 s; a crowded machine gets its time."""
NOTICE_S: Final = 10.0
"""An attempt that fails is blamed on the cloud when a new epoch follows within this: detection takes under 5 s."""
END_S: Final = 5.0
POLL_S: Final = 0.2
ERROR_FILE: Final = "error.txt"
LOG_END: Final = 400
"""Characters of an attempt's log that are repeated when it left no reason."""
REFUSED: Final = 4
"""Exit code of an attempt that no repetition will mend."""


class _Lost(Exception):
    """The cloud went away under the attempt."""


def run(
    spec: JobSpec, cluster: H2OCluster, directory: Path, *, tell: Callable[[str], None] = lambda _: None
) -> TrainedModel:
    """Train; returns only a whole model. `directory` (made if absent) gets one directory per attempt.

    Raises TrainingRefused when the data or H2O itself refuse, TrainingInterrupted when the cloud was lost too often,
    ClusterUnavailable when it does not become whole.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lost: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        cloud = cluster.wait_whole(timeout_s=WHOLE_S)
        tell(f"{cloud.name}" + (f", attempt {attempt}" if lost else ""))
        place = directory / f"attempt-{attempt}"
        try:
            return _attempt(spec, cluster, cloud, place)
        except _Lost as error:
            lost.append(str(error))
            shutil.rmtree(place, ignore_errors=True)
            tell(f"{error}: it runs again from its snapshot")
    raise TrainingInterrupted(
        f"training was interrupted {ATTEMPTS} times ({'; '.join(lost)}): see why nodes die, memory first, "
        "then train again"
    )


def _attempt(spec: JobSpec, cluster: H2OCluster, cloud: Cloud, place: Path) -> TrainedModel:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "spec.json").write_text(spec.model_dump_json())
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [*("setpriv", "--pdeathsig", "TERM"), sys.executable, "-m", "services.h2o.job", str(place), cloud.url],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            while process.poll() is None:
                _same(cluster, cloud)
                time.sleep(POLL_S)
        finally:
            _end(process)
    if process.returncode == 0:
        return TrainedModel.read(place)
    said = _said(place)
    if process.returncode != REFUSED:
        end = time.monotonic() + NOTICE_S
        while time.monotonic() < end:
            _same(cluster, cloud)
            time.sleep(POLL_S)
    raise TrainingRefused(f"training on {cloud.name} failed: {said}")


def _same(cluster: H2OCluster, cloud: Cloud) -> None:
    try:
        now = cluster.generation()
    except EtcdUnavailable:
        return  # nobody can have given the cloud up meanwhile
    if now != cloud.generation:
        raise _Lost(f"{cloud.name} was given up")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)


def _said(place: Path) -> str:
    """Why the attempt failed, in one line."""
    for path, last in ((place / ERROR_FILE, None), (place / "log", LOG_END)):
        with contextlib.suppress(OSError):
            text = " ".join(path.read_text(errors="replace").split())
            if text:
                return text if last is None else text[-last:]
    return "it said nothing"


def main(arguments: list[str]) -> int:
    """One attempt: `python -m services.h2o.job DIRECTORY URL`."""
    from h2o.exceptions import H2OError as ClientError  # noqa: PLC0415 - importing h2o takes a second
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    place, url = Path(arguments[0]), arguments[1]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _train(SPEC.validate_json((place / "spec.json").read_bytes()), url, place)
    except (TrainingRefused, ValidationError, OSError) as error:
        (place / ERROR_FILE).write_text(str(error))
        return REFUSED
    except (ClientError, HTTPError) as error:
        (place / ERROR_FILE).write_text(f"H2O said: {error}")
        return 1
    return 0


def _train(spec: JobSpec, url: str, place: Path) -> None:
    from services.h2o.ensemble import combine  # noqa: PLC0415 - as above
    from services.h2o.train import train  # noqa: PLC0415

    match spec:
        case SplitSpec():
            train(
                spec.train_csv,
                spec.test_csv,
                url,
                place,
                seed=spec.seed,
                version=spec.version,
                cover_csv=spec.cover_csv,
            )
        case EnsembleSpec():
            combine(spec, url, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
