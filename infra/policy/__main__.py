"""The CrossGuard pack: `pulumi preview --policy-pack infra/policy` refuses a stack that breaks a rule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Pulumi runs this file with infra/policy as the first import path; the packages stand two levels up.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pulumi_policy import EnforcementLevel, PolicyPack, StackValidationPolicy

from infra.policy.model import Rule
from infra.policy.pack import environment_of, resources_of
from infra.policy.rules import RULES


def validation(rule: Rule) -> Callable[[Any, Callable[[str], None]], None]:
    def validate(stack: Any, report: Callable[[str], None]) -> None:
        resources = resources_of(stack.resources)
        for finding in rule.findings(resources, environment_of(resources)):
            report(str(finding))

    return validate


PolicyPack(
    name="breakwater",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[
        StackValidationPolicy(name=rule.name, description=rule.demand, validate=validation(rule)) for rule in RULES
    ],
)
