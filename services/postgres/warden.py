"""Stands beside one Postgres member: gives its leadership back when it is certainly dead, kills it when it must be."""

from __future__ import annotations

import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.contracts.events import Event, EventLog
from services.coordination.etcd import EtcdClient, EtcdError
from services.postgres.decision import CLOCK_GAP_S, Action, Facts, Patroni, Postgres, Suspicion, decide
from services.postgres.directory import MemberDirectory, ProcessIdentity
from services.postgres.errors import ConfigurationInvalid, EvidenceUnreadable
from services.postgres.leadership import Leadership, LeadershipWatch, Refused, Released, ScopeKeys, Undecided, release
from services.postgres.liveness import LivenessProbe
from services.postgres.processes import (
    ProcessHandle,
    Segment,
    all_stopped,
    attached,
    kill,
    may_acknowledge,
    member_processes,
    no_patroni_can_start,
    read_segment,
)
from services.shutdown import on_shutdown

# Pause between two looks while Patroni lives, seconds: its death and etcd's changes wake the warden anyway.
LOOK_EVERY_S = 0.25
# Pause between two looks at a dying server, seconds: part of the time to failover.
DYING_POLL_S = 0.005
# Later, the pause grows with the time since the death: this share of it, up to DECIDE_EVERY_S.
LATER_POLL = 0.05
# How long one decision over a dead Patroni may keep a new one from starting, seconds; then it lets go and tries again.
HOLD_LOCK_S = 3.0
# Pause between two decisions over a dead Patroni, seconds.
DECIDE_EVERY_S = 0.2
# Longest wait for one etcd server, seconds. A healthy one answers in milliseconds, one on a slow disk in tenths.
ETCD_TIMEOUT_S = 1.0
# Silence of Patroni after which the member's processes are looked at, to notice a paused member, seconds.
CURIOUS_AFTER_S = 1.5

# After these there is nothing left to do about a death: a new Patroni is in charge, or an operator, or nobody needs us.
FINAL_REASONS = frozenset({"patroni_restarted", "maintenance", "did_not_lead", "postgres_never_seen"})

NOBODY = Leadership(leader=None, member=None, maintenance=False)


class WardenConfig(BaseModel):
    """warden.json. Patroni may be silent for `ttl_s` - `fence_margin_s`.

    `rest_url` must reach Patroni without asking anybody for its address; `authority` signed its certificate, if any.
    The margin holds the time since Patroni's last lease renewal (up to loop_wait), the kill, and its proof.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    member: str
    scope: str
    namespace: str
    etcd: tuple[str, ...] = Field(min_length=1)
    rest_url: str
    ttl_s: float = Field(gt=0)
    fence_margin_s: float = Field(gt=0)
    directory: Path
    authority: Path | None = None

    @property
    def fence_after_s(self) -> float:
        return self.ttl_s - self.fence_margin_s


class Journal:
    """The warden's events, in its file and on standard error; a state that lasts is said once."""

    def __init__(self, path: Path, member: str) -> None:
        self._log = EventLog(path, aloud=True)
        self._member = member
        self._lasting: tuple[str, str] | None = None
        self._lock = threading.Lock()

    def say(self, kind: str, **data: Any) -> None:
        with self._lock:
            self._lasting = None
            self._write(kind, data)

    def say_once(self, kind: str, reason: str, **data: Any) -> None:
        """Like `say`, unless the same was the last thing said."""
        with self._lock:
            if self._lasting != (kind, reason):
                self._lasting = (kind, reason)
                self._write(kind, {"reason": reason, **data})

    def _write(self, kind: str, data: dict[str, Any]) -> None:
        self._log.append(Event.now("warden", kind, self._member, **data))


