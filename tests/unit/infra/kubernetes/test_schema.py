"""Every rendered manifest is what Kubernetes' own schema says, in the oldest version that we support and a new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest

Rendered = Callable[[str], list[dict[str, Any]]]


@pytest.mark.parametrize("version", ["1.30", "1.34"])
@pytest.mark.parametrize("environment", ["staging", "production", "cluster"])
def test_manifests_follow_the_schema(environment: str, version: str, rendered: Rendered) -> None:
    for manifest in rendered(environment):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_catches_a_misspelt_field(rendered: Rendered) -> None:
    manifest = next(made for made in rendered("staging") if made["kind"] == "Service")
    manifest["spec"]["selektor"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="selektor"):
        kubernetes_validate.validate(manifest, "1.30", strict=True)
