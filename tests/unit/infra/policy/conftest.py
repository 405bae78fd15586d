"""The rendered environments, shared with the tests of the renderer."""

from tests.unit.infra.kubernetes.conftest import rendered

__all__ = ["rendered"]
