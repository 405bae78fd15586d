"""A plan under a temporary directory, and the caller's own account for its files."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from infra.local import secrets
from infra.local.account import Account
from infra.local.plan import LocalPlan
from infra.local.secrets import Secrets
from infra.topology import Topology


def topology(**sections: Any) -> Topology:
    return Topology.model_validate({"environment": "unit", "runtime": "local", **sections})


@pytest.fixture
def account() -> Account:
    return Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())


@pytest.fixture
def plan(tmp_path: Path) -> LocalPlan:
    made = LocalPlan(topology(), tmp_path)
    made.state.mkdir()
    return made


@pytest.fixture
def own_secrets(plan: LocalPlan, account: Account) -> Secrets:
    return secrets.ensure(plan, account)
