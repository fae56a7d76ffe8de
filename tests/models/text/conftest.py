"""The folders that transformers saved, shared with the tests of formats."""

from tests.weights.formats.conftest import folder, ours

__all__ = ["folder", "ours"]
