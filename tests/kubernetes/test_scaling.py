"""The autoscaler on a real metrics API: more replicas under load, and as many as before without it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from tests.kubernetes.load import FEATURES, NAMED
from tests.kubernetes.platform import Platform, eventually

Record = Callable[[str, object], None]
CALLERS = 8
SCALED_S = 120.0


@pytest.mark.usefixtures("model")
def test_replicas_follow_the_load_and_come_back(platform: Platform, record_property: Record) -> None:
    least = platform.plan.topology.api.replicas
    with platform.impatient():
        eventually("it is calm", SCALED_S, lambda: _replicas(platform) == least)
        stop = threading.Event()
        with platform.edge() as url:
            callers = [threading.Thread(target=_ask, args=(platform, url, stop, n)) for n in range(CALLERS)]
            began = time.monotonic()
            for caller in callers:
                caller.start()
            try:
                eventually("more replicas are ready", SCALED_S, lambda: _replicas(platform) > least)
                grown_s = time.monotonic() - began
            finally:
                stop.set()
                for caller in callers:
                    caller.join()
        began = time.monotonic()
        eventually("as many as before", SCALED_S, lambda: _replicas(platform) == least)
        record_property("grown_after_s", f"{grown_s:.0f}")
        record_property("shrunk_after_s", f"{time.monotonic() - began:.0f}")


def _replicas(platform: Platform) -> int:
    """Ready ones, when there are as many as are wanted."""
    (api,) = platform.get("deployments", "--field-selector", "metadata.name=api")
    return int(api["status"].get("readyReplicas", 0)) if api["status"].get("replicas") == api["spec"]["replicas"] else 0


def _ask(platform: Platform, url: str, stop: threading.Event, number: int) -> None:
    headers = {"Authorization": f"Bearer {platform.token()}", "Host": "localhost"}
    with httpx.Client(verify=platform.trust(), timeout=10.0, headers=headers) as client:
        for asked in itertools.count():
            if stop.is_set():
                return
            # never the same twice: each answer is computed
            features = FEATURES | {"distance": 100 + number * 500 + asked % 500, "departure_minute": asked % 1440}
            client.post(f"{url}/v1/predict", json={"features": features}, extensions=NAMED)
