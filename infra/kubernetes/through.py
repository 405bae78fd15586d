"""What members of the platform say to another pod of it: from outside they are without an address of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from infra.kubernetes import strike
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.plan import PYTHON
from infra.kubernetes.pod import Pod

ANSWER_S: Final = 10.0
"""Python has to start first, in a container that serves meanwhile."""
PROGRAM: Final = """
import http.client, json, sys, urllib.error, urllib.request
from concurrent.futures import ThreadPoolExecutor


def ask(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None


with ThreadPoolExecutor() as pool:
    print(json.dumps({"answers": list(pool.map(ask, sys.argv[1:]))}))
"""


def ask(cluster: Cluster, through: Pod, urls: Sequence[str]) -> list[tuple[int, str] | None]:
    """GET each, all at once, from within `through`, a member of a shard: HTTP's status and the text; None for silence.

    EnvironmentFault when nothing can be asked from there. Not within the members themselves: a right to run commands in
    a replica would be one to read its administrator's token.
    """
    command = [PYTHON, "-c", PROGRAM, *urls]
    with cluster.command(through.name, strike.standing(through), command) as asked:
        answers = asked.hear(timeout_s=ANSWER_S)["answers"]
    return [None if answer is None else (int(answer[0]), str(answer[1])) for answer in answers]


def url(address: str, port: int, path: str) -> str:
    """Of a pod's own address, which may be one of IPv6."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}{path}"
