"""Whether the primaries hold in the end what clients were told: nothing lost, nothing added, nothing failed yet there.

Jepsen's accounting: only an acknowledged write can be lost, only a write that certainly failed must be absent, and a
write of unknown outcome may be there or not.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from experiments.checkers.fault import NS_PER_S, after_fault, doubt_fault
from experiments.checkers.finding import EXHIBIT_ROWS, Exhibit, Finding, count, measured, unknown
from experiments.evidence import Evidence
from experiments.history import FinalReads, History, Mask
from experiments.record import RunRecord
from experiments.scenario import Promise
from loadtests.record import Durability, Kind

Column = npt.NDArray[np.uint64]

MIN_AROUND_FAULT: Final = 100
"""Fewer acknowledged writes than this within AROUND_NS of the fault prove nothing about losing them."""

AROUND_NS: Final = 5 * NS_PER_S
"""Writes acknowledged this long before the fault can still be on their way to the replicas; afterwards, on their way
out by a rewind. Far longer than any lag that a running replica shows."""

FOREVER: Final = 2**63 - 1
"""End of a write whose outcome nobody knows: it may be applied at any later time."""


@dataclass(frozen=True, slots=True)
class Write:
    value: int
    start_ns: int
    end_ns: int
    durability: Durability
    row: int


@dataclass(slots=True)
class Account:
    """What happened to one shard's keys. Rows are indexes of the history; `stray` are rows that nobody wrote."""

    acknowledged: int = 0
    uncertain: int = 0
    failed: int = 0
    read: int = 0
    lost: list[tuple[Write, int, int | None]] = field(default_factory=list)
    stray: list[tuple[int, int]] = field(default_factory=list)
    failed_present: list[tuple[Write, int]] = field(default_factory=list)


def settle(history: History, final: FinalReads, shard: int) -> Account:
    """Compare what a shard's writers were told with what its primary held at the end.

    Almost every key was written once and is as it was told; these are counted as columns, and only the others are
    looked at one by one.
    """
    at = (history.of(Kind.WRITE, Kind.WRITE_API) & (history.shard == shard)).nonzero()[0]
    keys, value, told = history.key[at], history.value[at], history.durability[at]
    read_keys, read_values = final.sorted_of_shard(shard)
    counted = np.bincount(told, minlength=len(Durability))
    account = Account(
        acknowledged=int(counted[Durability.OK]),
        uncertain=int(counted[Durability.UNKNOWN]),
        failed=int(counted[Durability.FAIL]),
        read=len(read_keys),
    )
    _, which, times = np.unique(keys, return_inverse=True, return_counts=True)
    there, found = _looked_up(keys, read_keys, read_values)
    as_written = there & (found == value)
    plain = (
        (as_written & (told == int(Durability.OK)))
        | ((as_written | ~there) & (told == int(Durability.UNKNOWN)))
        | (~there & (told == int(Durability.FAIL)))
    )
    odd = ~(plain & (times[which] == 1))
    attempts: dict[int, list[Write]] = defaultdict(list)
    for row in at[odd].tolist():
        attempts[int(history.key[row])].append(_write(history, row))
    ends = {int(key): int(read) for key, here, read in zip(keys[odd], there[odd], found[odd], strict=True) if here}
    for key, writes in attempts.items():
        _settle_key(account, key, writes, ends.get(key))
    unwritten = ~np.isin(read_keys, keys)
    account.stray.extend(zip(read_keys[unwritten].tolist(), read_values[unwritten].tolist(), strict=True))
    return account


def _looked_up(keys: Column, read_keys: Column, read_values: Column) -> tuple[Mask, Column]:
    """Whether each key was read, and its value where it was (0 elsewhere). `read_keys` ascend."""
    if not len(read_keys):
        return np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=np.uint64)
    place = np.minimum(np.searchsorted(read_keys, keys), len(read_keys) - 1)
    there: Mask = read_keys[place] == keys
    return there, np.where(there, read_values[place], np.uint64(0))


