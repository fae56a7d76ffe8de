"""XLNet's two streams: what each place can know, memory, swapped parts."""

# b batch, n tokens, p predicted places

import pytest
import torch
from torch.nn import functional as F

import zoo

TINY = {"vocabulary": 53, "backbone": {"depth": 2, "width": 32, "attention": {"heads": 4}}}


def tiny(*overrides, **keys):
    return zoo.create("xlnet-base-cased", TINY, *overrides, seed=0, **keys).eval()


def order_of(rank):
    """Returns the mask of an order (b n n): nobody sees what comes later, nor itself."""
    return rank[:, None, :] >= rank[:, :, None]


@torch.no_grad()
def test_a_place_is_predicted_blind():
    """A changed token changes nothing at its own place nor at any earlier in the order, and
    something at every later one."""
    model = tiny()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 53, (1, 9), generator=generator)
    rank = torch.randperm(9, generator=generator)[None]
    order, targets = order_of(rank), torch.eye(9)[None]
    before = model(tokens, order=order, targets=targets).logits
    for place in range(9):
        changed = tokens.clone()
        changed[0, place] = (tokens[0, place] + 1) % 53
        after = model(changed, order=order, targets=targets).logits
        same = (before == after).all(-1)[0]
        assert torch.equal(same, rank[0] <= rank[0, place])
    # the content stream does see its own token
    content = model(tokens, order=order).hidden
    assert not torch.equal(content[0, place], model(changed, order=order).hidden[0, place])


@torch.no_grad()
def test_a_place_that_may_see_nothing_learns_nothing():
    """The first of an order without memory: the same whatever the text says."""
    model = tiny()
    order = order_of(torch.arange(5)[None])
    first = torch.eye(5)[None, :1]
    one = model(torch.full((1, 5), 7), order=order, targets=first).logits
    other = model(torch.full((1, 5), 9), order=order, targets=first).logits
    assert torch.equal(one, other) and one.isfinite().all()


@torch.no_grad()
def test_gradients_are_blind_too():
    model = tiny()
    rank = torch.tensor([[2, 0, 3, 1]])
    with torch.enable_grad():
        vectors = model.embedding(torch.tensor([[7, 8, 9, 10]])).detach().requires_grad_()
        model.embedding.forward = lambda _: vectors
        tokens = torch.tensor([[7, 8, 9, 10]])
        model(tokens, order=order_of(rank), targets=torch.eye(4)[None]).logits[
            0, 3
        ].sum().backward()
    assert torch.equal(vectors.grad[0].abs().sum(-1) > 0, rank[0] < rank[0, 3])


@torch.no_grad()
def test_memory_of_everything_is_one_text():
    """Causal, with a memory of all: two halves give what the whole gives."""
    model = tiny("memory=64", "causal=true")
    tokens = torch.randint(5, 53, (2, 10), generator=torch.Generator().manual_seed(1))
    whole = model(tokens).logits
    first = model(tokens[:, :6])
    second = model(tokens[:, 6:], memory=first.memory)
    assert (whole[:, :6] - first.logits).abs().max() < 1e-5
    assert (whole[:, 6:] - second.logits).abs().max() < 1e-5
    assert all(kept.shape == (2, 10, 32) and not kept.requires_grad for kept in second.memory)


def test_without_memory_none_is_kept():
    assert tiny()(torch.ones(1, 3, dtype=torch.long)).memory is None


@pytest.mark.parametrize(
    "swap",
    [
        "backbone.position=rope",
        "backbone.position=alibi",
        "backbone.position=learned backbone.length=32",
        "backbone.position=sinusoidal",
        "backbone.position=t5",
        "backbone.position={name: t5, per_layer: true}",
        "backbone.position={name: shaw, values: false}",
        "backbone.position=none",
        "backbone.norm=rms",
        "backbone.placement=pre backbone.final_norm=true",
        "backbone.embedding_norm=true",
        "backbone.feedforward=swiglu",
        "backbone.attention.kv_heads=1",
        "backbone.attention.kernel=plain",
    ],
)
def test_swapped_parts_train_and_stay_blind(swap):
    overrides = [swap] if "{" in swap else swap.split()
    model = zoo.create("xlnet-base-cased", TINY, *overrides, seed=0)
    tokens = torch.randint(5, 53, (2, 9), generator=torch.Generator().manual_seed(2))
    rank = torch.stack(
        [torch.randperm(9, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    )
    order, targets = order_of(rank), torch.eye(9).expand(2, 9, 9)
    model.eval()
    logits = model(tokens, order=order, targets=targets).logits
    changed = tokens.clone()
    changed[0, 4] = (tokens[0, 4] + 1) % 53
    same = (model(changed, order=order, targets=targets).logits == logits).all(-1)[0]
    assert torch.equal(same, rank[0] <= rank[0, 4])
    model.train()
    loss = train_one_step(model, lambda: model(tokens, order=order, targets=targets).logits, tokens)
    assert loss[1] < loss[0]


def train_one_step(model, scores, answers):
    """Returns the loss before and after a step; every parameter has a gradient."""
    losses = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        torch.manual_seed(0)  # the same dropout
        loss = F.cross_entropy(scores().flatten(0, 1), answers.flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    without = [k for k, p in model.named_parameters() if p.grad is None]
    # nothing was said of segments
    assert all("segment" in name for name in without), without
    return losses


def test_positions_in_the_values_are_refused():
    with pytest.raises(zoo.errors.ConfigError, match=r"position\.values=false"):
        tiny("backbone.position=shaw")
