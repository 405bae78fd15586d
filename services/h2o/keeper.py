"""Keeps an H2O cloud whole: one of the nodes' keepers, chosen through etcd, watches all nodes and raises epochs.

Every change it makes is a transaction that compares its own election key, so one that lost the election unseen changes
nothing. It remembers only what it saw itself: after an election it starts from nothing.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from services.contracts.events import Event, EventLog
from services.coordination.etcd import Compare, EtcdClient, EtcdError, Put
from services.h2o.cloud import Answer, NodeAddress, Questioner, heard_age_s, is_whole
from services.h2o.decision import (
    Action,
    Decision,
    Facts,
    Node,
    Port,
    Process,
    State,
    Suspicion,
    decide,
    failures_after,
    state_of,
)
from services.h2o.errors import StateUnreadable
from services.h2o.lease import Lease
from services.h2o.state import Epoch, Order, Snapshot, StateWatch, Status, acknowledge

# Pause between two looks, seconds; what agents report wakes the keeper anyway.
LOOK_EVERY_S = 0.5
# After this long without a sign of life the election is open again, seconds. It adds to the time to detect a node that
# died together with the elected keeper.
ELECTION_TTL_S = 3


class Memory:
    """What one keeper saw of one epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.answered: set[str] = set()
        self.refusals: dict[str, int] = {}
        self.suspicions: dict[str, Suspicion] = {}
        self.ordered: set[str] = set()

    def look(self, now_s: float, nodes: Sequence[NodeAddress], answers: Mapping[str, Answer], cloud: str) -> None:
        for node in nodes:
            answer = answers[node.name]
            if answer.view is not None and answer.view.name == cloud:
                self.answered.add(node.name)
            refused = answer.port is Port.REFUSED and node.name in self.answered
            if refused:
                self.refusals[node.name] = self.refusals.get(node.name, 0) + 1
            elif answer.port is Port.OPEN:
                self.refusals[node.name] = 0
            before = self.suspicions.get(node.name, Suspicion())
            self.suspicions[node.name] = before.look(now_s, heard_age_s(node, answers))


