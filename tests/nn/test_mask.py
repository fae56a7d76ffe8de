"""Masks against a predicate written out per pair of query and key."""

from itertools import product

import pytest
import torch

from zoo.nn.mask import Mask

B, KEYS = 2, 7
LEFT = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]).bool()
RIGHT = torch.tensor([[1] * 7, [1, 1, 1, 1, 0, 0, 0]]).bool()
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0] * 7])
PREFIX = torch.tensor([3, 1])
CPU = torch.device("cpu")


def sees(mask: Mask, b: int, query: int, key: int) -> bool:
    """The rules in words: a real key, of the same segment, not after the query unless in the
    prefix (counted in real tokens), and within the window."""
    if mask.padding is not None and not mask.padding[b, key]:
        return False
    if mask.segments is not None and mask.segments[b, query] != mask.segments[b, key]:
        return False
    if mask.causal and key > query:
        before = key if mask.padding is None else int(mask.padding[b, :key].sum())
        if mask.prefix is None or before >= mask.prefix[b]:
            return False
    if mask.window is not None:
        distance = query - key if mask.causal else abs(query - key)
        if distance >= mask.window:
            return False
    return mask.dense is None or bool(mask.dense[min(b, len(mask.dense) - 1), 0, query, key])


RULES = {
    "causal": [False, True],
    "window": [None, 3],
    "prefix": [None, PREFIX],
    "padding": [None, LEFT, RIGHT],
    "segments": [None, SEGMENTS],
}


@pytest.mark.parametrize("values", list(product(*RULES.values())), ids=str)
def test_matrix_is_the_predicate(values):
    mask = Mask(**dict(zip(RULES, values)))
    matrix = mask.matrix(KEYS, KEYS, CPU)
    expected = torch.tensor(
        [[[sees(mask, b, q, k) for k in range(KEYS)] for q in range(KEYS)] for b in range(B)]
    )
    if matrix is None:
        assert expected.all()
    else:
        assert matrix.dtype == torch.bool
        assert torch.equal(matrix.expand(B, 1, KEYS, KEYS)[:, 0], expected)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("values", list(product(*RULES.values())), ids=str)
def test_queries_are_the_last_keys(values, queries):
    mask = Mask(**dict(zip(RULES, values)))
    whole, part = mask.matrix(KEYS, KEYS, CPU), mask.matrix(queries, KEYS, CPU)
    if whole is None:
        assert part is None
    else:
        whole = whole.expand(B, 1, KEYS, KEYS)[:, :, -queries:]
        assert torch.equal(part.expand(B, 1, queries, KEYS), whole)


def test_dense_joins_the_other_rules():
    dense = torch.rand(B, 1, KEYS, KEYS) > 0.5
    mask = Mask(causal=True, dense=dense)
    expected = dense & torch.ones(KEYS, KEYS, dtype=torch.bool).tril()
    assert torch.equal(mask.matrix(KEYS, KEYS, CPU), expected)


def test_a_bias_becomes_minus_infinity_where_nothing_may_be_seen():
    bias = torch.randn(1, 4, KEYS, KEYS)
    found = Mask(causal=True).matrix(KEYS, KEYS, CPU, bias)
    seen = torch.ones(KEYS, KEYS, dtype=torch.bool).tril()
    assert torch.equal(found, bias.masked_fill(~seen, float("-inf")))
    assert Mask().matrix(KEYS, KEYS, CPU, bias) is bias
    assert Mask().matrix(KEYS, KEYS, CPU) is None


def test_a_second_bias_is_not_mistaken_for_the_first():
    mask = Mask(causal=True)
    for _ in range(2):
        bias = torch.randn(1, 4, KEYS, KEYS)
        found = mask.matrix(KEYS, KEYS, CPU, bias)
        assert torch.equal(found.isinf(), ~torch.ones(4, KEYS, KEYS).tril().bool()[None])
        assert torch.equal(found[~found.isinf()], bias[~found.isinf()])


def test_matrices_are_worked_out_once():
    mask = Mask(causal=True, padding=LEFT)
    assert mask.matrix(KEYS, KEYS, CPU) is mask.matrix(KEYS, KEYS, CPU)
    bias = torch.randn(1, 4, KEYS, KEYS)
    assert mask.matrix(KEYS, KEYS, CPU, bias) is mask.matrix(KEYS, KEYS, CPU, bias)
    assert mask.windowed(3) is mask.windowed(3)
    assert mask.windowed(3) is not mask.windowed(4)


def test_also_forgets_what_was_worked_out():
    mask = Mask(causal=True)
    mask.matrix(KEYS, KEYS, CPU)
    assert mask.also(causal=False).matrix(KEYS, KEYS, CPU) is None
    assert mask.also(window=2).matrix(KEYS, KEYS, CPU).sum() == 2 * KEYS - 1


@pytest.mark.parametrize(
    ("mask", "rules"),
    [
        (Mask(), set()),
        (Mask(causal=True), {"causal"}),
        (Mask(causal=True, prefix=PREFIX), {"causal", "prefix"}),
        (Mask(window=2, padding=LEFT), {"window", "padding"}),
        (Mask(segments=SEGMENTS, dense=torch.ones(1, 1, 1, 1)), {"segments", "dense"}),
    ],
)
def test_rules_names_what_is_set(mask, rules):
    assert mask.rules == rules
