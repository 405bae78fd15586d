"""What etcd says about a member's leadership: followed while it lives, given back when it is certainly dead."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.coordination.etcd import (
    Compare,
    Delete,
    EtcdClient,
    EtcdError,
    EtcdUnavailable,
    Get,
    HistoryCompacted,
    KeyValue,
    Op,
)

# Pause before reading a scope again when etcd did not answer, seconds.
RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class ScopeKeys:
    """The keys of one member in its Patroni scope."""

    prefix: str
    leader: str
    member: str
    config: str

    @classmethod
    def of(cls, namespace: str, scope: str, member: str) -> ScopeKeys:
        """Patroni's layout: /<namespace>/<scope>/leader, .../members/<name>, .../config (patroni/dcs)."""
        prefix = f"/{namespace.strip('/')}/{scope}/"
        return cls(prefix, f"{prefix}leader", f"{prefix}members/{member}", f"{prefix}config")


@dataclass(frozen=True, slots=True)
class Leadership:
    """The scope as etcd showed it: who leads, this member's own key, and whether an operator paused the cluster."""

    leader: KeyValue | None
    member: KeyValue | None
    maintenance: bool


class LeadershipWatch:
    """Follows a member's keys in a thread; `view` is the latest, None before etcd answered for the first time."""

    def __init__(self, client: EtcdClient, keys: ScopeKeys, report_away: Callable[[EtcdError], None]) -> None:
        """`report_away` is called, in the thread, each time etcd stops answering."""
        self._client = client
        self._keys = keys
        self._report_away = report_away
        self._stop = threading.Event()
        self._changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="leadership", daemon=True)
        self.view: Leadership | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def fileno(self) -> int:
        """Becomes readable when `view` changed; `acknowledge` makes it wait again."""
        return self._changed

    def acknowledge(self) -> None:
        try:
            os.eventfd_read(self._changed)
        except BlockingIOError:
            return

    def _run(self) -> None:
        away = False
        while not self._stop.is_set():
            try:
                view, revision = read(self._client, self._keys)
                away = False
                self._publish(view)
                for event in self._client.watch(
                    self._keys.prefix, prefix=True, start_revision=revision + 1, stop=self._stop
                ):
                    kv = event.kv if event.kind == "put" else None
                    if event.kv.key == self._keys.leader:
                        self._publish(view := replace(view, leader=kv))
                    elif event.kv.key == self._keys.member:
                        self._publish(view := replace(view, member=kv))
                    elif event.kv.key == self._keys.config:
                        self._publish(view := replace(view, maintenance=_paused(kv)))
            except HistoryCompacted:
                continue  # etcd answers; it only forgot what was before the next read
            except EtcdError as error:
                if not away:
                    self._report_away(error)
                away = True
                self._stop.wait(RETRY_S)

    def _publish(self, view: Leadership) -> None:
        self.view = view
        os.eventfd_write(self._changed, 1)


def read(client: EtcdClient, keys: ScopeKeys) -> tuple[Leadership, int]:
    """The present view and its revision, read as one step. Raises EtcdUnavailable."""
    result = client.transact((), (Get(keys.leader), Get(keys.member), Get(keys.config)))
    leader, member, config = (found.kvs[0] if found.kvs else None for found in result.results)
    return Leadership(leader, member, _paused(config)), result.revision


@dataclass(frozen=True, slots=True)
class Released:
    """The keys are deleted. `revision` is 0 when that was learned by reading, after an answer that never came."""

    revision: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Something is not as it was while the member lived; nothing was or will be changed."""

    reason: str
    found: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """etcd gave no answer. Call again; if `sent`, the deletion may be applied already, or later."""

    error: str
    sent: bool


def release(
    client: EtcdClient, keys: ScopeKeys, seen: Leadership, *, sent_before: bool
) -> Released | Refused | Undecided:
    """Delete the leader key, and the member's own, if both are what was `seen` while the member lived.

    The caller must know that the member is dead and stays dead meanwhile. Safe to call again: each call reads first,
    and the deletion names the value, lease and mod_revision of one leadership, which never comes twice.
    `sent_before`: an earlier call ended Undecided, so a leader key that is gone may be our own doing.
    """
    sending = False
    try:
        now, _ = read(client, keys)
        if now.leader is None and sent_before:
            return Released(0)
        refusal = _refusal(seen, now)
        if refusal is not None:
            return refusal
        sending = True
        result = client.transact(*_deletion(keys, seen, now))
    except EtcdUnavailable as error:
        return Undecided(str(error), sending)
    if not result.succeeded:
        return Refused("changed_meanwhile", "the keys changed between reading and deleting them")
    return Released(result.revision)


def _refusal(seen: Leadership, now: Leadership) -> Refused | None:
    """What differs from when the member lived, if anything does."""
    if now.maintenance:
        return Refused("maintenance", "the cluster is paused")
    if seen.leader is None or now.leader is None:
        return Refused("leader_key_gone", f"seen: {seen.leader}, now: {now.leader}")
    for name in ("value", "lease", "mod_revision"):
        before, after = getattr(seen.leader, name), getattr(now.leader, name)
        if before != after:
            return Refused(f"leader_{name}_changed", f"{name} was {before}, is {after}; leader now: {now.leader.value}")
    # a running Patroni rewrites its member key all the time; the lease tells whether it is still the same Patroni
    if now.member is not None and (seen.member is None or seen.member.lease != now.member.lease):
        before = None if seen.member is None else seen.member.lease
        return Refused("member_lease_changed", f"lease was {before}, is {now.member.lease}: a new Patroni")
    return None


def _deletion(keys: ScopeKeys, seen: Leadership, now: Leadership) -> tuple[list[Compare], list[Op]]:
    if seen.leader is None:
        raise AssertionError("a leadership that was never seen cannot be given back")
    compares = [
        Compare(keys.leader, "value", seen.leader.value),
        Compare(keys.leader, "lease", seen.leader.lease),
        Compare(keys.leader, "mod_revision", seen.leader.mod_revision),
    ]
    if now.member is None:
        return [*compares, Compare(keys.member, "create_revision", 0)], [Delete(keys.leader)]
    compares.append(Compare(keys.member, "mod_revision", now.member.mod_revision))
    return compares, [Delete(keys.leader), Delete(keys.member)]


def _paused(config: KeyValue | None) -> bool:
    """Whether the cluster's configuration says `pause`; one that cannot be read counts as paused: nothing is done."""
    if config is None:
        return False
    try:
        return bool(json.loads(config.value).get("pause", False))
    except (ValueError, AttributeError):
        return True