class Keeper:
    """One candidate. `run` campaigns until told to stop and keeps the cloud while elected."""

    def __init__(
        self,
        name: str,
        nodes: Sequence[NodeAddress],
        client: EtcdClient,
        watch: StateWatch,
        events: EventLog,
        *,
        trust: ssl.SSLContext | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._nodes = tuple(nodes)
        self._client = client
        self._watch = watch
        self._woken = watch.listen()
        self._events = events
        self._wall = wall
        self._lease = Lease(client, ELECTION_TTL_S)
        self._questioner = Questioner(nodes, trust)
        self._memory = Memory(0)
        self._said: tuple[str, ...] = ()
        self.elected = False

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then the election is open again at once."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        while not stop.is_set():
            poll.poll(LOOK_EVERY_S * 1000)
            acknowledge(self._woken)
            snapshot = self._watch.snapshot
            if snapshot is None:
                continue
            try:
                if self._campaign(snapshot):
                    self._keep(snapshot)
            except EtcdError as error:
                self._say("etcd_away", str(error))
            except StateUnreadable as error:
                self._say("state_unreadable", str(error))
        self._lease.give_up()
        self._questioner.close()

    def _campaign(self, snapshot: Snapshot) -> bool:
        """Whether this keeper is elected now."""
        lease = self._lease.renew(time.monotonic())
        holder = snapshot.keeper
        mine = holder is not None and holder.value == self._name and holder.lease == lease
        if not mine:
            before = Compare(snapshot.keys.keeper, "create_revision", 0)
            if holder is not None:
                if holder.value != self._name:
                    self.elected = False
                    return False
                # this node's keeper before its restart: nobody else has the name
                before = Compare(snapshot.keys.keeper, "mod_revision", holder.mod_revision)
            mine = self._client.transact([before], [Put(snapshot.keys.keeper, self._name, lease)]).succeeded
        if mine and not self.elected:
            self._memory = Memory(0)
            self._say("elected", self._name)
        self.elected = mine and self._lease.holds(time.monotonic())
        return self.elected

    def _keep(self, snapshot: Snapshot) -> None:
        epoch = snapshot.epoch
        if self._memory.epoch != (epoch.generation if epoch else 0):
            self._memory = Memory(epoch.generation if epoch else 0)
        answers = self._questioner.ask()
        facts = self._facts(snapshot, epoch, answers)
        decision = decide(facts)
        if epoch is not None and facts.whole and epoch.formed_at is None:
            self._write_epoch(snapshot, epoch.model_copy(update={"formed_at": self._wall()}))
            self._say("formed", epoch.cloud, seconds=round(facts.raised_s, 3))
        self._publish(snapshot, facts, decision)
        match decision.action:
            case Action.RAISE:
                self._raise(snapshot, facts, decision)
            case Action.KILL:
                self._kill(snapshot, facts, decision)
            case Action.NOTHING:
                return

    def _facts(self, snapshot: Snapshot, epoch: Epoch | None, answers: Mapping[str, Answer]) -> Facts:
        if epoch is None:
            return Facts(0, (), whole=False, formed_s=None, raised_s=0.0, failures=0)
        memory, wall_s = self._memory, self._wall()
        memory.look(time.monotonic(), self._nodes, answers, epoch.cloud)
        nodes = []
        for node in self._nodes:
            report = snapshot.report(node.name)
            current = report is not None and report.generation == epoch.generation
            nodes.append(
                Node(
                    node.name,
                    agent=report is not None,
                    process=report.process if report is not None and current else Process.UNREPORTED,
                    port=answers[node.name].port,
                    refusals=memory.refusals.get(node.name, 0),
                    suspect=memory.suspicions[node.name].suspect,
                )
            )
        return Facts(
            epoch.generation,
            tuple(nodes),
            whole=is_whole(answers, epoch.cloud),
            formed_s=None if epoch.formed_at is None else max(0.0, wall_s - epoch.formed_at),
            raised_s=max(0.0, wall_s - epoch.raised_at),
            failures=epoch.failures,
        )

    def _raise(self, snapshot: Snapshot, facts: Facts, decision: Decision) -> None:
        failures = failures_after(facts)
        report = snapshot.report(decision.node) if decision.node else None
        epoch = Epoch(
            generation=facts.epoch + 1,
            reason=decision.reason,
            detail=report.detail if report is not None else "",
            failures=failures,
            raised_at=self._wall(),
        )
        if self._write_epoch(snapshot, epoch):
            self._say("raised", epoch.cloud, why=decision.reason, node=decision.node, failures=failures)

    def _kill(self, snapshot: Snapshot, facts: Facts, decision: Decision) -> None:
        if decision.node is None or decision.node in self._memory.ordered:
            return
        key = snapshot.keys.order(decision.node)
        self._transact(snapshot, Put(key, Order(generation=facts.epoch).to_json(), self._lease.id))
        self._memory.ordered.add(decision.node)
        self._say("kill_ordered", decision.node, why=decision.reason)

    def _publish(self, snapshot: Snapshot, facts: Facts, decision: Decision) -> None:
        state = state_of(facts, decision)
        status = Status(
            generation=facts.epoch,
            state=state,
            reason=decision.reason,
            node=decision.node,
            keeper=self._name,
            urls=tuple(node.url for node in self._nodes),
        )
        if snapshot.status != status:
            self._transact(snapshot, Put(snapshot.keys.status, status.to_json(), self._lease.id))
        if decision.action is Action.NOTHING and state in {State.ALARM, State.DEGRADED}:
            self._say(state.value, decision.reason, node=decision.node, failures=facts.failures)

    def _write_epoch(self, snapshot: Snapshot, epoch: Epoch) -> bool:
        unchanged = Compare(snapshot.keys.epoch, "mod_revision", snapshot.epoch_revision)
        return self._transact(snapshot, Put(snapshot.keys.epoch, epoch.to_json()), unchanged)

    def _transact(self, snapshot: Snapshot, put: Put, *also: Compare) -> bool:
        """Write only while elected; an answer that never came is found out at the next look."""
        mine = Compare(snapshot.keys.keeper, "lease", self._lease.id)
        return self._client.transact([mine, *also], [put]).succeeded

    def _say(self, kind: str, what: str, **data: object) -> None:
        """An event, unless the same was the last thing said."""
        said = (kind, what, *(f"{key}={value}" for key, value in data.items() if key != "seconds"))
        if said != self._said:
            self._said = said
            with contextlib.suppress(OSError):  # a full disk must not stop the keeper
                self._events.append(Event.now("h2o-keeper", kind, self._name, what=what, **data))
