"""A node's mark of the epoch that it entered, on a real etcd: one incarnation each, also when an answer is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from services.coordination.etcd import Compare, EtcdClient, EtcdOutcomeUnknown, Op, TxnResult
from services.h2o.entry import enter
from tests.integration.coordination.etcd_cluster import EtcdCluster

pytestmark = pytest.mark.integration

KEY = "/breakwater/test/h2o/entered/h2o-0"


class LosesAnswers(EtcdClient):
    """Its first change arrives, and nobody hears of it."""

    lost = False

    def transact(
        self, compares: Sequence[Compare], on_success: Sequence[Op], on_failure: Sequence[Op] = ()
    ) -> TxnResult:
        done = super().transact(compares, on_success, on_failure)
        if not self.lost:
            self.lost = True
            raise EtcdOutcomeUnknown("the connection was lost before the answer came")
        return done


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path / "etcd", 1) as cluster:
        yield cluster


def test_an_epoch_is_entered_by_one_incarnation(etcd: EtcdCluster) -> None:
    client = EtcdClient(etcd.clients)
    assert enter(client, KEY, 1, "first")
    assert not enter(client, KEY, 1, "second")
    assert enter(client, KEY, 2, "second")
    assert not enter(client, KEY, 2, "first")


def test_an_agent_whose_answer_was_lost_finds_its_own_mark(etcd: EtcdCluster) -> None:
    client = LosesAnswers(etcd.clients)
    with pytest.raises(EtcdOutcomeUnknown):
        enter(client, KEY, 1, "first")
    assert enter(client, KEY, 1, "first")
    assert not enter(EtcdClient(etcd.clients), KEY, 1, "second")