class Warden:
    """One warden over one member. It knows only what it saw itself: after its own restart it starts from nothing."""

    def __init__(self, config: WardenConfig) -> None:
        self._config = config
        self._directory = MemberDirectory(config.directory.resolve())
        self._journal = Journal(self._directory.warden_events, config.member)
        self._keys = ScopeKeys.of(config.namespace, config.scope, config.member)
        self._etcd = EtcdClient(config.etcd, timeout_s=ETCD_TIMEOUT_S)
        self._watch = LeadershipWatch(EtcdClient(config.etcd, timeout_s=ETCD_TIMEOUT_S), self._keys, self._etcd_away)
        self._probe = LivenessProbe(config.rest_url, config.authority)
        # what was seen of the Patroni that is watched now, while it lived
        self._patroni: ProcessHandle | None = None
        self._seen = NOBODY
        self._segments: set[Segment] = set()
        self._suspicion = Suspicion.first(time.monotonic())
        self._release_sent = False

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        self._watch.start()
        self._probe.start()
        self._journal.say("watching", fence_after_s=self._config.fence_after_s)
        self._patroni = self._meet()
        if self._patroni is None:
            self._journal.say("release_refused", reason="never_seen_alive")
        while not stop.is_set():
            self._wait()
            if self._patroni is None:
                self._patroni = self._meet()
            if self._patroni is not None:
                if self._patroni.dead():
                    self._bury(self._patroni, stop)
                else:
                    self._look(self._patroni)
        self._watch.stop()
        self._probe.stop()

    def _wait(self) -> None:
        """Until Patroni dies, etcd says something new, or it is time to look again."""
        poll = select.poll()
        poll.register(self._watch, select.POLLIN)
        if self._patroni is not None:
            poll.register(self._patroni, select.POLLIN)
        poll.poll(LOOK_EVERY_S * 1000)
        self._watch.acknowledge()

    def _meet(self) -> ProcessHandle | None:
        """The Patroni that was launched last, if it lives; everything known about an earlier one is forgotten."""
        try:
            identity = self._directory.read_patroni_identity()
        except EvidenceUnreadable as error:
            self._journal.say_once("evidence_unreadable", str(error))
            return None
        handle = None if identity is None else ProcessHandle.open(identity)
        if handle is not None:
            self._seen = NOBODY
            self._segments = set()
            self._release_sent = False
            self._suspicion = self._suspicion.anew(time.monotonic(), self._probe.answers.unanswered)
            self._journal.say("patroni_seen", pid=handle.identity.pid)
        return handle

    def _look(self, patroni: ProcessHandle) -> None:
        """Remember what is so while Patroni lives, and become suspicious of one that is silent."""
        try:
            self._remember(patroni)
            self._suspect(patroni)
        except EvidenceUnreadable as error:
            self._journal.say_once("evidence_unreadable", str(error))

    def _remember(self, patroni: ProcessHandle) -> None:
        view, segment = self._watch.view, read_segment(self._directory)
        if patroni.dead():
            return  # what was just read may be from after its death
        if segment is not None and segment not in self._segments and attached(segment):
            self._segments.add(segment)
        if view is not None:
            led_before = self._seen.leader
            self._seen = view
            if self._leads() and view.leader != led_before and view.leader is not None:
                self._journal.say("leader_seen", lease=f"{view.leader.lease:x}", mod_revision=view.leader.mod_revision)

    def _suspect(self, patroni: ProcessHandle) -> None:
        now_s, answers = time.monotonic(), self._probe.answers
        looked = self._suspicion.look(now_s, answered_s=answers.last_s, in_vain=answers.unanswered, stopped=False)
        self._suspicion = looked
        if looked.silence_s(now_s) < CURIOUS_AFTER_S:
            return
        processes = member_processes(self._directory, without=patroni.identity)
        stopped = patroni.stopped() and all_stopped(processes)
        if stopped:
            self._suspicion = looked.anew(now_s, answers.unanswered)
        decision = decide(
            Facts(
                patroni=Patroni.ALIVE,
                postgres=self._state_of(processes),
                leads=self._leads(),
                alone=False,
                maintenance=self._seen.maintenance,
                silent=looked.silent(now_s, self._config.fence_after_s),
                stopped=stopped,
            )
        )
        if decision.action is Action.KILL_PATRONI:
            if time.monotonic() - now_s > CLOCK_GAP_S:
                return  # stopped between looking and acting: look again
            silence_s = round(looked.silence_s(now_s), 2)
            self._journal.say("fence_started", reason=decision.reason, silence_s=silence_s, pid=patroni.identity.pid)
            patroni.kill()
        elif stopped:
            self._journal.say_once("fence_refused", decision.reason)

    def _bury(self, patroni: ProcessHandle, stop: threading.Event) -> None:
        """Decide over a dead Patroni, again and again until there is nothing left to decide."""
        dead_ns = time.monotonic_ns()
        self._journal.say("patroni_dead", pid=patroni.identity.pid, leads=self._leads())
        while not stop.is_set() and not self._decided(patroni.identity, dead_ns):
            stop.wait(DECIDE_EVERY_S)
        patroni.close()
        self._patroni = None

    def _decided(self, patroni: ProcessIdentity, dead_ns: int) -> bool:
        """One decision, during which no new Patroni can start; False when it has to be taken again."""
        with no_patroni_can_start(self._directory) as alone:
            try:
                action, reason = self._subdue(patroni, dead_ns, alone)
            except EvidenceUnreadable as error:
                self._journal.say_once("release_refused", "evidence_unreadable", found=str(error))
                return False
            if action is not Action.RELEASE:
                self._journal.say_once("release_refused", reason)
                return reason in FINAL_REASONS
            self._journal.say_once("gone", reason, after_ms=_since_ms(dead_ns))
            outcome = release(self._etcd, self._keys, self._seen, sent_before=self._release_sent)
        match outcome:
            case Released():
                self._journal.say("released", revision=outcome.revision, after_ms=_since_ms(dead_ns))
            case Refused():
                self._journal.say("release_refused", reason=outcome.reason, found=outcome.found)
            case Undecided():
                self._release_sent = self._release_sent or outcome.sent
                self._journal.say_once("etcd_away", "release", error=outcome.error)
                return False
        return True

    def _subdue(self, patroni: ProcessIdentity, dead_ns: int, alone: bool) -> tuple[Action, str]:
        """Look, and kill where the rules say so, until the rules say anything else or time is up."""
        give_up_s = time.monotonic() + HOLD_LOCK_S
        killed: set[ProcessIdentity] = set()
        gone_before = False
        while True:
            processes = member_processes(self._directory, without=patroni)
            postgres = self._state_of(processes)
            if not processes and not gone_before:
                gone_before = True  # once more: a look at /proc can miss what is just being started
                continue
            gone_before = False
            decision = decide(
                Facts(
                    patroni=Patroni.DEAD,
                    postgres=postgres,
                    leads=self._leads(),
                    alone=alone,
                    maintenance=self._seen.maintenance,
                    silent=False,
                    stopped=False,
                )
            )
            if decision.action is Action.FENCE:
                if not killed:
                    self._journal.say("fence_started", reason=decision.reason, processes=len(processes))
                kill(processes)
                killed.update(processes)
            elif decision.reason != "shared_memory_attached":
                if killed and not processes:
                    self._journal.say("fenced", processes=len(killed))
                return decision.action, decision.reason
            if time.monotonic() > give_up_s:
                return Action.NOTHING, "still_alive" if processes else decision.reason
            # what did not die at once takes its time: looking costs the machine something
            time.sleep(min(DECIDE_EVERY_S, max(DYING_POLL_S, _since_ms(dead_ns) / 1000 * LATER_POLL)))

    def _state_of(self, processes: list[ProcessIdentity]) -> Postgres:
        """Postgres by its processes as just found, its control file and its shared memory."""
        if processes:
            return Postgres.PRIMARY if may_acknowledge(self._directory) else Postgres.STANDBY
        segment = read_segment(self._directory)
        if any(attached(each) for each in self._segments | ({segment} if segment else set())):
            return Postgres.ATTACHED
        return Postgres.GONE if self._segments else Postgres.UNSEEN

    def _leads(self) -> bool:
        return self._seen.leader is not None and self._seen.leader.value == self._config.member

    def _etcd_away(self, error: EtcdError) -> None:
        self._journal.say_once("etcd_away", "watch", error=str(error))


def _since_ms(t_ns: int) -> float:
    return round((time.monotonic_ns() - t_ns) / 1e6, 1)


def load(path: Path) -> WardenConfig:
    """Raises ConfigurationInvalid naming the fields that are wrong."""
    try:
        config = WardenConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationInvalid(f"cannot read {path}: {error}: render the member's configuration first") from error
    except ValidationError as error:
        raise ConfigurationInvalid(f"{path} is no warden configuration: {error}: render it again") from error
    if config.fence_margin_s >= config.ttl_s:
        raise ConfigurationInvalid(f"{path}: fence_margin_s {config.fence_margin_s} must be below ttl_s {config.ttl_s}")
    return config


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            try:
                config = load(Path(path))
            except ConfigurationInvalid as error:
                sys.stderr.write(f"warden: {error}\n")
                return 2
        case _:
            sys.stderr.write("usage: python -m services.postgres.warden WARDEN_JSON\n")
            return 2
    stop = threading.Event()
    on_shutdown(stop.set)
    Warden(config).run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
