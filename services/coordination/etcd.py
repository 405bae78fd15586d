"""A small synchronous client of etcd v3 over its JSON gateway, honest about what it does not know."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from services.coordination.messages import (
    Compare,
    Delete,
    EtcdError,
    EtcdOutcomeUnknown,
    EtcdUnavailable,
    Get,
    HistoryCompacted,
    KeyValue,
    LeaseGone,
    Op,
    OpResult,
    Put,
    ServerStatus,
    TxnResult,
    WatchEvent,
    compare_body,
    encode,
    key_values,
    op_body,
    op_result,
    prefix_end,
    put_body,
    revision_of,
    server_status,
    watch_events,
)
from services.coordination.stream import LineStream, StreamBroken
from services.coordination.tls import context_from

__all__ = [
    "Compare",
    "Delete",
    "EtcdClient",
    "EtcdError",
    "EtcdOutcomeUnknown",
    "EtcdUnavailable",
    "Get",
    "HistoryCompacted",
    "KeyValue",
    "LeaseGone",
    "Op",
    "OpResult",
    "Put",
    "ServerStatus",
    "TxnResult",
    "WatchEvent",
]

# A silent watch is opened again after this long, so that a frozen server or a half-open connection delays an event
# by at most this; the changes of the gap are replayed from the next revision. Seconds.
WATCH_IDLE_S = 5.0
# Pause before the next attempt when a server takes no watch, seconds: short, because failover waits for watches.
WATCH_RETRY_S = 0.1

# gRPC status codes in the gateway's error bodies (grpc/codes) after which another server may do better: cancelled,
# unknown, deadline exceeded, internal, unavailable ("no leader", "request timed out", "leader changed").
SERVER_TROUBLE_CODES = frozenset({1, 2, 4, 13, 14})
NOT_FOUND_CODE = 5
SERVER_ERROR_STATUS = 500
HTTP_OK = 200


class _ServerTrouble(Exception):
    """This server could not do it just now; what became of the request is not known."""


class EtcdClient:
    """Talks to the servers in turn and stays with the last one that answered. Threads may share it.

    Reads are linearizable. A change goes to a second server only when the first certainly never received it; otherwise
    `EtcdOutcomeUnknown` is raised and the caller has to read before trying again.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout_s: float = 1.0,
        tls: ssl.SSLContext | None = None,
        addresses: Mapping[str, str] | None = None,
    ) -> None:
        """`endpoints`: URLs like http://127.0.0.1:2379, all http or all https (services/coordination/tls.py says how,
        unless `tls` does). `addresses`: where their hosts are reached, for names that are not to be looked up.

        `timeout_s` bounds one attempt at one server, seconds.
        """
        schemes = {url.partition("://")[0] for url in endpoints}
        if schemes not in ({"http"}, {"https"}):
            raise EtcdError(
                f"etcd endpoints must be URLs, all http:// or all https://, got {list(endpoints)!r}: correct the "
                "configuration"
            )
        self._tls = (tls or context_from()) if schemes == {"https"} else None
        self._addresses = dict(addresses or {})
        self._endpoints = tuple(url.rstrip("/") for url in endpoints)
        self._timeout_s = timeout_s
        self._current = 0
        self._pool = urllib3.PoolManager(
            num_pools=len(self._endpoints),
            maxsize=4,
            retries=False,
            timeout=urllib3.Timeout(timeout_s),
            ssl_context=self._tls,
        )

    def get(self, key: str) -> KeyValue | None:
        kvs = key_values(self._call("kv/range", {"key": encode(key)}, repeatable=True))
        return kvs[0] if kvs else None

    def get_at(self, key: str) -> tuple[KeyValue | None, int]:
        """The key, and the store's revision when it was read: a watch from the next one misses nothing.

        Not the key's own revision, which etcd forgets once the key has not changed for an hour.
        """
        answer = self.transact((), (Get(key),))
        kvs = answer.results[0].kvs
        return (kvs[0] if kvs else None), answer.revision

    def get_prefix(self, prefix: str) -> list[KeyValue]:
        body = {"key": encode(prefix), "range_end": prefix_end(prefix)}
        return list(key_values(self._call("kv/range", body, repeatable=True)))

    def put(self, key: str, value: str, *, lease: int = 0) -> int:
        """Write a key; returns the revision of the change."""
        return revision_of(self._call("kv/put", put_body(Put(key, value, lease)), repeatable=False))

    def delete(self, key: str) -> bool:
        """Delete a key; says whether it was there."""
        return int(self._call("kv/deleterange", {"key": encode(key)}, repeatable=False).get("deleted", 0)) > 0

    def transact(
        self, compares: Sequence[Compare], on_success: Sequence[Op], on_failure: Sequence[Op] = ()
    ) -> TxnResult:
        """Run `on_success` if every condition holds, else `on_failure`, as one step."""
        body = {
            "compare": [compare_body(compare) for compare in compares],
            "success": [op_body(op) for op in on_success],
            "failure": [op_body(op) for op in on_failure],
        }
        only_reads = all(isinstance(op, Get) for op in (*on_success, *on_failure))
        answer = self._call("kv/txn", body, repeatable=only_reads)
        results = tuple(op_result(response) for response in answer.get("responses", ()))
        return TxnResult(bool(answer.get("succeeded", False)), revision_of(answer), results)

    def grant_lease(self, ttl_s: int) -> int:
        """Make a lease. Repeated freely: one that was granted unseen has no keys and runs out."""
        return int(self._call("lease/grant", {"TTL": str(ttl_s)}, repeatable=True)["ID"])

    def keep_alive(self, lease: int) -> int:
        """Renew a lease; returns its time to live in seconds. Raises LeaseGone when it ran out."""
        answer = self._call("lease/keepalive", {"ID": str(lease)}, repeatable=True)
        ttl_s = int(answer.get("result", {}).get("TTL", 0))
        if ttl_s <= 0:
            raise LeaseGone(f"etcd lease {lease:x} does not exist any more: grant a new one and put its keys again")
        return ttl_s

    def revoke_lease(self, lease: int) -> None:
        """End a lease and delete its keys; one that is gone already is what was wanted."""
        try:
            self._call("lease/revoke", {"ID": str(lease)}, repeatable=True)
        except LeaseGone:
            return

    def status(self) -> ServerStatus:
        """What whichever server answers says of itself; it does so without a quorum, too."""
        return server_status(self._call("maintenance/status", {}, repeatable=True))

    def watch(
        self, key: str, *, prefix: bool = False, start_revision: int = 0, stop: threading.Event
    ) -> Iterator[WatchEvent]:
        """Changes of a key, or of all keys with this prefix, from `start_revision` (0: from now) until `stop` is set.

        Reconnects by itself and resumes at the next revision. Raises HistoryCompacted when etcd has forgotten that one:
        also when nothing changed for as long as it remembers.
        """
        create: dict[str, Any] = {"key": encode(key)}
        if prefix:
            create["range_end"] = prefix_end(key)
        next_revision = start_revision
        while not stop.is_set():
            if next_revision:
                create["start_revision"] = str(next_revision)
            try:
                with LineStream(
                    self._endpoints[self._current],
                    "/v3/watch",
                    {"create_request": create},
                    timeout_s=self._timeout_s,
                    tls=self._tls,
                    address=self._addresses.get(urlsplit(self._endpoints[self._current]).hostname or ""),
                ) as stream:
                    for message in stream.messages(idle_s=WATCH_IDLE_S, stop=stop):
                        result = self._watch_result(message, key)
                        events = watch_events(result)
                        if events:
                            next_revision = events[-1].revision + 1
                        elif not next_revision:
                            # the answer to a watch from now names the present; one into the past must still replay
                            next_revision = revision_of(result) + 1
                        yield from events
            except StreamBroken:
                self._move_on()
                stop.wait(WATCH_RETRY_S)

    def close(self) -> None:
        self._pool.clear()

    def _watch_result(self, message: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        if "result" not in message:
            raise StreamBroken(f"watch of {key} failed: {message.get('error')}")
        result: Mapping[str, Any] = message["result"]
        if result.get("canceled"):
            if int(result.get("compact_revision", 0)):
                raise HistoryCompacted(
                    f"etcd compacted the history that a watch of {key} asked for (oldest revision left: "
                    f"{result['compact_revision']}): read the keys and watch from their revision"
                )
            raise StreamBroken(f"watch of {key} was cancelled: {result.get('cancel_reason', 'no reason given')}")
        return result

    def _call(self, method: str, body: Mapping[str, Any], *, repeatable: bool) -> dict[str, Any]:
        """Ask the servers in turn. Unless `repeatable`, a request that may have been received is not sent again."""
        failures: list[str] = []
        for _ in self._endpoints:
            endpoint = self._endpoints[self._current]
            try:
                return self._post(endpoint, method, body)
            except (HTTPError, _ServerTrouble) as error:
                self._move_on()
                failures.append(f"{endpoint}: {error}")
                if not repeatable and not isinstance(error, NewConnectionError | ConnectTimeoutError):
                    raise EtcdOutcomeUnknown(
                        f"etcd {method} was sent and not answered ({failures[-1]}): read the keys before trying again"
                    ) from error
        raise EtcdUnavailable(f"no etcd server answered {method} ({'; '.join(failures)}): check that etcd has a quorum")

    def _post(self, endpoint: str, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        response = self._pool_of(endpoint).request("POST", f"/v3/{method}", body=json.dumps(body).encode())
        try:
            answer = json.loads(response.data)
        except ValueError as error:
            raise _ServerTrouble(f"HTTP {response.status}, no JSON: {response.data[:200]!r}") from error
        if not isinstance(answer, dict):
            raise _ServerTrouble(f"HTTP {response.status}, no JSON object: {response.data[:200]!r}")
        if response.status == HTTP_OK and "error" not in answer:
            return answer
        code = int(answer.get("code", 0))
        reason = answer.get("message") or answer.get("error") or f"HTTP {response.status}"
        if code in SERVER_TROUBLE_CODES or (not code and response.status >= SERVER_ERROR_STATUS):
            raise _ServerTrouble(f"HTTP {response.status}: {reason}")
        if code == NOT_FOUND_CODE and "lease" in str(reason):
            raise LeaseGone(f"etcd {method} at {endpoint}: {reason}: grant a new lease and put its keys again")
        raise EtcdError(f"etcd {method} at {endpoint} was refused: {reason}: correct the request")

    def _pool_of(self, endpoint: str) -> urllib3.HTTPConnectionPool:
        """Connections to the endpoint's address, which must prove the endpoint's name."""
        url = urlsplit(endpoint)
        name = url.hostname or ""
        proof = {} if self._tls is None else {"server_hostname": name}
        return self._pool.connection_from_host(self._addresses.get(name, name), url.port, url.scheme, proof)

    def _move_on(self) -> None:
        self._current = (self._current + 1) % len(self._endpoints)
