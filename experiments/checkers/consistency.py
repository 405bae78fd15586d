"""Whether a shard stayed one shard: no write is there twice, and no primary answered after its successor had."""

from __future__ import annotations

from typing import Final

import numpy as np

from experiments.checkers.durability import MIN_AROUND_FAULT
from experiments.checkers.fault import NS_PER_S, doubt_fault
from experiments.checkers.finding import EXHIBIT_ROWS, Exhibit, Finding, count, measured, unknown
from experiments.evidence import Evidence
from experiments.history import History
from experiments.record import RunRecord
from experiments.scenario import Promise
from loadtests.record import NO_TIMELINE, Durability, Kind

MERGED: Final = "a write is on the shard that owns its slot, once"


def duplicated_writes(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Rows of the final reads whose key another row has as well, on the same shard or on another one."""
    final = evidence.final
    if final is None:
        return unknown(promise, "there are no final reads")
    _, first, counts = np.unique(final.key, return_index=True, return_counts=True)
    extra, out_of = int((counts - 1).sum()), count(len(final.key), "row")
    if extra:
        keys = final.key[first[counts > 1]]
        at = np.isin(final.key, keys).nonzero()[0][:EXHIBIT_ROWS]
        rows = tuple((int(final.key[n]), int(final.shard[n]), int(final.value[n])) for n in at)
        exhibit = Exhibit("rows with a key that another row has", ("key", "shard", "value"), rows, extra + len(keys))
        shards = sorted({int(shard) for shard in final.shard[np.isin(final.key, keys)]})
        where = ", ".join(map(str, shards))
        reason = f"{count(extra, 'row')} too many of {count(len(keys), 'key')} on shard {where}; {MERGED}"
        return measured(promise, extra, n=len(final.key), out_of=out_of, reason=reason, evidence=(exhibit,))
    unread = [str(entry.shard) for entry in run.shards if entry.shard not in final.shards_read]
    if unread or not len(final.key):
        why = f"no final reads of shard {', '.join(unread)}" if unread else "the final reads found no row at all"
        return unknown(promise, why, value=0 if len(final.key) else None, n=len(final.key), out_of=out_of)
    each = ", ".join(f"{int((final.shard == entry.shard).sum()):,} on shard {entry.shard}" for entry in run.shards)
    return measured(promise, 0, n=len(final.key), out_of=out_of, reason=f"every key is there once ({each})")


def timelines_grow(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Acknowledgements of an older timeline, of writes sent after a newer timeline had acknowledged on that shard.

    Timelines are the versions of a shard's primary. One that wakes from a pause, or is cut off, and still answers has
    forked the shard: its rows are lost with the next rewind. Writes under way at the same time prove no order.
    """
    told = history.of(Kind.WRITE, Kind.WRITE_API) & (history.durability == int(Durability.OK))
    rows = history.where(told & (history.timeline != NO_TIMELINE))
    late = rows.where(_outdated(rows))
    out_of = count(len(rows), "acknowledged write")
    if len(late):
        zero = run.fault.t_ns if run.fault is not None else int(rows.start_ns[0])
        shown = tuple(
            (
                int(late.key[n]),
                int(late.shard[n]),
                int(late.timeline[n]),
                f"{(int(late.start_ns[n]) - zero) / NS_PER_S:+.3f} s",
            )
            for n in range(min(len(late), EXHIBIT_ROWS))
        )
        exhibit = Exhibit("acknowledged by an outdated primary", ("key", "shard", "timeline", "sent"), shown, len(late))
        reason = f"{count(len(late), 'write')} acknowledged on a timeline that had a successor already"
        return measured(promise, len(late), n=len(rows), out_of=out_of, reason=reason, evidence=(exhibit,))
    doubt = doubt_fault(evidence, run)
    after, shard = _fewest_after_fault(rows, run)
    if doubt is None and after < MIN_AROUND_FAULT:
        seen = count(after, "write")
        doubt = f"only {seen} acknowledged on shard {shard} after the fault; {MIN_AROUND_FAULT} are needed"
    if doubt:
        return unknown(promise, doubt, value=0 if len(rows) else None, n=len(rows), out_of=out_of)
    reason = f"none of {out_of} came from an outdated primary, {after:,} of them after the fault on shard {shard}"
    return measured(promise, 0, n=len(rows), out_of=out_of, reason=reason)


def _fewest_after_fault(rows: History, run: RunRecord) -> tuple[int, int | None]:
    """Rows sent after the fault on the struck shard of which there are fewest, and that shard; of all if none was."""
    if run.fault is None:
        return 0, None
    since = rows.start_ns >= run.fault.t_ns
    shards = run.struck_shards or {entry.shard for entry in run.shards}
    return min(((int((since & (rows.shard == shard)).sum()), shard) for shard in shards), default=(0, None))


def _outdated(rows: History) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows sent after a row of a newer timeline had ended on the same shard."""
    outdated = np.zeros(len(rows), dtype=np.bool_)
    for shard in np.unique(rows.shard):
        at = (rows.shard == shard).nonzero()[0]
        by_end = at[np.argsort(rows.end_ns[at], kind="stable")]
        newest = np.maximum.accumulate(rows.timeline[by_end])
        before = np.searchsorted(rows.end_ns[by_end], rows.start_ns[at], side="left") - 1
        outdated[at] = (before >= 0) & (rows.timeline[at] < newest[np.maximum(before, 0)])
    return outdated
