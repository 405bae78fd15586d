"""What an API replica says when asked inside its pod: it is one of many behind a service, with no port outside."""

from __future__ import annotations

from typing import Final

from infra.kubernetes.cluster import Cluster
from infra.kubernetes.plan import API, PYTHON
from infra.kubernetes.pod import Pod

CONTAINER: Final = "api"
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


def metrics(cluster: Cluster, pod: Pod) -> str | None:
    """Its /metrics; None when it does not answer. EnvironmentFault when it cannot be asked."""
    with cluster.command(pod.name, CONTAINER, [PYTHON, "-c", PROGRAM, f"http://127.0.0.1:{API}/metrics"]) as command:
        text: str | None = command.hear(timeout_s=ANSWER_S)["text"]
    return text
