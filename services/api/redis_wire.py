"""One connection to Redis for commands that go together: a fifth of what redis-py's pipeline costs for a round trip."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self, cast

import hiredis

Command = tuple[bytes | str | int, ...]
Done = Callable[[list[Any]], None]

CLOSED: Final = "Redis closed the connection"


class RedisRefused(Exception):
    """Redis answered a command with an error."""


class RedisWire(asyncio.Protocol):
    """One round trip at a time: the caller sees to that. Whatever goes wrong ends it and is the exception of `lost`."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = hiredis.Reader(protocolError=RedisRefused, replyError=RedisRefused)
        self._transport: asyncio.Transport  # from its connection_made on
        self._answers: list[Any] = []
        self._expected = 0
        self._done: Done | None = None
        self._overdue: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(
        cls, host: str, port: int, password: str, *, root_certificate: Path | None, timeout_s: float
    ) -> Self:
        """Connected and let in, with a root certificate by TLS. Raises OSError, or RedisRefused (a wrong password)."""
        context = None if root_certificate is None else ssl.create_default_context(cafile=root_certificate)
        async with asyncio.timeout(timeout_s):
            _, wire = await asyncio.get_running_loop().create_connection(cls, host, port, ssl=context)
        try:
            await wire.ask(("AUTH", password), timeout_s)
        except BaseException:
            wire.close()
            raise
        return wire

    def send(self, commands: Sequence[Command], done: Done, timeout_s: float) -> None:
        """Call `done` with the commands' answers, unless one of them is an error or they do not come in time."""
        self._expected, self._done = len(commands), done
        self._overdue = asyncio.get_running_loop().call_later(timeout_s, self.fail, TimeoutError("no answer in time"))
        self._transport.write(b"".join(map(_packed, commands)))

    async def ask(self, command: Command, timeout_s: float) -> Any:
        """The answer to one command; raises what ended the connection instead."""
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.send([command], lambda answers: None if answer.done() else answer.set_result(answers), timeout_s)
        await asyncio.wait((answer, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            self.lost.result()
        return answer.result()[0]

    def fail(self, error: BaseException) -> None:
        """End the connection because of this; nothing is answered any more."""
        self._done = None
        if self._overdue is not None:
            self._overdue.cancel()
        self._transport.abort()
        if not self.lost.done():
            self.lost.set_exception(error)
            self.lost.exception()  # seen, should nobody wait

    def close(self) -> None:
        self.fail(ConnectionAbortedError("closed here"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(error or ConnectionResetError(CLOSED))

    def data_received(self, data: bytes) -> None:
        if self._done is None:
            return  # it has failed
        try:
            self._reader.feed(data)
            while len(self._answers) < self._expected:
                answer = self._reader.gets()
                if answer is False:  # not there whole yet
                    return
                if isinstance(answer, RedisRefused):
                    raise answer
                self._answers.append(answer)
        except RedisRefused as error:
            self.fail(error)
            return
        if self._overdue is not None:
            self._overdue.cancel()
        answers, self._answers = self._answers, []
        done, self._done = self._done, None
        done(answers)


def _packed(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its annotation knows commands of one word
    return packed
