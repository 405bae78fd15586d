"""What the keeper does about what it knows of an H2O cloud: pure functions, so that every combination can be tried.

A cloud that loses a node never heals by itself: all nodes have to be restarted together, as a new cloud. That costs
every frame and every running job, so it is done only over what is certain; silence alone is a suspicion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

# A keeper that did not look for this long was itself stopped or starved: what it remembers says nothing. Seconds.
CLOCK_GAP_S = 4.0
# A node not heard of for this long gives a bad sample. H2O's nodes say something every second. Seconds.
STALE_S = 5.0
# So many bad samples in a row, this far apart, make a suspect: 15 s, longer than a full collection of a heap this size.
SAMPLES = 3
SAMPLE_EVERY_S = 7.5
# Looks in a row that must be refused: H2O never closes its port while it lives, so one would do; two cost 0.5 s.
REFUSALS = 2
# A cloud of running nodes that is not whole by then will not be: it takes 10 s here, longer on a busy machine. Seconds.
FORM_LIMIT_S = 120.0
# A cloud that held this long was a good one: what ends it counts as no failure to form. Seconds.
STABLE_S = 60.0
# Between an epoch and the next one: nothing at first, then doubling. Seconds.
BACK_OFF_S = 1.0
LONGEST_BACK_OFF_S = 300.0
# Formations that failed in a row before a human is called; it goes on trying.
ALARM_AFTER = 3


class Process(Enum):
    """The JVM of this epoch, as the node's own agent reports it."""

    UNREPORTED = "unreported"  # the agent is away, or has not come to this epoch yet
    RUNNING = "running"
    EXITED = "exited"  # ended, or cannot be started


class Port(Enum):
    """What became of a connection to the node's REST port."""

    OPEN = "open"  # it answered
    REFUSED = "refused"  # nobody listens
    SILENT = "silent"  # no answer in time: says nothing


class Action(Enum):
    NOTHING = "nothing"
    KILL = "kill"  # the named node's JVM, so that a suspicion becomes certain
    RAISE = "raise"  # a new epoch: every node restarts


class State(Enum):
    """What everybody else needs to know."""

    READY = "ready"  # one cloud of all nodes, in consensus, healthy, by the word of every node
    FORMING = "forming"
    DEGRADED = "degraded"  # was whole in this epoch; something is silent
    ALARM = "alarm"  # does not form, and a human should look


@dataclass(frozen=True, slots=True)
class Suspicion:
    """How long a node has not been heard of, counting only time in which the keeper looked and somebody could say."""

    bad: int = 0
    sampled_s: float = 0.0
    looked_s: float | None = None

    def look(self, now_s: float, heard_age_s: float | None) -> Suspicion:
        """One look: `heard_age_s` since anybody heard of the node, None when nobody could say."""
        starved = self.looked_s is not None and now_s - self.looked_s > CLOCK_GAP_S
        if starved or heard_age_s is None or heard_age_s < STALE_S:
            return Suspicion(looked_s=now_s)
        if self.bad == 0 or now_s - self.sampled_s >= SAMPLE_EVERY_S:
            return Suspicion(bad=self.bad + 1, sampled_s=now_s, looked_s=now_s)
        return replace(self, looked_s=now_s)

    @property
    def suspect(self) -> bool:
        return self.bad >= SAMPLES


@dataclass(frozen=True, slots=True)
class Node:
    """One node in this epoch. `refusals`: connections refused in a row after one had been answered."""

    name: str
    agent: bool  # its agent's key is there: an order would be carried out
    process: Process
    port: Port
    refusals: int = 0
    suspect: bool = False

    @property
    def dead(self) -> bool:
        """Certainly: its process ended, or nobody listens where somebody did."""
        return self.process is Process.EXITED or self.refusals >= REFUSALS


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision rests on. Times are seconds of this epoch; `failures` came in a row before it."""

    epoch: int  # 0: there has been none
    nodes: tuple[Node, ...]
    whole: bool  # every node says: one cloud of this epoch, all nodes, consensus, healthy
    formed_s: float | None  # since it was first whole; None: never yet
    raised_s: float  # since it was raised
    failures: int


@dataclass(frozen=True, slots=True)
class Decision:
    action: Action
    reason: str
    node: str | None = None


def decide(facts: Facts) -> Decision:  # noqa: PLR0911 - one return per rule, in their order
    """The keeper's rules. Whatever is not certain ends in NOTHING, or in a kill that makes it certain."""
    if facts.epoch == 0:
        return Decision(Action.RAISE, "first")
    dead = [node for node in facts.nodes if node.dead]
    away = [node for node in facts.nodes if not node.agent]
    if dead:
        if facts.formed_s is None and away:
            # another epoch would form no better: it waits for those who are away, like this one
            return Decision(Action.NOTHING, "agent_away", away[0].name)
        if facts.raised_s < back_off_s(facts.failures):
            return Decision(Action.NOTHING, "backing_off", dead[0].name)
        exited = dead[0].process is Process.EXITED
        return Decision(Action.RAISE, "process_exited" if exited else "port_refused", dead[0].name)
    suspects = [node for node in facts.nodes if node.suspect]
    if suspects:
        for node in suspects:
            if node.agent and node.process is Process.RUNNING:
                return Decision(Action.KILL, "silent", node.name)
        return Decision(Action.NOTHING, "suspect_unreachable", suspects[0].name)
    if facts.whole:
        return Decision(Action.NOTHING, "whole")
    if facts.formed_s is not None:
        return Decision(Action.NOTHING, "silent_for_now")
    if away:
        return Decision(Action.NOTHING, "agent_away", away[0].name)
    starting = [node for node in facts.nodes if node.process is not Process.RUNNING]
    if starting:
        return Decision(Action.NOTHING, "starting", starting[0].name)
    if facts.raised_s >= max(FORM_LIMIT_S, back_off_s(facts.failures)):
        return Decision(Action.RAISE, "not_formed")
    return Decision(Action.NOTHING, "forming")


def state_of(facts: Facts, decision: Decision) -> State:
    """What is published: only a whole cloud is ready."""
    if decision.reason == "whole":
        return State.READY
    stuck = facts.formed_s is None and facts.raised_s >= FORM_LIMIT_S
    if facts.failures >= ALARM_AFTER or stuck or decision.reason == "suspect_unreachable":
        return State.ALARM
    return State.FORMING if facts.formed_s is None else State.DEGRADED


def failures_after(facts: Facts) -> int:
    """How many formations in a row failed, once this epoch is given up."""
    good = facts.epoch == 0 or (facts.formed_s is not None and facts.formed_s >= STABLE_S)
    return 0 if good else facts.failures + 1


def back_off_s(failures: int) -> float:
    """How old an epoch has to be before the next one, after so many failures in a row."""
    if failures == 0:
        return 0.0
    doublings = min(failures - 1, 20)  # beyond it is the longest anyway; a float has an end
    return min(BACK_OFF_S * 2.0**doublings, LONGEST_BACK_OFF_S)
