"""Caches: what goes in comes out in order, through growth, undoing, choosing rows and copies."""

# b batch, g key heads, n tokens, c channels of a head

import pytest
import torch

from zoo.errors import ConfigError
from zoo.nn.cache import DynamicCache, Int8Cache, SlidingCache, StaticCache, quantise
from zoo.nn.paged import PagedCache, PagePool

B, G, C, LAYERS = 3, 2, 4, 2
KINDS = {
    "dynamic": DynamicCache,
    "static": lambda: StaticCache(200),
    "sliding": lambda: SlidingCache(200),  # a window that nothing leaves
    "int8": Int8Cache,
    "paged": lambda: PagedCache(PagePool(100, 4, LAYERS, G, C), B),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def tensors(tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, G, tokens, C, generator=generator) for _ in range(2)]


def step(cache, tokens, seed):
    """Adds tokens to every layer; returns what was added and what came back, (layer, k or v)."""
    if isinstance(cache, PagedCache):
        cache.begin(tokens)
    added = [tensors(tokens, seed * LAYERS + layer) for layer in range(LAYERS)]
    return added, [cache.append(layer, *added[layer]) for layer in range(LAYERS)]


def joined(*parts):
    """Several steps' tensors one after another, by layer and k or v."""
    return [[torch.cat(ts, 2) for ts in zip(*layers)] for layers in zip(*parts)]


