"""Folders that other libraries saved, made once a session."""

from functools import cache

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Returns the folder that transformers saved a decoder of a family to."""
    from tests.weights.formats.decoders import reference

    @cache
    def saved(family, odd):
        path = tmp_path_factory.mktemp("saved")
        reference(family, odd).save_pretrained(path)
        return path

    return saved


@pytest.fixture(scope="session")
def ours(folder):
    """Returns our model of such a folder."""
    import zoo

    return cache(lambda family, odd: zoo.load(f"dir:{folder(family, odd)}"))
