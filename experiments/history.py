"""The history of a run: parts that clients wrote are merged into one file, and read back as numpy columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from experiments.errors import RunFileError
from loadtests.record import SCHEMA, Kind

HISTORY_FILE: Final = "history.arrow"
FINAL_FILE: Final = "final.arrow"
PARTS_DIR: Final = "parts"

_TORN: Final = b"torn"
_SHARDS: Final = b"shards"
_EOS: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""End mark of an Arrow IPC stream: continuation marker and a message of no length."""

FINAL_SCHEMA: Final = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("value", pa.uint64(), nullable=False),
        pa.field("shard", pa.uint8(), nullable=False),
    ]
)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TornPart:
    """A part whose writer did not close it: rows since its last flush are missing from the history."""

    name: str
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class Merged:
    """What went into history.arrow."""

    rows: int
    parts: int
    torn: tuple[TornPart, ...]


def merge(run_dir: Path) -> Merged:
    """Merge `parts/*.arrow` into `history.arrow`, sorted by scheduled time.

    A stream cut off by a kill gives its whole batches; the cut is kept in the file's metadata, so that a later
    judge knows of it too. RunFileError when a part is no stream of the history's schema at all.
    """
    merged, parts, torn = _parts(run_dir)
    _write(run_dir / HISTORY_FILE, merged)
    return Merged(merged.num_rows, parts, torn)


def _parts(run_dir: Path) -> tuple[pa.Table, int, tuple[TornPart, ...]]:
    """All parts' rows as one table that knows of the torn ones, the number of parts, and the torn ones."""
    tables: list[pa.Table] = []
    torn: list[TornPart] = []
    for path in sorted((run_dir / PARTS_DIR).glob("*.arrow")):
        table, cut = _read_part(path)
        tables.append(table)
        if cut is not None:
            torn.append(TornPart(path.name, table.num_rows, cut))
    merged = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    merged = merged.sort_by([("sched_ns", "ascending"), ("process", "ascending"), ("op_id", "ascending")])
    listed = json.dumps([{"name": part.name, "rows": part.rows, "reason": part.reason} for part in torn])
    return merged.replace_schema_metadata({_TORN: listed.encode()}), len(tables), tuple(torn)


def _read_part(path: Path) -> tuple[pa.Table, str | None]:
    """A part's rows, and why it is torn (None when it was closed properly)."""
    content = path.read_bytes()
    cut = None if content.endswith(_EOS) else "the stream has no end mark: its writer was killed"
    batches: list[pa.RecordBatch] = []
    try:
        with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
            if not reader.schema.equals(SCHEMA):
                raise RunFileError(f"{path} has another schema than the history: {reader.schema}")
            try:
                # The end mark is only known to be missing when reading stops without it.
                while True:
                    batches.append(reader.read_next_batch())
            except StopIteration:
                pass
            except (pa.ArrowInvalid, OSError) as error:
                cut = f"the stream breaks off in a batch: {error}"
    except pa.ArrowInvalid as error:
        cut = f"the stream breaks off before its schema: {error}"
    return pa.Table.from_batches(batches, schema=SCHEMA), cut


def _write(path: Path, table: pa.Table) -> None:
    fresh = path.with_suffix(".arrow.new")
    with pa.OSFile(str(fresh), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    fresh.replace(path)


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    """An Arrow IPC file of this schema; RunFileError when it is missing or something else."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
            table = reader.read_all()
    except FileNotFoundError as error:
        raise RunFileError(f"{name} is missing: the run did not get that far") from error
    except pa.ArrowInvalid as error:
        raise RunFileError(f"{name} is not a whole Arrow IPC file: {error}") from error
    if not table.schema.equals(schema):
        raise RunFileError(f"{name} has another schema than expected: {table.schema}")
    return table


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = _whole(table.column(name)).to_numpy(zero_copy_only=False)
    return values


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece; the usual one, which is in one already, is not copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


@dataclass(frozen=True, slots=True)
class Kinds:
    """The column of kinds: a byte for each operation. By position it is the kind's name, by mask or order a part."""

    codes: npt.NDArray[np.int8]
    names: tuple[str, ...]

    @classmethod
    def of_table(cls, table: pa.Table) -> Kinds:
        encoded = _whole(table.column("kind")).dictionary_encode()
        return cls(encoded.indices.to_numpy().astype(np.int8), tuple(encoded.dictionary.to_pylist()))

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        return (self.names[code] for code in self.codes.tolist())

    @overload
    def __getitem__(self, at: int | np.intp) -> str: ...

    @overload
    def __getitem__(self, at: Mask | npt.NDArray[np.intp] | slice) -> Kinds: ...

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, np.ndarray | slice):
            return Kinds(self.codes[at], self.names)
        return self.names[self.codes[at]]

    def among(self, kinds: Iterable[str]) -> Mask:
        """Whether each operation is of one of these kinds."""
        named = set(kinds)
        wanted = np.array([name in named for name in self.names], dtype=np.bool_)
        chosen: Mask = wanted[self.codes] if len(wanted) else np.zeros(len(self.codes), dtype=np.bool_)
        return chosen


