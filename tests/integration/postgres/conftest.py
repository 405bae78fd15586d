"""One shard with three etcd servers for all tests of this package, brought back to health before each of them."""

import logging
import signal
from collections.abc import Iterator
from itertools import count

import pytest

from tests.integration.postgres.shard_cluster import ShardCluster
from tests.integration.postgres.writer import Writer

_ROWS_PER_TEST = 1_000_000
_first_rows = count(1, _ROWS_PER_TEST)


@pytest.fixture(scope="session")
def running_shard(request: pytest.FixtureRequest) -> Iterator[ShardCluster]:
    with ShardCluster(etcd_size=3) as shard:
        yield shard
        shard.keep = request.session.testsfailed > 0


@pytest.fixture
def shard(running_shard: ShardCluster) -> Iterator[ShardCluster]:
    """A healthy shard whose three wardens watch; whatever a test froze goes on afterwards."""
    # shown with a failing test only, whose directory is kept
    logging.getLogger(__name__).warning("logs and events of the shard: %s", running_shard.root)
    running_shard.repair()
    running_shard.start_wardens()
    yield running_shard
    for member in running_shard.members:
        if member.warden is not None:
            member.warden.send_signal(signal.SIGCONT)
        if member.server is not None:
            member.signal_server(signal.SIGCONT)


@pytest.fixture
def writer(shard: ShardCluster) -> Writer:
    """Not started: `with writer:` writes to whichever member is the primary."""
    return Writer(shard.conninfo(*shard.members), first=next(_first_rows))
