"""Our worker without what the peers do not do: no token, no cache. Everything else as `python -m services.api` runs it.

`python -m benchmarks.plain`, configured as a replica is (BREAKWATER_API_CONFIG).
"""

from __future__ import annotations

from starlette.requests import Request

from services.api import logs
from services.api.app import Replica
from services.api.auth import BearerAuth
from services.api.cache import Answer, ScoreCache, Turn
from services.api.metrics import Metrics
from services.api.server import serve
from services.api.settings import load_settings


class Anybody(BearerAuth):
    """Lets every request in."""

    async def __call__(self, request: Request) -> None:
        return


class NoCache(ScoreCache):
    """Never has anything, and never asks Redis."""

    def start(self) -> None:
        return

    def look_up(self, key: bytes, answer: Answer) -> None:
        answer(None, Turn.UNKNOWN)

    def store(self, key: bytes, value: bytes) -> None:
        return


def main() -> None:
    settings = load_settings()
    logs.configure(settings.replica)
    replica = Replica(settings)
    replica.auth = Anybody("")
    replica.cache = NoCache(settings.redis.host, settings.redis.port, "", Metrics())
    serve(replica)


if __name__ == "__main__":
    main()
