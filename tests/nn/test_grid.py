"""Rules on grids against their words, and tables of axes against sums written out."""

import pytest
import torch

from zoo.errors import ConfigError
from zoo.models.base import initialise
from zoo.nn.grid import GridRule
from zoo.nn.mask import Mask
from zoo.nn.position import Geometry, Where
from zoo.registry import build, resolve

CPU = torch.device("cpu")
GRID, PREFIX = (4, 5), 3
N = PREFIX + 20


def sees(pattern: str, size: int, query: int, key: int) -> bool:
    if key < PREFIX or query < PREFIX:
        return True
    (r, c), (s, d) = divmod(query - PREFIX, 5), divmod(key - PREFIX, 5)
    if pattern == "row":  # back to its own column of the row before, in raster order
        return abs(query - key) <= 5
    if pattern == "column":
        return c == d
    return abs(r - s) <= size // 2 and abs(c - d) <= size // 2


@pytest.mark.parametrize("pattern", ["row", "column", "convolution"])
def test_a_rule_is_its_words_and_reads_the_same_with_a_cache(pattern):
    mask = Mask(causal=True).on_grid(GridRule(pattern, 3, GRID, PREFIX))
    whole = mask.matrix(N, N, CPU)[0, 0]
    expected = [[sees(pattern, 3, q, k) and k <= q for k in range(N)] for q in range(N)]
    assert torch.equal(whole, torch.tensor(expected))
    for length in (1, PREFIX + 1, N):  # one query after `length` - 1 keys in the cache
        assert torch.equal(mask.matrix(1, length, CPU)[0, 0], whole[length - 1 : length, :length])


def axial(grid=GRID, prefix=PREFIX, **config):
    part = resolve("position", {"name": "learned-axial", **config})
    return initialise(build(part, geometry=Geometry(8, 2, 4, grid=grid, prefix=prefix)))


def test_axes_add_up_and_steps_read_their_own_place():
    position, x = axial(), torch.randn(2, N, 8)
    whole = position.embed(x, Where(torch.arange(N)[None], torch.arange(N)[None], GRID, PREFIX))
    rows, columns = position.axes
    for place in range(PREFIX, N):
        r, c = divmod(place - PREFIX, 5)
        assert torch.allclose(whole[:, place], x[:, place] + rows[r] + columns[c], atol=1e-6)
        one = Where(torch.tensor([[place]]), torch.arange(place + 1)[None], GRID, PREFIX, place)
        assert torch.equal(
            position.embed(x[:, place : place + 1], one), whole[:, place : place + 1]
        )
    assert torch.allclose(whole[:, :PREFIX], x[:, :PREFIX] + position.before)


def test_a_smaller_grid_reads_the_first_rows_and_a_larger_one_is_refused():
    position, x = axial(grid=(3, 2, 2), prefix=0), torch.zeros(1, 4, 8)
    places = torch.arange(4)[None]
    frame = position.embed(x, Where(places, places, (1, 2, 2), 0))
    clip = position.embed(
        torch.zeros(1, 12, 8), Where(torch.arange(12)[None], torch.arange(12)[None], (3, 2, 2), 0)
    )
    assert torch.equal(frame, clip[:, :4])
    with pytest.raises(
        ConfigError, match=r"grid of \(4, 2, 2\) codes is more than the \(3, 2, 2\)"
    ):
        position.embed(torch.zeros(1, 16, 8), Where(torch.arange(16)[None], places, (4, 2, 2), 0))


def test_rotary_angles_of_a_step_are_those_of_the_whole():
    part = resolve("position", {"name": "rope-grid", "before": "blank"})
    position = build(part, geometry=Geometry(16, 2, 8, grid=GRID, prefix=PREFIX))
    where = Where(torch.arange(N)[None], torch.arange(N)[None], GRID, PREFIX)
    cos, sin = position.angles(where, torch.float32)
    assert not cos[:, :, :PREFIX].any() and not sin[:, :, :PREFIX].any()
    step = Where(torch.tensor([[7]]), torch.arange(8)[None], GRID, PREFIX, 7)
    one = position.angles(step, torch.float32)
    assert torch.equal(one[0], cos[:, :, 7:8]) and torch.equal(one[1], sin[:, :, 7:8])
