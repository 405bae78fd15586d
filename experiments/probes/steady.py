"""The steady state: every member of the environment is healthy, by its own word."""

from __future__ import annotations

from infra.environment import EnvironmentFault
from infra.stack import open_environment


def environment_healthy(environment: str, seconds: float) -> bool:
    """True when every member is healthy within `seconds`; False otherwise, so that the journal shows a deviation."""
    try:
        open_environment(environment).wait_ready(timeout_s=seconds)
    except EnvironmentFault:
        return False
    return True