def check(cache, found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        for got, given in zip(ours, theirs, strict=True):
            if isinstance(cache, Int8Cache):  # half a step of the largest number of a row
                bound = given.abs().amax(-1, keepdim=True) / 127 * 0.51
                assert ((got - given).abs() <= bound).all()
            else:
                assert torch.equal(got, given)


@every_kind
def test_append_returns_everything_so_far(kind):
    cache, parts = KINDS[kind](), []
    assert cache.length == 0
    for seed, tokens in enumerate((5, 1, 1, 70, 2)):  # 70 outgrows the first room
        added, found = step(cache, tokens, seed)
        parts.append(added)
        check(cache, found, joined(*parts))
        assert cache.length == sum(p[0][0].shape[2] for p in parts)


@every_kind
def test_rewinding_forgets_the_last_tokens(kind):
    cache = KINDS[kind]()
    first, _ = step(cache, 9, 0)
    step(cache, 4, 1)
    cache.rewind(6)
    assert cache.length == 6
    again, found = step(cache, 3, 2)
    kept = [[t[:, :, :6] for t in layer] for layer in first]
    check(cache, found, joined(kept, again))
    cache.rewind(100)  # no further than there is
    assert cache.length == 9


@every_kind
def test_selecting_rows_reorders_repeats_and_leaves_out(kind):
    cache = KINDS[kind]()
    first, _ = step(cache, 5, 0)
    cache.keep_memory(0, torch.arange(B)[:, None], -torch.arange(B)[:, None])
    rows = torch.tensor([2, 0, 0])
    cache.select(rows)
    again, found = step(cache, 2, 1)
    chosen = [[t[rows] for t in layer] for layer in first]
    check(cache, found, joined(chosen, again))
    k, v = cache.memory(0)
    assert k[:, 0].tolist() == [2, 0, 0] and v[:, 0].tolist() == [-2, 0, 0]


@every_kind
def test_a_fork_goes_its_own_way(kind):
    cache = KINDS[kind]()
    first, _ = step(cache, 5, 0)
    other = cache.fork()
    mine, found = step(cache, 2, 1)
    check(cache, found, joined(first, mine))
    theirs, found = step(other, 3, 2)
    check(other, found, joined(first, theirs))
    assert (cache.length, other.length) == (7, 8)


@every_kind
def test_freeing_empties(kind):
    cache = KINDS[kind]()
    step(cache, 5, 0)
    assert cache.nbytes > 0
    cache.free()
    assert (cache.length, cache.nbytes) == (0, 0)


@every_kind
def test_memories_are_kept_once_and_are_no_past(kind):
    cache = KINDS[kind]()
    assert cache.memory(0) is None
    k, v = tensors(4, 0)
    cache.keep_memory(0, k, v)
    assert cache.memory(0)[0] is k and cache.memory(0)[1] is v
    assert cache.memory(1) is None
    assert cache.length == 0


def test_within_a_step_the_length_is_what_all_layers_have():
    cache = DynamicCache()
    step(cache, 3, 0)
    cache.append(0, *tensors(1, 9))
    assert cache.length == 3
    cache.append(1, *tensors(1, 9))
    assert cache.length == 4


def test_a_dynamic_cache_holds_at_most_twice_its_content():
    cache = DynamicCache()
    step(cache, 100, 0)
    content = 100 * LAYERS * 2 * B * G * C * 4
    assert content <= cache.nbytes <= 2 * content


def test_a_static_cache_never_moves_and_says_when_it_is_full():
    cache = StaticCache(8)
    _, found = step(cache, 3, 0)
    address, size = found[0][0].data_ptr(), cache.nbytes
    assert size == 8 * LAYERS * 2 * B * G * C * 4
    _, found = step(cache, 5, 1)
    assert found[0][0].data_ptr() == address and cache.nbytes == size
    with pytest.raises(ConfigError, match="holds 8 tokens and 9 are asked for"):
        step(cache, 1, 2)


def test_a_sliding_cache_keeps_what_a_window_can_see():
    cache, parts = SlidingCache(4), []
    for seed in range(40):
        added, found = step(cache, 1 + seed % 3, seed)
        parts.append(added)
        new = added[0][0].shape[2]
        whole = joined(*parts)
        check(cache, found, [[t[:, :, -(3 + new) :] for t in layer] for layer in whole])
        assert cache.length == whole[0][0].shape[2]
    assert max(k.shape[2] for k, _ in cache.buffers.values()) <= DynamicCache.FIRST
    cache.rewind(cache.length - 2)
    assert cache.length == whole[0][0].shape[2] - 2
    with pytest.raises(ConfigError, match="sliding cache of 4 tokens cannot go back to token 3"):
        cache.rewind(3)


def test_quantising_is_within_half_a_step():
    x = torch.randn(50, 16) * torch.logspace(-3, 3, 50)[:, None]
    numbers, scale = quantise(x)
    assert numbers.dtype == torch.int8 and numbers.abs().max() == 127
    assert ((numbers * scale - x).abs() <= scale * 0.501).all()
    numbers, scale = quantise(torch.zeros(2, 4))
    assert not (numbers * scale).any()


def test_an_int8_cache_costs_a_third_of_fp32():
    small, full = Int8Cache(), DynamicCache()
    wide = [torch.randn(B, G, 64, 64) for _ in range(2)]
    small.append(0, *wide), full.append(0, *wide)
    assert small.nbytes < 0.3 * full.nbytes


def test_pages_are_shared_until_they_are_written_to():
    pool = PagePool(60, 4, LAYERS, G, C)
    cache = PagedCache(pool, B)
    first, _ = step(cache, 10, 0)
    assert pool.used == 3 * B
    other = cache.fork()
    assert pool.used == 3 * B  # nothing was copied
    theirs, found = step(other, 1, 1)
    assert pool.used == 4 * B  # the last pages, half filled, were
    check(other, found, joined(first, theirs))
    mine, found = step(cache, 1, 2)
    assert pool.used == 4 * B  # and are now each one's own
    check(cache, found, joined(first, mine))
    cache.free()
    other.free()
    assert pool.used == 0


def test_a_full_pool_says_so():
    cache = PagedCache(PagePool(6, 4, LAYERS, G, C), B)
    step(cache, 8, 0)
    with pytest.raises(ConfigError, match="finish a request or make the pool larger"):
        step(cache, 1, 1)
