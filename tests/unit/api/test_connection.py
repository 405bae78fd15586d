"""Answers leave in one write, whatever their shape, and nothing that a client waits for is held back."""

from __future__ import annotations

import asyncio
from typing import Any

from services.api.connection import OneWrite

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Recorder(asyncio.Transport):
    """What reached the socket, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True


def test_head_and_body_are_one_write() -> None:
    socket = Recorder()
    transport = OneWrite(socket)
    for _ in range(2):
        transport.write(HEAD)
        transport.write(b"{}")
    assert socket.writes == [HEAD + b"{}"] * 2


def test_a_body_in_parts_is_held_back_no_longer_than_its_first() -> None:
    socket = Recorder()
    transport = OneWrite(socket)
    for part in (HEAD, b"a", b"b"):
        transport.write(part)
    assert socket.writes == [HEAD + b"a", b"b"]


def test_what_the_client_waits_for_goes_at_once() -> None:
    socket = Recorder()
    OneWrite(socket).write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert socket.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_a_head_without_a_body_goes_with_the_end_of_the_answer_or_of_the_connection() -> None:
    socket = Recorder()
    transport = OneWrite(socket)
    transport.write(HEAD)
    transport.flush()
    transport.flush()
    transport.write(HEAD)
    transport.close()
    assert socket.writes == [HEAD, HEAD]
    assert socket.closed
