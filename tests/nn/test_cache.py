"""Caches: what goes in comes out, in order."""

import torch

from zoo.nn.cache import DynamicCache


def pair(tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, tokens, 4, generator=generator) for _ in range(2)]


def test_append_returns_everything_so_far():
    cache = DynamicCache()
    assert cache.length == 0
    first, second = pair(5, 0), pair(1, 1)
    for kept, given in zip(cache.append(0, *first), first):
        assert torch.equal(kept, given)
    k, v = cache.append(0, *second)
    assert torch.equal(k, torch.cat([first[0], second[0]], 2))
    assert torch.equal(v, torch.cat([first[1], second[1]], 2))
    assert cache.length == 6


def test_layers_are_apart_and_length_is_what_all_have_seen():
    cache = DynamicCache()
    cache.append(0, *pair(3, 0))
    k, _ = cache.append(1, *pair(3, 1))
    assert torch.equal(k, pair(3, 1)[0])
    cache.append(0, *pair(1, 2))  # within a step: layer 1 has not run yet
    assert cache.length == 3
    cache.append(1, *pair(1, 3))
    assert cache.length == 4


def test_memories_are_kept_once():
    cache = DynamicCache()
    assert cache.memory(0) is None
    k, v = pair(4, 0)
    cache.keep_memory(0, k, v)
    assert cache.memory(0)[0] is k and cache.memory(0)[1] is v
    assert cache.memory(1) is None
    assert cache.length == 0  # the memory is no past of the stack
