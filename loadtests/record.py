"""The history's record: one row per operation, as its client saw it, written so that a killed client loses no batch.

For a prediction `key` is the flight's number among the run's samples, `value` the probability's 64 bits, `timeline` the
generation of the model that the answer named, and `server` the replica that gave it. For a READ_API `value` is what was
found under the key (0: nothing), and `timeline` the age in microseconds that the answer stated for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Final

import pyarrow as pa

NO_SHARD: Final = 255
"""Shard column of an operation that belongs to no shard (a prediction by vector)."""
NO_SERVER: Final = 65535
NO_TIMELINE: Final = 0
NOT_STATED: Final = 2**32 - 1
"""Age of an answer that stated none."""
OLDEST_US: Final = NOT_STATED - 1
"""Age of an answer that may be older than 71 minutes, which is not told apart."""


class Kind(StrEnum):
    """What the client did. WRITE and READ go straight to the shard, WRITE_API and READ_API through edge and API.

    A READ asks for what was loaded long ago, a READ_API for what its own process has had acknowledged lately.
    """

    PREDICT = "predict"
    WRITE = "write"
    WRITE_API = "write_api"
    READ = "read"
    READ_API = "read_api"


class Durability(IntEnum):
    """Judged for writes only: what the client may claim about the row."""

    NONE = 0
    OK = 1
    FAIL = 2
    UNKNOWN = 3


class Error(IntEnum):
    """Why an operation was not good, as its client saw it."""

    NONE = 0
    REFUSED = 1
    TIMEOUT = 2
    DISCONNECTED = 3
    HTTP_4XX = 4
    HTTP_5XX = 5
    COMMIT_UNKNOWN = 6
    NOT_OWNER = 7
    READ_ONLY = 8
    SERVER_ERROR = 9
    WRONG_ANSWER = 10
    LATE = 11
    NOT_SENT = 12


SCHEMA: Final = pa.schema(
    [
        pa.field("op_id", pa.uint64(), nullable=False),
        pa.field("process", pa.uint16(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("shard", pa.uint8(), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("value", pa.uint64(), nullable=False),
        pa.field("sched_ns", pa.int64(), nullable=False),
        pa.field("start_ns", pa.int64(), nullable=False),
        pa.field("end_ns", pa.int64(), nullable=False),
        pa.field("durability", pa.uint8(), nullable=False),
        pa.field("available", pa.bool_(), nullable=False),
        pa.field("error", pa.uint16(), nullable=False),
        pa.field("server", pa.uint16(), nullable=False),
        pa.field("timeline", pa.uint32(), nullable=False),
    ]
)


class Recorder:
    """Collects rows in memory and appends them to an Arrow IPC stream as batches; call `flush` about once a second.

    A killed process loses at most the rows since its last flush; the reader accepts a stream without its end mark.
    Not for several threads at once: one recorder per process (greenlets and asyncio tasks are fine).
    """

    def __init__(self, path: Path, process: int) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, SCHEMA)
        self._process = process
        self._columns: list[list[int | str | bool]] = [[] for _ in SCHEMA]
        # The first conversion makes pyarrow import pandas, most of a second: now, not at the first flush under load.
        pa.array([0])

    def add(
        self,
        *,
        op_id: int,
        kind: Kind,
        shard: int,
        key: int,
        value: int,
        sched_ns: int,
        start_ns: int,
        end_ns: int,
        durability: Durability,
        available: bool,
        error: Error,
        server: int = NO_SERVER,
        timeline: int = NO_TIMELINE,
    ) -> None:
        row: tuple[int | str | bool, ...] = (
            op_id, self._process, kind.value, shard, key, value, sched_ns, start_ns, end_ns,
            int(durability), available, int(error), server, timeline,
        )  # fmt: skip
        for column, cell in zip(self._columns, row, strict=True):
            column.append(cell)

    def flush(self) -> None:
        if self._columns[0]:
            arrays = [pa.array(column, type=field.type) for column, field in zip(self._columns, SCHEMA, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
            self._sink.flush()
            for column in self._columns:
                column.clear()

    def close(self) -> None:
        self.flush()
        self._writer.close()
        self._sink.close()


@contextmanager
def recording(path: Path, process: int) -> Iterator[Recorder]:
    recorder = Recorder(path, process)
    try:
        yield recorder
    finally:
        recorder.close()