def _write(history: History, row: int) -> Write:
    durability = Durability(int(history.durability[row]))
    end = FOREVER if durability is Durability.UNKNOWN else int(history.end_ns[row])
    return Write(int(history.value[row]), int(history.start_ns[row]), end, durability, row)


def _settle_key(account: Account, key: int, attempts: list[Write], value: int | None) -> None:
    kept = [write for write in attempts if write.durability is Durability.OK]
    perhaps = [write for write in attempts if write.durability is Durability.UNKNOWN]
    failed = [write for write in attempts if write.durability is Durability.FAIL]
    # A write may be the last one unless an acknowledged write began only after it had ended.
    newest_start = max((write.start_ns for write in kept), default=-1)
    possible = {write.value for write in (*kept, *perhaps) if write.end_ns >= newest_start}
    if kept and value not in possible:
        account.lost.append((max(kept, key=lambda write: write.end_ns), key, value))
    if value is None:
        return
    written = {write.value for write in (*kept, *perhaps)}
    if value not in written:
        account.stray.append((key, value))
        account.failed_present.extend((write, key) for write in failed if write.value == value)


def lost_writes(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Acknowledged writes that are missing in the final reads, or there with a value that an older write gave."""
    accounts, doubt = accounts_of(history, evidence, run)
    near = _acknowledged_near_fault(history, run)
    doubt = doubt or doubt_fault(evidence, run)
    if doubt is None and near < MIN_AROUND_FAULT:
        doubt = (
            f"only {count(near, 'write')} acknowledged by whom the fault struck within "
            f"{AROUND_NS // NS_PER_S} s of the fault; {MIN_AROUND_FAULT} are needed"
        )
    return judged_lost(history, accounts, doubt, promise, run, among=f", {near:,} of them from around the fault")


def judged_lost(
    history: History, accounts: dict[int, Account], doubt: str | None, promise: Promise, run: RunRecord, *, among: str
) -> Finding:
    """What the accounts say is lost, whatever is doubted; that nothing is only without a doubt."""
    acknowledged = sum(account.acknowledged for account in accounts.values())
    lost = [entry for account in accounts.values() for entry in account.lost]
    out_of = count(acknowledged, "write")
    if lost:
        reason = f"{count(len(lost), 'acknowledged write')} of {acknowledged:,} not found at the end"
        shown = (_lost(history, lost, run),)
        return measured(promise, len(lost), n=acknowledged, out_of=out_of, reason=reason, evidence=shown)
    if doubt:
        return unknown(promise, doubt, value=0 if accounts else None, n=acknowledged, out_of=out_of)
    reason = f"every one of {acknowledged:,} acknowledged writes was read back{among}"
    return measured(promise, 0, n=acknowledged, out_of=out_of, reason=reason)


def unexpected_rows(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Rows read in the end that no acknowledged and no uncertain write explains (read - ok - unknown)."""
    accounts, doubt = accounts_of(history, evidence, run)
    read = sum(account.read for account in accounts.values())
    stray = [(key, value, shard) for shard, account in accounts.items() for key, value in account.stray]
    out_of = count(read, "row")
    if stray and not history.of(Kind.WRITE, Kind.WRITE_API).any():
        reason = "the history holds no write at all, so it cannot explain any row"
        return unknown(promise, reason, value=len(stray), n=read, out_of=out_of)
    if stray and history.torn:
        names = ", ".join(part.name for part in history.torn)
        reason = (
            f"{count(len(stray), 'row')} unexplained, but {names} is cut off: its last writes are not in the history"
        )
        return unknown(promise, reason, value=len(stray), n=read, out_of=out_of)
    if stray:
        reason = f"{count(len(stray), 'row')} of {read:,} that nobody was told of"
        shown = tuple(stray[:EXHIBIT_ROWS])
        exhibit = Exhibit("rows that no write explains", ("key", "value", "shard"), shown, len(stray))
        return measured(promise, len(stray), n=read, out_of=out_of, reason=reason, evidence=(exhibit,))
    if doubt or not read:
        return unknown(promise, doubt or "the final reads found no row at all", n=read, out_of=out_of)
    uncertain = sum(account.uncertain for account in accounts.values())
    reason = f"each of {read:,} rows belongs to a write, {uncertain:,} of which had no known outcome"
    return measured(promise, 0, n=read, out_of=out_of, reason=reason)


def failed_present(history: History, evidence: Evidence, promise: Promise, run: RunRecord) -> Finding:
    """Writes that were reported as certainly not applied, yet are there."""
    accounts, doubt = accounts_of(history, evidence, run)
    failed = sum(account.failed for account in accounts.values())
    present = [entry for account in accounts.values() for entry in account.failed_present]
    out_of = count(failed, "failed write")
    if present:
        rows = tuple((key, write.value, str(history.kind[write.row])) for write, key in present[:EXHIBIT_ROWS])
        exhibit = Exhibit("failed writes that are there", ("key", "value", "kind"), rows, len(present))
        reason = f"{count(len(present), 'write')} of {failed:,} reported as not applied, but read back"
        return measured(promise, len(present), n=failed, out_of=out_of, reason=reason, evidence=(exhibit,))
    acknowledged = sum(account.acknowledged for account in accounts.values())
    if doubt or not acknowledged:
        return unknown(promise, doubt or "no write was acknowledged at all", n=failed, out_of=out_of)
    reason = f"none of {failed:,} failed writes was read back" if failed else "no write failed"
    return measured(promise, 0, n=failed, out_of=out_of, reason=reason)


def accounts_of(history: History, evidence: Evidence, run: RunRecord) -> tuple[dict[int, Account], str | None]:
    """Accounts of the shards that were read, and why they are not the whole truth (None when they are)."""
    if evidence.final is None:
        return {}, "there are no final reads"
    shards = [entry.shard for entry in run.shards]
    read = [shard for shard in shards if shard in evidence.final.shards_read]
    accounts = {shard: settle(history, evidence.final, shard) for shard in read}
    unread = [str(shard) for shard in shards if shard not in evidence.final.shards_read]
    return accounts, f"no final reads of shard {', '.join(unread)}" if unread else None


def _acknowledged_near_fault(history: History, run: RunRecord) -> int:
    """On the struck shard of which there are fewest; what struck no shard may have cost any of them a write."""
    if run.fault is None:
        return 0
    # A certain death is followed by a silence of up to the lease's ttl: count from the fault to the end of the run.
    window = (run.fault.t_ns - AROUND_NS, after_fault(run, run.fault)[1])
    ok = history.of(Kind.WRITE, Kind.WRITE_API) & (history.durability == int(Durability.OK))
    near = ok & (history.end_ns >= window[0]) & (history.end_ns < window[1])
    shards = run.struck_shards or {entry.shard for entry in run.shards}
    return min((int((near & (history.shard == shard)).sum()) for shard in shards), default=0)


def _lost(history: History, lost: list[tuple[Write, int, int | None]], run: RunRecord) -> Exhibit:
    zero = run.fault.t_ns if run.fault is not None else int(history.start_ns.min(initial=0))
    in_order = sorted(lost, key=lambda entry: entry[0].end_ns)
    rows = tuple(
        (
            key,
            int(history.shard[write.row]),
            str(history.kind[write.row]),
            write.value,
            "missing" if found is None else found,
            f"{(write.end_ns - zero) / NS_PER_S:+.3f} s",
            _member(history, write, run),
        )
        for write, key, found in in_order[:EXHIBIT_ROWS]
    )
    columns = ("key", "shard", "kind", "value", "read back", "acknowledged", "by")
    return Exhibit("acknowledged writes that were lost", columns, rows, len(lost))


def _member(history: History, write: Write, run: RunRecord) -> str | None:
    at = int(history.server[write.row])
    return run.members[at] if at < len(run.members) else None
