"""What a warden does about what it knows: a pure function, so that every combination of facts can be tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

# A warden that did not get to look at its clock for this long was itself stopped or starved: what it remembers says
# nothing about the time in between. Seconds; several times its longest pause between two looks.
CLOCK_GAP_S = 2.0
# Questions that must have gone unanswered before silence counts: a warden that did not ask has heard nothing.
MIN_UNANSWERED = 3


class Patroni(Enum):
    """The Patroni that this warden has seen alive; one that it never saw alive is not decided over at all."""

    ALIVE = "alive"
    DEAD = "dead"  # that very process has ended


class Postgres(Enum):
    """The Postgres of this member, all of its processes together."""

    UNSEEN = "unseen"  # no process left, but its shared memory was never seen attached: that it is not proves nothing
    GONE = "gone"  # no process left, nothing attached to its shared memory
    ATTACHED = "attached"  # no process of the member left, but somebody is attached to its shared memory
    STANDBY = "standby"  # running, cannot accept a write
    PRIMARY = "primary"  # something runs that may acknowledge a write


class Action(Enum):
    NOTHING = "nothing"
    KILL_PATRONI = "kill_patroni"  # it is frozen; what follows is decided over a dead Patroni
    FENCE = "fence"  # kill the whole Postgres tree
    RELEASE = "release"  # delete the leader key


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision rests on. `leads`: the leader key named this member when Patroni was last seen alive."""

    patroni: Patroni
    postgres: Postgres
    leads: bool
    alone: bool  # the server lock is held exclusively: no Patroni runs or can start
    maintenance: bool  # the cluster is paused by an operator (`patronictl pause`)
    silent: bool  # Patroni is suspect: see Suspicion
    stopped: bool  # every process of the member is stopped: none can acknowledge anything


@dataclass(frozen=True, slots=True)
class Decision:
    action: Action
    reason: str


def decide(facts: Facts) -> Decision:  # noqa: PLR0911 - one return per rule, in their order
    """The warden's rules. Whatever is not certain ends in NOTHING: Patroni's own ttl still covers it."""
    if facts.maintenance:
        return Decision(Action.NOTHING, "maintenance")
    if facts.patroni is Patroni.ALIVE:
        if facts.stopped:
            return Decision(Action.NOTHING, "paused_whole")
        if facts.silent and facts.postgres is Postgres.PRIMARY:
            return Decision(Action.KILL_PATRONI, "patroni_silent")
        return Decision(Action.NOTHING, "patroni_alive")
    if not facts.alone:
        return Decision(Action.NOTHING, "patroni_restarted")
    if facts.postgres is Postgres.PRIMARY:
        return Decision(Action.FENCE, "primary_without_patroni")
    if facts.postgres is Postgres.STANDBY:
        # one that holds the leader key is about to be promoted, and nobody would be there to demote it
        return Decision(Action.FENCE, "leader_without_patroni") if facts.leads else Decision(Action.NOTHING, "standby")
    if facts.postgres is Postgres.ATTACHED:
        return Decision(Action.NOTHING, "shared_memory_attached")
    if not facts.leads:
        return Decision(Action.NOTHING, "did_not_lead")
    if facts.postgres is Postgres.UNSEEN:
        return Decision(Action.NOTHING, "postgres_never_seen")
    return Decision(Action.RELEASE, "gone")


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Since when Patroni has been silent, counting only time in which the warden watched and the member could run.

    Times are monotonic seconds. `in_vain` is the probe's count of unanswered questions at the last look, `discounted`
    what it was when the suspicion began anew: those say nothing. `heard` is whether it ever answered this warden.
    """

    since_s: float
    looked_s: float
    in_vain: int
    discounted: int
    heard: bool

    @classmethod
    def first(cls, now_s: float) -> Suspicion:
        return cls(since_s=now_s, looked_s=now_s, in_vain=0, discounted=0, heard=False)

    def anew(self, now_s: float, in_vain: int) -> Suspicion:
        """Begin again now; what was asked in vain before does not count."""
        return Suspicion(since_s=now_s, looked_s=now_s, in_vain=in_vain, discounted=in_vain, heard=self.heard)

    def look(self, now_s: float, *, answered_s: float, in_vain: int, stopped: bool) -> Suspicion:
        """One look at the clock: `answered_s` says when Patroni last answered, `in_vain` how often not since then."""
        if stopped or now_s - self.looked_s > CLOCK_GAP_S:
            return self.anew(now_s, in_vain)
        if answered_s > self.since_s:
            return Suspicion(since_s=answered_s, looked_s=now_s, in_vain=in_vain, discounted=0, heard=True)
        return replace(self, looked_s=now_s, in_vain=in_vain)

    def silence_s(self, now_s: float) -> float:
        return now_s - self.since_s

    def silent(self, now_s: float, fence_after_s: float) -> bool:
        """Whether Patroni, which used to answer, was asked often enough and did not answer for that long."""
        asked_enough = self.in_vain - self.discounted >= MIN_UNANSWERED
        return self.heard and asked_enough and self.silence_s(now_s) >= fence_after_s
