"""Each step: what it does to known numbers, that it undoes itself, and that shapes are foretold."""

from __future__ import annotations

import pytest
import torch

from zoo.weights.steps import (
    Add,
    FromHeadGroups,
    HalfSplit,
    Inverse,
    Leading,
    Misfit,
    OnFirst,
    Reorder,
    Reshape,
    Scale,
    Squeeze,
    Transpose,
)

CASES = [
    (Transpose(), (4, 6)),
    (Transpose(1, 2), (2, 3, 5)),
    (Reshape((4, 2, 3), (4, 6)), (4, 2, 3)),
    (Squeeze(2, 3), (5, 4, 1, 1)),
    (Squeeze(0), (1, 7)),
    (Squeeze(0, 2), (1, 3, 1)),
    (HalfSplit(2, 6), (12, 5)),
    (HalfSplit(2, 6), (12,)),
    (HalfSplit(3, 8, rotary=4), (24, 2)),
    (FromHeadGroups(4, 3), (36, 5)),
    (FromHeadGroups(4, 3), (36,)),
    (FromHeadGroups(6, 2, kv_heads=2), (20, 3)),
    (FromHeadGroups(6, 2, kv_heads=1), (16,)),
    (Reorder((3, 3), (1, 0)), (6, 5)),
    (Reorder((3, 4, 1), (2, 0, 1)), (8,)),
    (Scale(0.5), (3, 3)),
    (Inverse(Squeeze(0)), (4, 3)),
    (Inverse(HalfSplit(2, 4)), (8, 2)),
    (OnFirst(8, HalfSplit(2, 4)), (13, 2)),
]


@pytest.mark.parametrize(("step", "shape"), CASES, ids=lambda item: type(item).__name__)
def test_backward_undoes_forward_and_shapes_are_foretold(step, shape):
    torch.manual_seed(0)
    theirs = torch.randn(shape)
    before = theirs.clone()
    ours = step.forward(theirs)
    assert tuple(ours.shape) == step.forward_shape(shape)
    assert step.backward_shape(tuple(ours.shape)) == shape
    assert torch.equal(step.backward(ours), before)
    assert torch.equal(theirs, before), "the stored tensor must not change"
    if step.copies and not isinstance(step, Transpose):
        assert ours.data_ptr() != theirs.data_ptr()


def test_half_split_order():
    rows = torch.arange(8)  # two heads, pairs (0 1)(2 3) and (4 5)(6 7)
    assert HalfSplit(2, 4).forward(rows).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert HalfSplit(1, 8, rotary=4).forward(rows).tolist() == [0, 2, 1, 3, 4, 5, 6, 7]


def test_half_split_turns_interleaved_rotation_into_ours():
    """q.k of vectors rotated pairwise = q.k of the permuted vectors rotated half against half."""
    torch.manual_seed(0)
    size, angle = 6, torch.tensor([0.3, 1.1, 2.0])
    q, k = torch.randn(size), torch.randn(size)

    def pairwise(x: torch.Tensor, position: int) -> torch.Tensor:
        pairs = torch.view_as_complex(x.view(-1, 2).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones(3), angle * position)).flatten()

    def halves(x: torch.Tensor, position: int) -> torch.Tensor:
        cos, sin = torch.cos(angle * position), torch.sin(angle * position)
        a, b = x.chunk(2)
        return torch.cat([a * cos - b * sin, b * cos + a * sin])

    expected = pairwise(q, 2) @ pairwise(k, 5)
    step = HalfSplit(1, size)
    torch.testing.assert_close(halves(step.forward(q), 2) @ halves(step.forward(k), 5), expected)


def test_head_groups_order():
    """Rows are named by (head, which, row); ours are all q, all k, all v."""
    bloom = torch.tensor([[h * 100 + w * 10 + e for w in range(3) for e in (0, 1)] for h in (0, 1)])
    assert FromHeadGroups(2, 2).forward(bloom.flatten()).tolist() == [
        0, 1, 100, 101, 10, 11, 110, 111, 20, 21, 120, 121,
    ]  # fmt: skip
    # four query heads, two key/value heads, width 1: q0 q1 k0 v0 | q2 q3 k1 v1
    falcon = torch.tensor([0, 1, 10, 20, 2, 3, 11, 21])
    assert FromHeadGroups(4, 1, kv_heads=2).forward(falcon).tolist() == [0, 1, 2, 3, 10, 11, 20, 21]


def test_add():
    stored = torch.tensor([0.5, -0.25, 0.0])
    ours = Add(1.0).forward(stored)
    assert ours.tolist() == [1.5, 0.75, 1.0]
    assert torch.equal(Add(1.0).backward(ours), stored)


@pytest.mark.parametrize(
    ("step", "shape", "words"),
    [
        (Transpose(), (4,), "no dimension 1"),
        (Reshape((4, 2), (8,)), (2, 4), "should be"),
        (Squeeze(2), (4, 3, 3), "size 1 in dimension 2"),
        (Squeeze(2), (4, 3), "size 1 in dimension 2"),
        (HalfSplit(2, 4), (9, 2), "2 x 4 rows"),
        (FromHeadGroups(2, 4), (8,), "rows"),
        (Inverse(Reshape((4, 2), (8,))), (4, 2), "should be"),
    ],
)
def test_misfits(step, shape, words):
    with pytest.raises(Misfit, match=words):
        step.forward_shape(shape)


def test_leading_rows_keep_what_is_read():
    table = torch.arange(10.0).view(5, 2)
    step = Leading(4, 5)
    assert torch.equal(step.forward(table), table[:4]) and step.forward_shape((5, 2)) == (4, 2)
    assert step.backward_shape((4, 2)) == (5, 2)
    assert torch.equal(step.backward(table[:4]), torch.cat([table[:4], torch.zeros(1, 2)]))
    with pytest.raises(Misfit, match="should have 5 rows"):
        step.forward_shape((6, 2))
    with pytest.raises(Misfit, match="should have 4 rows"):
        step.backward_shape((5, 2))
