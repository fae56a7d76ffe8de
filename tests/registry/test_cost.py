"""What looking costs. The bounds are about ten times what it takes: they notice a file that is read
for every name, or a schema that is resolved twice for every part."""

import time

import zoo
from zoo.registry import forget, resolve, to_mapping


def cost(function, times=20):
    """Returns the processor time of one call in milliseconds, the best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(times):
            function()
        best = min(best, time.process_time() - start)
    return 1000 * best / times


def test_a_node_is_resolved_in_milliseconds():
    zoo.config("vit-digits")  # imports the schemas
    assert cost(lambda: zoo.config("vit-digits", "backbone.depth=3")) < 5


def test_a_stored_config_is_resolved_in_milliseconds():
    stored = to_mapping(zoo.config("vit-digits"))
    assert cost(lambda: resolve("model", stored, stored=True)) < 5


def test_listing_walks_the_folders_once():
    def anew():
        forget()
        zoo.list()

    assert cost(anew, 3) < 60
    assert cost(zoo.list) < 2
