"""A shard's configuration in etcd, which its members share, and who leads them: changed through Patroni's REST."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import urllib3
import yaml

from infra.environment import EnvironmentFault
from infra.local.plan import LOOPBACK, LocalPlan, MemberPlan
from services.postgres.patroni import REST_USER

REST_TIMEOUT_S: Final = 6.0
"""Patroni asks etcd before it answers, and gives up on etcd after retry_timeout (5 s)."""
WAKE_TIMEOUT_S: Final = 1.0
"""A Patroni that is busy for longer looks by itself soon."""
SWITCHOVER_S: Final = 30.0
"""Patroni answers once another member leads: a clean stop of Postgres, and a loop or two (5 s)."""
UNKNOWN_SETTING: Final = "breakwater_wake"
"""In no configuration: removing it changes nothing."""


def configure(plan: LocalPlan, shard: int) -> bool:
    """Make the shard's configuration what the topology says; True when it was something else.

    Patroni reads its file's part for it only when a shard is first initialised. Later a changed topology, or an
    experiment that was killed before it could put things back, would go unnoticed.
    """
    rendered = yaml.safe_load((plan.of_shard(shard)[0].directory / "patroni.yaml").read_text())
    wanted = rendered["bootstrap"]["dcs"]
    if says(_ask(plan, shard, "GET"), wanted):
        return False
    change(plan, shard, wanted)
    return True


def change(plan: LocalPlan, shard: int, settings: Mapping[str, Any]) -> None:
    """Change the shard's configuration; its members take it in their next loop. EnvironmentFault when refused."""
    _ask(plan, shard, "PATCH", json.dumps(settings).encode())


def wake(plan: LocalPlan, shard: int) -> None:
    """Have every Patroni of the shard look now, not at its next loop; those that do not answer look by themselves."""
    for member in plan.of_shard(shard):
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            _request(plan, member, "PATCH", json.dumps({UNKNOWN_SETTING: None}).encode(), WAKE_TIMEOUT_S)


def switchover(plan: LocalPlan, member: MemberPlan) -> str:
    """Ask the primary's Patroni to hand over to whom it thinks best; its answer. EnvironmentFault when refused."""
    body = json.dumps({"leader": member.name}).encode()
    try:
        answer = _request(plan, member, "POST", body, SWITCHOVER_S, path="switchover")
    except urllib3.exceptions.HTTPError as error:
        raise EnvironmentFault(f"{member.name} did not answer to a switchover: {error}") from error
    said = answer.data.decode(errors="replace").strip()
    if answer.status != HTTPStatus.OK:
        raise EnvironmentFault(
            f"{member.name} refused to hand over ({answer.status}: {said}); see `breakwater status {plan.environment}`"
        )
    return said


def says(present: object, wanted: object) -> bool:
    """Whether everything wanted is there, with that value; what else is there is Patroni's own affair."""
    if isinstance(wanted, Mapping):
        return isinstance(present, Mapping) and all(says(present.get(key), value) for key, value in wanted.items())
    return present == wanted


def _ask(plan: LocalPlan, shard: int, method: str, body: bytes | None = None) -> object:
    """Ask the shard's members in turn: any that lives can answer for all."""
    trouble = "it has no members"
    for member in plan.of_shard(shard):
        try:
            answer = _request(plan, member, method, body, REST_TIMEOUT_S)
            if answer.status == HTTPStatus.OK:
                return answer.json()
            trouble = f"{member.name} said {answer.status} {answer.data[:200]!r}"
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            trouble = f"{member.name}: {error}"
    raise EnvironmentFault(
        f"Patroni of shard {shard} did not carry out {method} /config: {trouble}; see "
        f"`breakwater status {plan.environment}`"
    )


def _request(
    plan: LocalPlan, member: MemberPlan, method: str, body: bytes | None, timeout_s: float, *, path: str = "config"
) -> urllib3.BaseHTTPResponse:
    password = (plan.secrets_dir / "patroni_rest").read_text()
    return urllib3.request(
        method,
        f"http://{LOOPBACK}:{member.aux_port}/{path}",
        body=body,
        headers=urllib3.make_headers(basic_auth=f"{REST_USER}:{password}"),
        timeout=timeout_s,
        retries=False,
    )