@dataclass(frozen=True, slots=True)
class History:
    """One numpy array per column, all of one length, sorted by `sched_ns`. Times are nanoseconds of the run's clock."""

    op_id: npt.NDArray[np.uint64]
    process: npt.NDArray[np.uint16]
    kind: Kinds
    shard: npt.NDArray[np.uint8]
    key: npt.NDArray[np.uint64]
    value: npt.NDArray[np.uint64]
    sched_ns: npt.NDArray[np.int64]
    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    durability: npt.NDArray[np.uint8]
    available: npt.NDArray[np.bool_]
    error: npt.NDArray[np.uint16]
    server: npt.NDArray[np.uint16]
    timeline: npt.NDArray[np.uint32]
    torn: tuple[TornPart, ...] = ()

    @classmethod
    def load(cls, run_dir: Path) -> History:
        return cls.from_table(_read(run_dir / HISTORY_FILE, SCHEMA))

    @classmethod
    def so_far(cls, run_dir: Path) -> History:
        """What the clients of a run that still goes on have flushed."""
        return cls.from_table(_parts(run_dir)[0])

    @classmethod
    def from_table(cls, table: pa.Table) -> History:
        columns = {name: _column(table, name) for name in SCHEMA.names if name != "kind"}
        metadata = table.schema.metadata or {}
        torn = tuple(TornPart(**part) for part in json.loads(metadata.get(_TORN, b"[]")))
        return cls(**columns, kind=Kinds.of_table(table), torn=torn)

    @classmethod
    def empty(cls) -> History:
        return cls.from_table(SCHEMA.empty_table())

    def __len__(self) -> int:
        return len(self.op_id)

    def where(self, mask: Mask) -> History:
        """The rows that the mask selects, in the same order."""
        names = [field.name for field in fields(self) if field.name != "torn"]
        return History(**{name: getattr(self, name)[mask] for name in names}, torn=self.torn)

    def within(self, window: tuple[int, int]) -> History:
        """The rows that are scheduled in a window, not copied. Only for rows in the order of their schedule."""
        begin, end = np.searchsorted(self.sched_ns, window).tolist()
        names = [field.name for field in fields(self) if field.name != "torn"]
        return History(**{name: getattr(self, name)[begin:end] for name in names}, torn=self.torn)

    def by_start(self) -> History:
        """The same rows in the order in which they were sent."""
        order = np.argsort(self.start_ns, kind="stable")
        names = [field.name for field in fields(self) if field.name != "torn"]
        return History(**{name: getattr(self, name)[order] for name in names}, torn=self.torn)

    def of(self, *kinds: Kind) -> Mask:
        return self.kind.among(kind.value for kind in kinds)

    def scheduled_in(self, window: tuple[int, int]) -> Mask:
        mask: Mask = (self.sched_ns >= window[0]) & (self.sched_ns < window[1])
        return mask

    @property
    def latency_ns(self) -> npt.NDArray[np.int64]:
        """From the scheduled time, so that a client that waited its turn does not hide the wait."""
        latency: npt.NDArray[np.int64] = self.end_ns - self.sched_ns
        return latency


@dataclass(frozen=True, slots=True)
class FinalReads:
    """What the primaries held at the end, and which shards were read (a shard read empty is not a shard unread)."""

    key: npt.NDArray[np.uint64]
    value: npt.NDArray[np.uint64]
    shard: npt.NDArray[np.uint8]
    shards_read: frozenset[int]

    @classmethod
    def load(cls, run_dir: Path) -> FinalReads:
        table = _read(run_dir / FINAL_FILE, FINAL_SCHEMA)
        shard = _column(table, "shard")
        metadata = table.schema.metadata or {}
        read = json.loads(metadata[_SHARDS]) if _SHARDS in metadata else np.unique(shard).tolist()
        return cls(_column(table, "key"), _column(table, "value"), shard, frozenset(read))

    def sorted_of_shard(self, shard: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Keys of one shard in ascending order, each once, and the last value that was read of each."""
        mask = self.shard == shard
        key, value = self.key[mask][::-1], self.value[mask][::-1]
        keys, last = np.unique(key, return_index=True)
        return keys, value[last]

    def of_shard(self, shard: int) -> dict[int, int]:
        """Key to value on one shard."""
        keys, values = self.sorted_of_shard(shard)
        return dict(zip(keys.tolist(), values.tolist(), strict=True))


def write_final(run_dir: Path, rows: Mapping[int, Iterable[tuple[int, int]]]) -> None:
    """Store the final reads: for every shard that was read to its end, its (key, value) rows."""
    flat: Sequence[tuple[int, int, int]] = [(key, value, shard) for shard in rows for key, value in rows[shard]]
    arrays = [pa.array([row[at] for row in flat], type=field.type) for at, field in enumerate(FINAL_SCHEMA)]
    table = pa.Table.from_arrays(arrays, schema=FINAL_SCHEMA)
    _write(run_dir / FINAL_FILE, table.replace_schema_metadata({_SHARDS: json.dumps(sorted(rows)).encode()}))
