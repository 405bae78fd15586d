"""One step of the walk-forward run in the interpreter that has Breakwater: Mage's own environment has only Mage.

Nothing but small JSON passes through Mage; rows and models stay in files of the run's own directory.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

PASSED_ON = ("HOME", "LANG", "PATH", "ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY")
"""Nothing of Mage's own settings and secrets concerns the steps."""


def step(name: str, variables: dict[str, Any], **request: Any) -> Any:
    """What the step answers; raises with what it said when it failed. Doing a step again continues where it was."""
    order = {
        "run": variables["pipeline_run_id"],
        "ordered_at": variables["execution_date"].isoformat(),
        "seed": int(variables.get("seed", 1)),
        **request,
    }
    command = [
        os.environ["BREAKWATER_PYTHON"],
        "-P",
        "-m",
        "services.etl.run",
        os.environ["BREAKWATER_ETL_CONFIG"],
        name,
    ]
    done = subprocess.run(
        ["/usr/bin/setpriv", "--pdeathsig", "TERM", *command],
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name}: exit code {done.returncode}: {done.stdout.strip() or 'see the log of mage'}")
    return json.loads(done.stdout)
