"""Whether reads are as old as they say at most: none may lack what was acknowledged before the age that it states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from experiments.checkers.durability import FOREVER
from experiments.checkers.fault import NS_PER_MS, NS_PER_S, doubt_fault
from experiments.checkers.finding import EXHIBIT_ROWS, Exhibit, Finding, count, measured, unknown
from experiments.evidence import Evidence
from experiments.history import History, Mask
from experiments.record import RunRecord
from experiments.scenario import Promise
from loadtests.record import NOT_STATED, Durability, Error, Kind

NS_PER_US: Final = 1000
MIN_TELLING: Final = 50
"""If one read in twenty were stale, so many would all be fresh in 8 of 100 runs only; fewer prove nothing."""

NEVER: Final = -1
"""End of what nobody wrote, or of nothing at all: older than every write."""

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Freshness:
    """One entry for each read. `required`: start of the newest write that it must know of, NEVER without one.

    `shown`: end of the write that it shows, FOREVER where nobody knows that.
    """

    reads: History
    required: Times
    shown: Times

    @property
    def telling(self) -> Mask:
        """Reads of keys of which something had been acknowledged longer before than the read's own stated age."""
        mask: Mask = self.required != NEVER
        return mask

    @property
    def stale(self) -> Mask:
        """What they show had ended before the write that they must know of was begun."""
        mask: Mask = self.telling & (self.shown < self.required)
        return mask


def stale_reads(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Reads through the API that show an older version than one acknowledged before the age that they state.

    A read without a stated age, and one of a key of which nothing was acknowledged by then, proves nothing.
    """
    found = freshness(history)
    telling, stale = int(found.telling.sum()), found.reads.where(found.stale)
    out_of = count(telling, "telling read")
    if len(stale):
        shards = ", ".join(map(str, np.unique(stale.shard).tolist()))
        reason = f"{count(len(stale), 'read')} of {telling:,} older than stated, on shard {shards}"
        shown = (_exhibit(stale, found.required[found.stale], run),)
        return measured(promise, len(stale), n=telling, out_of=out_of, reason=reason, evidence=shown)
    doubt = doubt_fault(evidence, run) or _too_few(found, run)
    silent = int((history.of(Kind.READ_API) & (history.error == int(Error.NONE))).sum()) - len(found.reads)
    unsaid = f"; {count(silent, 'read')} more stated no age" if silent else ""
    if doubt:
        return unknown(promise, doubt + unsaid, value=0 if telling else None, n=telling, out_of=out_of)
    ages = found.reads.timeline[found.telling] * (NS_PER_US / NS_PER_MS)
    middle, oldest = np.percentile(ages, (50, 100))
    reason = (
        f"each of {out_of} shows what was acknowledged before its stated age "
        f"(median {middle:,.0f} ms, longest {oldest:,.0f} ms){unsaid}"
    )
    return measured(promise, 0, n=telling, out_of=out_of, reason=reason)


def _too_few(found: Freshness, run: RunRecord) -> str | None:
    """Standbys are late when their primary changes: each struck shard needs reads that tell from then on."""
    if run.fault is None:
        return "no fault was recorded"
    since = found.telling & (found.reads.start_ns >= run.fault.t_ns)
    shards = run.struck_shards or {entry.shard for entry in run.shards}
    fewest = min((int((since & (found.reads.shard == shard)).sum()) for shard in shards), default=0)
    if fewest >= MIN_TELLING:
        return None
    return (
        f"only {count(fewest, 'read')} after the fault of what had been acknowledged longer ago than the age that they "
        f"stated; {MIN_TELLING} are needed"
    )


def freshness(history: History) -> Freshness:
    """What each read that states an age must know of, and what it shows.

    A version may be current unless a write that was acknowledged in time was begun after the version's own had ended;
    versions that only failed or unknown writes explain may be current at any time. Sorting is the longest step.
    """
    reads = history.where(
        history.of(Kind.READ_API) & (history.error == int(Error.NONE)) & (history.timeline != NOT_STATED)
    )
    asked, group = np.unique(reads.key, return_inverse=True)
    of_asked = history.of(Kind.WRITE, Kind.WRITE_API) & np.isin(history.key, asked)
    writes = history.where(of_asked)
    of_write = np.searchsorted(asked, writes.key)
    told_by = reads.start_ns - reads.timeline.astype(np.int64) * NS_PER_US
    required = _newest_before(of_write, writes, group, told_by)
    shown = _end_of_version(of_write, writes, group, reads.value)
    if history.torn:
        # the write that explains an unexplained version may be among those that are missing
        shown[(shown == NEVER) & (reads.value != 0)] = FOREVER
    return Freshness(reads, required, shown)


def _newest_before(of_write: Times, writes: History, of_read: Times, told_by: Times) -> Times:
    """For each read the latest start among its key's writes that were acknowledged before `told_by`."""
    kept = writes.durability == int(Durability.OK)
    starts = writes.start_ns[kept]
    order = np.argsort(starts, kind="stable")
    rank = np.empty(len(starts), dtype=np.int64)
    rank[order] = np.arange(1, len(starts) + 1)
    group = np.concatenate([of_write[kept], of_read])
    # within a key by time; at the same time reads first, for an acknowledgement must come before
    when = np.concatenate([writes.end_ns[kept], told_by])
    is_write = np.concatenate([np.ones(len(starts), dtype=np.int64), np.zeros(len(of_read), dtype=np.int64)])
    along = np.lexsort((is_write, when, group))
    # ranks instead of times, so that a key's ranks can be lifted above those of the keys before it
    base = group * (len(starts) + 1)
    highest = np.empty(len(group), dtype=np.int64)
    highest[along] = np.maximum.accumulate(
        (base + np.concatenate([rank, np.zeros(len(of_read), dtype=np.int64)]))[along]
    )
    found = (highest - base)[len(starts) :]
    in_order = np.concatenate([[NEVER], starts[order]]).astype(np.int64)
    newest: Times = in_order[found]
    return newest


def _end_of_version(of_write: Times, writes: History, of_read: Times, value: npt.NDArray[np.uint64]) -> Times:
    """For each read the latest end of its key's writes of the value that it shows; NEVER without one."""
    ends = np.where(writes.durability == int(Durability.OK), writes.end_ns, FOREVER)
    values, which = np.unique(np.concatenate([writes.value, value]), return_inverse=True)
    group = np.concatenate([of_write, of_read])
    version, index = np.unique(group * len(values) + which, return_inverse=True)
    latest = np.full(len(version), NEVER, dtype=np.int64)
    np.maximum.at(latest, index[: len(ends)], ends)
    of_shown: Times = latest[index[len(ends) :]]
    return of_shown


def _exhibit(stale: History, required: Times, run: RunRecord) -> Exhibit:
    zero = run.fault.t_ns if run.fault is not None else int(stale.start_ns[0])
    rows = tuple(
        (
            int(stale.key[at]),
            int(stale.shard[at]),
            f"{(int(stale.start_ns[at]) - zero) / NS_PER_S:+.3f} s",
            f"{int(stale.timeline[at]) / 1000:.1f} ms",
            f"{(int(stale.start_ns[at]) - int(required[at])) / NS_PER_MS:.1f} ms",
            int(stale.value[at]) or "nothing",
            run.members[server] if (server := int(stale.server[at])) < len(run.members) else None,
        )
        for at in range(min(len(stale), EXHIBIT_ROWS))
    )
    columns = ("key", "shard", "sent", "age stated", "newer write begun before", "found", "by")
    return Exhibit("reads that were older than they said", columns, rows, len(stale))
