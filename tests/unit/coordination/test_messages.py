"""The gateway's JSON: what we send and how we read what it leaves out."""

import base64

import pytest

from services.coordination.etcd import Compare, Delete, EtcdClient, EtcdError, Get, Put
from services.coordination.messages import (
    ServerStatus,
    compare_body,
    key_value,
    op_body,
    op_result,
    prefix_end,
    server_status,
    watch_events,
)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(("prefix", "end"), [("/a/", b"/a0"), ("a", b"b"), ("", b"\0"), ("é", b"\xc3\xaa")])
def test_a_prefix_ends_at_the_first_key_after_it(prefix: str, end: bytes) -> None:
    assert base64.b64decode(prefix_end(prefix)) == end


def test_zero_fields_are_absent_in_the_gateway_and_zero_here() -> None:
    kv = key_value({"key": b64("k"), "mod_revision": "7"})
    assert (kv.key, kv.value, kv.mod_revision, kv.lease, kv.version) == ("k", "", 7, 0, 0)


def test_a_server_tells_its_term_and_leader_and_that_it_knows_none() -> None:
    header = {"cluster_id": "9", "member_id": str(2**63 + 1), "revision": "7", "raft_term": "4"}
    assert server_status({"header": header, "leader": "8"}) == ServerStatus(2**63 + 1, 4, 8)
    assert server_status({"header": {"member_id": "3"}, "errors": ["no leader"]}) == ServerStatus(3, 0, 0)


def test_lease_numbers_above_53_bits_survive() -> None:
    lease = 2**62 + 1
    assert key_value({"key": b64("k"), "lease": str(lease)}).lease == lease
    assert compare_body(Compare("k", "lease", lease))["lease"] == str(lease)


def test_conditions_and_operations_have_the_gateways_names() -> None:
    assert compare_body(Compare("k", "value", "v")) == {
        "key": b64("k"),
        "target": "VALUE",
        "result": "EQUAL",
        "value": b64("v"),
    }
    assert compare_body(Compare("k", "mod_revision", 5, "greater"))["target"] == "MOD"
    assert op_body(Put("k", "v", 9)) == {"request_put": {"key": b64("k"), "value": b64("v"), "lease": "9"}}
    assert op_body(Delete("k")) == {"request_delete_range": {"key": b64("k")}}
    assert op_body(Get("k")) == {"request_range": {"key": b64("k")}}


def test_results_of_operations() -> None:
    assert op_result({"response_delete_range": {"deleted": "2"}}).deleted == 2
    assert op_result({"response_range": {"kvs": [{"key": b64("k"), "value": b64("v")}]}}).kvs[0].value == "v"
    assert op_result({"response_put": {}}).kvs == ()


def test_a_change_without_type_is_a_put() -> None:
    put, delete = watch_events(
        {
            "events": [
                {"kv": {"key": b64("k"), "value": b64("v"), "mod_revision": "3"}},
                {"type": "DELETE", "kv": {"key": b64("k"), "mod_revision": "4"}},
            ]
        }
    )
    assert (put.kind, put.revision, put.kv.value) == ("put", 3, "v")
    assert (delete.kind, delete.revision, delete.kv.value) == ("delete", 4, "")


@pytest.mark.parametrize(
    "endpoints", [[], ["127.0.0.1:2379"], ["ftp://127.0.0.1:2379"], ["http://127.0.0.1:1", "https://127.0.0.1:2"]]
)
def test_endpoints_that_cannot_work_are_refused_before_anything_starts(endpoints: list[str]) -> None:
    with pytest.raises(EtcdError, match="correct the configuration"):
        EtcdClient(endpoints)
