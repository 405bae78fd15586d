"""The run's clock, as actions wait by it."""

from __future__ import annotations

import time
from typing import Final

NS_PER_S: Final = 1_000_000_000


def wait_until(t_ns: int, *, after_s: float = 0.0) -> None:
    """Sleep until `after_s` seconds have passed since `t_ns` of the monotonic clock; not at all when they have."""
    time.sleep(max(0.0, t_ns / NS_PER_S + after_s - time.monotonic()))
