"""What the API's answers prove about a write and a prediction."""

from __future__ import annotations

import json
import ssl
import struct

import pytest

from loadtests.outcome import Outcome, predicted, read_back, unanswered, written
from loadtests.record import NOT_STATED, OLDEST_US, Durability, Error


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"timeline": 4, "server": "shard-0-1"}, Outcome(Error.NONE, Durability.OK, "shard-0-1", 4)),
        (200, {"timeline": 4, "server": None}, Outcome(Error.NONE, Durability.OK, None, 4)),
        (503, {"code": "shard_unavailable"}, Outcome(Error.HTTP_5XX, Durability.FAIL)),
        (503, {"code": "commit_unknown"}, Outcome(Error.COMMIT_UNKNOWN, Durability.UNKNOWN)),
        (503, {"code": "anything else"}, Outcome(Error.HTTP_5XX, Durability.UNKNOWN)),
        (504, {}, Outcome(Error.HTTP_5XX, Durability.UNKNOWN)),
        (409, {"code": "slot_moved"}, Outcome(Error.NOT_OWNER, Durability.FAIL)),
        (422, {"code": "invalid"}, Outcome(Error.HTTP_4XX, Durability.FAIL)),
    ],
)
def test_a_write_is_judged_by_what_its_answer_proves(status: int, body: dict[str, object], expected: Outcome) -> None:
    assert written(status, json.dumps(body).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"<html>503</html>", b"[]", b'"shard_unavailable"'])
def test_a_503_of_somebody_else_leaves_a_write_open(body: bytes) -> None:
    assert written(503, body) == Outcome(Error.HTTP_5XX, Durability.UNKNOWN)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b'{"probability": 0.5}', Error.NONE),
        (200, b'{"probability": 1}', Error.NONE),
        (200, b'{"probability": 1.5}', Error.WRONG_ANSWER),
        (200, b'{"probability": true}', Error.WRONG_ANSWER),
        (200, b'{"probability": null}', Error.WRONG_ANSWER),
        (200, b"not json", Error.WRONG_ANSWER),
        (401, b"{}", Error.HTTP_4XX),
        (503, b"{}", Error.HTTP_5XX),
    ],
)
def test_a_prediction_is_right_only_with_a_probability(status: int, body: bytes, error: Error) -> None:
    assert predicted(status, body).error is error


FOUND = {"features": {"distance": 4711}, "staleness_s": 0.0123456}
NOTHING = {"code": "features_not_found", "staleness_s": 0.5}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, FOUND, Outcome(Error.NONE, member="api-1", timeline=12_346, value=4711)),
        (200, FOUND | {"staleness_s": 0}, Outcome(Error.NONE, member="api-1", timeline=0, value=4711)),
        (200, FOUND | {"staleness_s": None}, Outcome(Error.NONE, member="api-1", timeline=NOT_STATED, value=4711)),
        (200, FOUND | {"staleness_s": 1e9}, Outcome(Error.NONE, member="api-1", timeline=OLDEST_US, value=4711)),
        (200, FOUND | {"staleness_s": True}, Outcome(Error.NONE, member="api-1", timeline=NOT_STATED, value=4711)),
        (200, FOUND | {"staleness_s": -1}, Outcome(Error.NONE, member="api-1", timeline=NOT_STATED, value=4711)),
        (404, NOTHING, Outcome(Error.NONE, member="api-1", timeline=500_000)),
        (404, {"code": "features_not_found"}, Outcome(Error.NONE, member="api-1", timeline=NOT_STATED)),
        (404, {"code": "not_found"}, Outcome(Error.HTTP_4XX)),
        (503, {"code": "shard_unavailable"}, Outcome(Error.HTTP_5XX)),
        (200, {"features": {"distance": 0}}, Outcome(Error.WRONG_ANSWER)),
        (200, {"features": {"distance": 1.5}}, Outcome(Error.WRONG_ANSWER)),
        (200, {"features": {"distance": True}}, Outcome(Error.WRONG_ANSWER)),
        (200, {"features": None}, Outcome(Error.WRONG_ANSWER)),
        (200, {}, Outcome(Error.WRONG_ANSWER)),
    ],
)
def test_a_read_says_what_is_there_and_how_old_that_may_be(
    status: int, body: dict[str, object], expected: Outcome
) -> None:
    assert read_back(status, json.dumps(body).encode(), "api-1") == expected


def test_a_prediction_says_who_answered_with_which_model_to_the_last_bit() -> None:
    body = b'{"probability": 0.1, "model": {"name": "m", "version": "v7", "generation": 3}}'
    assert predicted(200, body, "api-1") == Outcome(
        Error.NONE, member="api-1", timeline=3, value=struct.unpack("<Q", struct.pack("<d", 0.1))[0], version="v7"
    )
    assert predicted(200, b'{"probability": 0.1, "model": "v7"}').version is None


class Wrapped(Exception):
    """As geventhttpclient wraps what happened."""

    def __init__(self, original: BaseException) -> None:
        self.original = original


@pytest.mark.parametrize(
    ("failure", "error", "durability"),
    [
        (ConnectionRefusedError(), Error.REFUSED, Durability.FAIL),
        (Wrapped(ConnectionRefusedError()), Error.REFUSED, Durability.FAIL),
        (Wrapped(TimeoutError()), Error.TIMEOUT, Durability.UNKNOWN),
        (ssl.SSLError("The read operation timed out"), Error.TIMEOUT, Durability.UNKNOWN),
        (ConnectionResetError(), Error.DISCONNECTED, Durability.UNKNOWN),
    ],
)
def test_without_an_answer_only_a_refused_connection_proves_anything(
    failure: BaseException, error: Error, durability: Durability
) -> None:
    assert unanswered(failure, is_write=True) == Outcome(error, durability)
    assert unanswered(failure, is_write=False) == Outcome(error)
