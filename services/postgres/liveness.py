"""Asks a Patroni again and again whether it lives, in a thread, and remembers when it last answered."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

# Pause between two questions, seconds: the last answer is then at most about that much older than the freeze that
# ended the answers.
ASK_EVERY_S = 1.0
# How long one question waits, seconds: a Patroni on a starved machine still answers in it.
ANSWER_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Answers:
    """When Patroni last answered (monotonic seconds; 0 for never), and how many questions went unanswered since."""

    last_s: float
    unanswered: int


class LivenessProbe:
    """Any answer counts, also 503: a Patroni whose loop hangs but which answers still keeps replicas from promotion."""

    def __init__(self, rest_url: str, authority: Path | None = None) -> None:
        self._url = f"{rest_url.rstrip('/')}/liveness"
        self._pool = urllib3.PoolManager(
            num_pools=1, maxsize=1, retries=False, timeout=ANSWER_WITHIN_S, **_verified(authority)
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)
        self.answers = Answers(0.0, 0)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._pool.request("GET", self._url, headers={"Connection": "close"})
                self.answers = Answers(time.monotonic(), 0)
            except urllib3.exceptions.HTTPError:
                self.answers = Answers(self.answers.last_s, self.answers.unanswered + 1)
            self._stop.wait(ASK_EVERY_S)


def _verified(authority: Path | None) -> dict[str, Any]:
    return {} if authority is None else {"ca_certs": str(authority)}
