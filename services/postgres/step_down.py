"""Hands leadership over before a pod stops: `python -m services.postgres.step_down MEMBER_DIRECTORY`, its preStop hook.

A StatefulSet replaces its pods from the highest number to the lowest. So a primary steps down for the lowest number,
which is replaced last, and the lowest for the highest, which is new already: at most two switchovers in an update.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml

from services.postgres.directory import MemberDirectory

HAND_OVER_S: Final = 30.0
"""Then the pod stops all the same: Patroni's own shutdown gives the key back, or the warden does."""
ASK_TIMEOUT_S: Final = 6.0
POLL_S: Final = 0.5

Ask = Callable[[str, str, Mapping[str, Any] | None], tuple[int, Any]]
"""(method, path, body) -> (status, decoded answer); OSError or urllib3's HTTPError when there is none."""


def candidates(cluster: Mapping[str, Any], own: str) -> list[str]:
    """Whom to hand over to, best first: members that hold every acknowledged write, by the order of replacement."""
    standbys = [
        str(member["name"])
        for member in cluster.get("members", [])
        if member.get("role") in {"sync_standby", "quorum_standby"} and member.get("state") == "streaming"
    ]
    lowest_first = sorted(standbys, key=_number)
    return lowest_first[::-1] if all(_number(own) < _number(name) for name in standbys) else lowest_first


def step_down(own: str, ask: Ask, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> str:
    """Until somebody else leads or time is up; says what became of it."""
    end = clock() + HAND_OVER_S
    asked = None
    while True:
        with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
            status, cluster = ask("GET", "/cluster", None)
            leader = _leader(cluster) if status == HTTPStatus.OK else own
            if leader is not None and leader != own:
                return f"{leader} leads" if asked else f"nothing to hand over, {leader} leads"
            if leader == own and status == HTTPStatus.OK:
                for name in candidates(cluster, own):
                    asked = name
                    done, _ = ask("POST", "/switchover", {"leader": own, "candidate": name})
                    if done == HTTPStatus.OK:
                        break
        if clock() > end:
            return f"still leading after {HAND_OVER_S:.0f} s, last asked {asked or 'nobody: no standby may lead'}"
        sleep(POLL_S)


def _leader(cluster: Mapping[str, Any]) -> str | None:
    return next((str(m["name"]) for m in cluster.get("members", []) if m.get("role") == "leader"), None)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def _rest(config: Mapping[str, Any]) -> Ask:
    rest = config["restapi"]
    headers = urllib3.make_headers(basic_auth=":".join(rest["authentication"][k] for k in ("username", "password")))
    pool = urllib3.PoolManager(ca_certs=rest.get("cafile"), retries=False, timeout=ASK_TIMEOUT_S)
    base = f"{'https' if 'certfile' in rest else 'http'}://{rest['connect_address']}"

    def ask(method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        answer = pool.request(method, base + path, body=json.dumps(body) if body else None, headers=headers)
        try:
            return answer.status, answer.json()
        except ValueError:
            return answer.status, {}

    return ask


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            config = yaml.safe_load(MemberDirectory(Path(path)).patroni_config.read_text())
            outcome = step_down(config["name"], _rest(config), clock=time.monotonic, sleep=time.sleep)
            sys.stderr.write(f"step down: {outcome}\n")
            return 0
        case _:
            sys.stderr.write("usage: python -m services.postgres.step_down MEMBER_DIRECTORY\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
