"""What an API replica says to another pod of the platform: from outside each is one of many, without an address."""

from __future__ import annotations

from typing import Final

from infra.kubernetes import strike
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.plan import API, PYTHON
from infra.kubernetes.pod import Pod

ANSWER_S: Final = 10.0
"""Python has to start first, in a container that serves meanwhile."""
PROGRAM: Final = """
import json, sys, urllib.request

try:
    with urllib.request.urlopen(sys.argv[1], timeout=2) as answer:
        text = answer.read().decode(errors="replace")
except OSError:
    text = None
print(json.dumps({"text": text}))
"""


def metrics(cluster: Cluster, replica: Pod, through: Pod) -> str | None:
    """Its /metrics, asked from within `through`, a member of a shard; None when it does not answer.

    EnvironmentFault when nothing can be asked from there. Not within the replica itself: a right to run commands there
    would be one to read its administrator's token.
    """
    if replica.address is None:
        return None
    host = f"[{replica.address}]" if ":" in replica.address else replica.address
    command = [PYTHON, "-c", PROGRAM, f"http://{host}:{API}/metrics"]
    with cluster.command(through.name, strike.standing(through), command) as asked:
        text: str | None = asked.hear(timeout_s=ANSWER_S)["text"]
    return text
