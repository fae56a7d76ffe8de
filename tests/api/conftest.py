"""The hub of the hub's own tests."""

from tests.hub.conftest import api, environment, hub, start_hub

__all__ = ["api", "environment", "hub", "start_hub"]
