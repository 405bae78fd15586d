"""POST /chaos/block-loop: the one way to damage a replica from outside that no signal offers. Off unless configured."""

from __future__ import annotations

import time
from typing import Annotated, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.api.auth import BearerAuth
from services.api.bodies import validated, whole_body

MAX_BLOCK_S: Final = 30.0


class BlockLoop(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: Annotated[float, Field(gt=0, le=MAX_BLOCK_S, allow_inf_nan=False)]


def chaos_route(admin: BearerAuth) -> Route:
    """Blocks the event loop of this replica; answers when that is over, with its beginning and end (monotonic, ns)."""

    async def block_loop(request: Request) -> Response:
        await admin(request)
        wanted = validated(BlockLoop, await whole_body(request))
        began = time.monotonic_ns()
        time.sleep(wanted.seconds)  # noqa: ASYNC251 - exactly what is asked for
        return Response(
            orjson.dumps({"began_ns": began, "ended_ns": time.monotonic_ns()}), media_type="application/json"
        )

    return Route("/chaos/block-loop", block_loop, methods=["POST"])
