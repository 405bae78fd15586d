"""Our worker beside its peers: every server up, the load going round from one to the next, ratios round by round."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import urllib3

from benchmarks import load, vectors
from benchmarks.measured import BenchmarkError, Measured, Ratio, median, ratio
from benchmarks.platform import Platform
from benchmarks.processes import LOOPBACK, POLL_S, READY_S, server
from benchmarks.rivals import Rival, rivals, servers

CONNECTIONS: Final = 32
REPEATED: Final = 1_000
"""Different bodies for those who keep nothing from one request to the next, and for hits of the cache."""
FRESH_A_SECOND: Final = 20_000
"""More than a worker answers: no body comes twice."""
WARM_S: Final = 2.0
SAME: Final = 1e-9
"""How far answers may differ: one runtime, one artifact, and JSON that writes doubles in full."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    rival: Rival
    rounds: tuple[Measured, ...]

    @property
    def total(self) -> Measured:
        return median(self.rounds)


def run(platform: Platform, environments: Path, *, rounds: int, seconds: float, tell: Tell) -> tuple[Result, ...]:
    """So many rounds over all rivals, after one to warm up. BenchmarkError when one answers with errors."""
    card = platform.model().card
    field = rivals(platform)
    bodies = {
        form: vectors.write(platform.scratch / f"{form}.jsonl", card, body, count=REPEATED, seed=0)
        for form, body in vectors.FORMS.items()
    }
    measured: dict[str, list[Measured]] = {rival.name: [] for rival in field}
    with contextlib.ExitStack() as stack:
        for name, served in servers(platform, environments).items():
            tell(f"starting {name}")
            label = name.replace(" ", "-")
            stack.enter_context(server(label, served.command, served.port, platform.scratch, served.environment))
        agree(platform, field, bodies)
        for number in range(rounds + 1):
            for rival in field:
                path = bodies[rival.form]
                if rival.fresh:
                    path = platform.scratch / f"fresh-{rival.form}.jsonl"
                    count = int(FRESH_A_SECOND * seconds) if number else REPEATED
                    vectors.write(path, card, vectors.FORMS[rival.form], count=count, seed=number + 1)
                target = load.Target(
                    f"http://{LOOPBACK}:{rival.port}",
                    rival.path,
                    path,
                    platform.plan.token_file if rival.token else None,
                )
                found = load.wrk(target, seconds=seconds if number else WARM_S, connections=CONNECTIONS)
                if number and found.errors:
                    raise BenchmarkError(f"{rival.name} answered {found.errors} of {found.requests} with an error")
                if number:
                    measured[rival.name].append(found)
                    tell(f"round {number}  {rival.name}: {found.rate:,.0f}/s, p99 {found.p99_ms:.1f} ms")
    return tuple(Result(rival, tuple(measured[rival.name])) for rival in field)


def agree(platform: Platform, field: Sequence[Rival], bodies: Mapping[str, Path]) -> None:
    """Wait until each answers; BenchmarkError unless all say the same of the same flight."""
    token = platform.plan.token_file.read_text().strip()
    said: dict[str, float] = {}
    for rival in field:
        with bodies[rival.form].open("rb") as lines:
            said[rival.name] = _ask(rival, lines.readline(), token)
    if max(said.values()) - min(said.values()) > SAME:
        raise BenchmarkError(f"they do not serve the same model: {said}")


def _ask(rival: Rival, body: bytes, token: str) -> float:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if rival.token else {})
    url = f"http://{LOOPBACK}:{rival.port}{rival.path}"
    end = time.monotonic() + READY_S
    while True:
        last: object
        try:
            answer = urllib3.request("POST", url, body=body, headers=headers, timeout=10, retries=False)
        except urllib3.exceptions.HTTPError as error:
            last = error
        else:
            if answer.status == HTTPStatus.OK:
                return probability(rival.form, answer.json())
            last = answer.data[:500]
        if time.monotonic() > end:
            raise BenchmarkError(f"{rival.name} does not predict after {READY_S:.0f} s: {last!r}")
        time.sleep(POLL_S)


def probability(form: str, answer: Any) -> float:
    """What an answer says, in the form that belongs to the request's form."""
    found = {
        "named": lambda: answer["probability"],
        "bare": lambda: answer["probability"],
        "v2": lambda: answer["outputs"][0]["data"][0],
        "inputs": lambda: answer["predictions"][0],
        "rows": lambda: answer[0],
    }[form]()
    return float(found)


def best_peer(results: tuple[Result, ...]) -> Result:
    return max((each for each in results if each.rival.kind == "peer"), key=lambda each: each.total.rate)


def ratios(results: tuple[Result, ...]) -> Mapping[str, Ratio]:
    """Of each rival's rate to the best peer's, by name."""
    best = best_peer(results)
    return {each.rival.name: ratio(each.rounds, best.rounds) for each in results}
