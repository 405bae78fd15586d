"""The connection budget's arithmetic and how a lost server is dialled again."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from services.featurestore.errors import FeatureStoreError
from services.featurestore.pools import REDIAL_MAX_S, REDIAL_MIN_S, ConnectionBudget, PoolBounds, Redial


@pytest.mark.parametrize(("least", "most"), [(2, 2), (2, 8), (3, 9), (5, 7)])
def test_both_pools_together_spend_exactly_the_budget(least: int, most: int) -> None:
    writes, reads = ConnectionBudget(least, most).split()
    assert writes.min + reads.min == least
    assert writes.max + reads.max == most


@pytest.mark.parametrize(("least", "most"), [(1, 8), (4, 3), (0, 0)])
def test_a_budget_too_small_for_two_pools_is_refused(least: int, most: int) -> None:
    with pytest.raises(FeatureStoreError, match="needs 2 <= min <= max"):
        ConnectionBudget(least, most)


def test_a_pool_without_connections_is_refused() -> None:
    with pytest.raises(FeatureStoreError, match="1 <= min <= max"):
        PoolBounds(0, 1)


async def test_while_the_server_is_away_one_attempt_at_a_time_is_made() -> None:
    redial = Redial()
    at_work = 0
    at_once: list[int] = []
    attempts = 0

    async def attempt() -> int:
        nonlocal at_work, attempts
        attempts += 1
        at_work += 1
        at_once.append(at_work)
        await asyncio.sleep(0)
        at_work -= 1
        assert attempts > 12 or redial.dialling == 8, "who waits for a connection counts, whoever dials for it"
        if attempts < 12:
            raise psycopg.OperationalError("refused")
        return attempts

    started = time.monotonic()
    connected = await asyncio.gather(*(redial.until_connected(attempt) for _ in range(8)))
    took_s = time.monotonic() - started
    assert len(connected) == 8
    assert redial.dialling == 0
    assert at_once[0:8] == list(range(1, 9)), "as long as nothing failed all dial at once"
    assert set(at_once[8:12]) == {1}, "afterwards one dials for all, until it succeeds"
    # the promise is the pace itself: 4 paced attempts after the first 8
    assert 4 * REDIAL_MIN_S <= took_s < 4 * REDIAL_MAX_S + 0.3
    assert redial.last_error == "refused"


async def test_closing_ends_the_dialling() -> None:
    redial = Redial()

    async def attempt() -> int:
        raise psycopg.OperationalError("refused")

    waiting = asyncio.ensure_future(redial.until_connected(attempt))
    await asyncio.sleep(0)
    redial.close()
    with pytest.raises(psycopg.OperationalError, match="closing"):
        await waiting
