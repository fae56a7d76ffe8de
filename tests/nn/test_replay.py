"""Steps that are played against steps that are called; and all that must not be played on."""

import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.generation.conftest import FAMILIES, make
from tests.generation.test_equal import pool
from tests.generation.test_speculative import seq2seq
from zoo.models.text.steps import CausalSteps, Seq2SeqSteps
from zoo.nn import native
from zoo.nn.attention import Record
from zoo.nn.cache import DynamicCache, Int8Cache, SlidingCache, StaticCache
from zoo.nn.forms import freeze, prepare
from zoo.nn.paged import PagedCache, Sequence
from zoo.nn.replay import Made

pytestmark = pytest.mark.skipif(
    native.library() is None, reason="no C compiler was found when zoo was installed"
)
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


class Steps:
    """One token after the other through a model, beside a twin that plays none."""

    def __init__(self, model, twin, cache=DynamicCache, rows=1):
        self.models, self.rows = (model, twin), rows
        twin.backbone.replays.on = False
        self.caches = tuple(cache() for _ in range(2))
        self.run(torch.tensor([PROMPT] * rows))

    def run(self, tokens, mask=None):
        found, exact = (
            model(tokens, mask, cache=cache).logits
            for model, cache in zip(self.models, self.caches, strict=True)
        )
        bound = 1e-5 if found.dtype == torch.float32 else 3e-2
        assert (found - exact).abs().max() <= bound * exact.abs().max()
        for ours, theirs in zip(*(cache.buffers.values() for cache in self.caches), strict=True):
            n = self.caches[0].length
            for mine, other in zip(ours, theirs, strict=True):
                gap = (mine[:, :, :n] - other[:, :, :n]).abs().max()
                assert gap <= bound * other[:, :, :n].abs().max()
        assert self.caches[0].length == self.caches[1].length

    def go(self, count, **given):
        for index in range(count):
            self.run(torch.tensor([[7 + index % 5]] * self.rows), **given)
        return self


def plays(model):
    """Returns whether the last kind of step is played now, proven."""
    *_, last = model.backbone.replays.values()
    return last.proven and last.tape is not None


def pair(family="gpt", **size):
    return make(family, **size), make(family, **size)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, rows):
    model, twin = pair(family)
    Steps(model, twin, rows=rows).go(70)  # the cache grows on the way
    assert plays(model)


@torch.inference_mode()
@pytest.mark.parametrize("form", ["bf16", "int8", "fp32"])
def test_forms(form):
    models = pair("llama", width=128)
    for model in models:
        if form == "bf16":
            freeze(model.bfloat16(), "packed")
        if form == "int8":
            freeze(model, "int8")
        prepare(model, 1)
    Steps(*models).go(9)
    assert plays(models[0])


@torch.inference_mode()
def test_memories_of_any_length():
    model, twin = (seq2seq() for _ in range(2))
    twin.decoder.replays.on = False
    for length in (5, 19, 5):
        source = torch.randint(37, (1, length), generator=torch.Generator().manual_seed(length))
        ours, theirs = (Seq2SeqSteps(m, source, torch.ones_like(source)) for m in (model, twin))
        for token in range(20, 30):
            found, exact = (steps.step(torch.tensor([[token]])) for steps in (ours, theirs))
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
    *_, last = model.decoder.replays.values()
    assert last.proven and last.tape is not None


@torch.inference_mode()
@pytest.mark.parametrize("cache", [StaticCache, SlidingCache, Int8Cache])
def test_caches_of_every_kind(cache):
    arguments = {StaticCache: (90,), SlidingCache: (12,), Int8Cache: ()}[cache]
    model = make("window")
    ours, theirs = cache(*arguments), cache(*arguments)
    for tokens in (PROMPT, *([7 + i % 5] for i in range(40))):
        given = torch.tensor([tokens])
        found = model(given, cache=ours).logits
        model.backbone.replays.on = False
        assert torch.allclose(found, model(given, cache=theirs).logits, atol=1e-5)
        model.backbone.replays.on = True
    played = any(one.tape is not None for one in model.backbone.replays.values())
    assert played == (cache is StaticCache)


@torch.inference_mode()
@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_of_a_pool_join_and_leave(family):
    model, twin = pair(family)
    twin.backbone.replays.on = False
    pools = [pool(one) for one in (model, twin)]
    caches = [PagedCache(one, []) for one in pools]
    sequences = [[Sequence(one) for one in pools] for _ in range(4)]
    for both in sequences[1:]:  # pages of the first are taken as it grows, among those of others
        for sequence in both:
            sequence.reserve(80)
    texts = [PROMPT[: 2 + 2 * i] for i in range(4)]
    for present, steps in [((0, 1), 5), ((0, 1, 2), 20), ((3, 1), 30), ((3,), 4)]:
        for which, cache in enumerate(caches):
            cache.sequences = [sequences[i][which] for i in present]
        new = [texts[i] if sequences[i][0].length == 0 else [5] for i in present]
        for step in range(steps):
            found, exact = (
                CausalSteps(one, cache=cache).read(new)
                if any(len(text) > 1 for text in new)
                else CausalSteps(one, cache=cache).step(torch.tensor(new))
                for one, cache in zip((model, twin), caches, strict=True)
            )
            assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()
            new = [[step % 9 + row] for row in range(len(present))]
    looks_back = family in ("bloom", "t5-bias")  # whose bias is of all sequences together
    assert looks_back or plays(model)


# -- what changes ----------------------------------------------------------------------------------


def _in_place(model):
    model.backbone.layers[0].attention.qkv.weight.mul_(1.1)


def _norm(model):
    model.backbone.layers[1].feedforward_norm.weight.add_(0.3)


def _another_part(model):
    layer = model.backbone.layers[0]
    layer.feedforward = nn.Sequential(layer.feedforward, nn.Softmax(-1))


def _another_parameter(model):
    norm = model.backbone.layers[1].attention_norm
    norm.weight = nn.Parameter(2 * norm.weight)


def _moved(model):
    for parameter in model.parameters():
        parameter.data = parameter.data.clone() * 1.1


def _cast(model):
    model.double().float()


def _frozen(model):
    freeze(model.bfloat16().float(), "int8")


def _hooked(model):
    model.backbone.layers[1].register_forward_hook(lambda module, given, y: 0.5 * y)


def _scale(model):
    model.backbone.layers[0].attention.scale *= 3


def _window(model):
    model.backbone.layers[1].attention.window = 3


def _own_forward(model):
    norm = model.backbone.layers[1].attention_norm
    inner = norm.forward
    norm.forward = lambda x: 2 * inner(x)


def _bias(model):
    out = model.backbone.layers[0].attention.out
    out.bias = nn.Parameter(torch.ones(out.weight.shape[0]))


def _buffer(model):
    norm = model.backbone.layers[0].attention_norm
    norm.register_buffer("more", torch.tensor(2.0))


def _one_storage(model):
    """All parameters in one piece of memory, of which one moves."""
    parameters = list(model.parameters())
    whole = torch.cat([p.detach().flatten() for p in parameters])
    for p, piece in zip(parameters, whole.split([p.numel() for p in parameters]), strict=True):
        p.data = piece.view(p.shape)


def _moved_norm(model):
    weight = model.backbone.layers[1].attention_norm.weight
    weight.data = 3 * weight.data


def _threads(model):
    torch.set_num_threads(1 + torch.get_num_threads())


IN_A_TEXT = (_in_place, _norm, _hooked, _threads)  # looked at in every step
BETWEEN = (_another_part, _another_parameter, _moved, _cast, _frozen, _bias, _one_storage)
BETWEEN += (_moved_norm, _scale, _window, _own_forward, _buffer)  # when a text begins


@torch.no_grad()
@pytest.mark.parametrize("first", [None, _norm, _one_storage])
@pytest.mark.parametrize("change", [*IN_A_TEXT, *BETWEEN])
def test_a_model_that_was_changed_is_not_played_as_it_was(change, first):
    before = torch.get_num_threads()
    models = pair("llama", width=512)  # large enough for copies of its weights
    try:
        for model in models:
            prepare(model, 1)
        steps = Steps(*models).go(6)
        assert plays(models[0])
        for each in (first, change):
            if each is None:
                continue
            for model in models:
                each(model)
            if each in BETWEEN:
                steps = Steps(*models)
            steps.go(4)
            for model in models:  # copies of weights that have changed serve no more
                prepare(model, 1)
            steps = Steps(*models).go(6)
        if change is not _hooked:
            assert plays(models[0]) == (change is not _another_part)  # which no tape holds
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_what_came_later_is_watched_too():
    models = pair()
    steps = Steps(*models).go(5)
    for model in models:
        part = model.backbone.layers[0].feedforward
        model.backbone.layers[0].feedforward = nn.Sequential(part, nn.Linear(32, 32))
    for model in models:
        model.backbone.layers[0].feedforward[1].load_state_dict(
            {"weight": torch.eye(32), "bias": torch.ones(32)}
        )
    steps = Steps(*models).go(6)
    assert plays(models[0])
    for model in models:
        model.backbone.layers[0].feedforward[1].weight = nn.Parameter(3 * torch.eye(32))
    steps = Steps(*models).go(6)
    for model in models:
        model.backbone.layers[0].feedforward[1].register_forward_hook(
            lambda module, given, y: 2 * y
        )
    steps.go(6)


@torch.no_grad()
def test_settings_are_looked_at_when_a_text_joins_a_pool():
    models = pair()
    models[1].backbone.replays.on = False
    pools = [pool(one) for one in models]
    for start in range(3):
        caches = [PagedCache(one) for one in pools]
        for step in range(8):
            given = torch.tensor([PROMPT if step == 0 else [step + start]])
            found, exact = (
                CausalSteps(one, cache=cache).step(given)
                for one, cache in zip(models, caches, strict=True)
            )
            assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()
        assert plays(models[0])
        for model in models:
            _scale(model)


@torch.no_grad()
def test_a_model_in_training_is_not_played():
    model = make("gpt")
    model.config.backbone.dropout = 0.0
    steps = Steps(model, make("gpt")).go(5)
    assert plays(model)
    model.train()
    assert not model.backbone.replays  # nor are copies of its weights kept
    for layer in model.backbone.layers:
        layer.dropout = 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = []
        for _ in range(4):
            steps.caches[0].rewind(9)
            found.append(model(torch.tensor([[7]]), cache=steps.caches[0]).logits)
    assert not any(torch.equal(found[0], other) for other in found[1:])


@torch.inference_mode()
def test_a_hook_is_called_at_every_step():
    models, seen = pair(), []
    steps = Steps(*models).go(5)
    hook = models[0].backbone.layers[0].register_forward_hook(lambda *given: seen.append(1))
    steps.go(4)
    assert len(seen) == 4
    hook.remove()
    steps.go(4)
    assert plays(models[0]) and len(seen) == 4


@torch.inference_mode()
def test_a_cache_is_rewound_forked_and_selected_on_the_way():
    models = pair("gqa")
    steps = Steps(*models, rows=3).go(6)
    for cache in steps.caches:
        cache.rewind(9)
    steps.go(3)
    steps.caches = tuple(cache.fork() for cache in steps.caches)
    steps.go(3)
    for cache in steps.caches:
        cache.select(torch.tensor([2, 0, 0]))
    steps.go(3)
    assert plays(models[0])
    for cache in steps.caches:
        cache.select(torch.tensor([1]))
    steps.rows = 1
    steps.go(4)
    for cache in steps.caches:
        cache.free()
    steps.run(torch.tensor([PROMPT]))
    steps.go(4)


@torch.inference_mode()
def test_several_texts_take_turns():
    models = pair("llama")
    texts = [Steps(*models) for _ in range(3)]
    for _ in range(6):
        for steps in texts:
            steps.go(2)
    assert plays(models[0])


def test_threads_do_not_share_what_lies_between_calls():
    models, failed = pair("llama", width=64), []
    with torch.inference_mode():
        Steps(*models).go(5)

    def work():
        try:
            with torch.inference_mode():
                Steps(*models).go(40)
        except Exception as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed


def test_modes_change():
    models = pair()
    with torch.inference_mode():
        Steps(*models).go(5)
    with torch.no_grad():
        Steps(*models).go(5)
        assert plays(models[0])
    grown = Steps(*models).go(2)  # with gradients nothing is played
    assert grown.caches[0].buffers[0][0].requires_grad


@torch.inference_mode()
def test_padding_and_records_are_not_played():
    models = pair()
    steps = Steps(*models, rows=2).go(5)
    for cache in steps.caches:
        cache.rewind(len(PROMPT))
    mask = torch.ones(2, len(PROMPT) + 1, dtype=torch.long)
    mask[1, :3] = 0
    steps.run(torch.tensor([[7]] * 2), mask)
    steps = Steps(*models).go(4)
    record = Record(attention=True)
    models[0](torch.tensor([[7]] * 1), cache=steps.caches[0], record=record)
    assert sorted(record.weights) == [0, 1]


# -- what was not foreseen -------------------------------------------------------------------------


class Counting(nn.Module):
    """A part that does another thing at each step, which no tensor tells."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, [0]

    def forward(self, x):
        self.calls[0] += 1
        return self.inner(x) * (1 + self.calls[0] % 7)


@torch.inference_mode()
def test_a_part_that_counts_is_found_out():
    model = make("gpt")
    layer = model.backbone.layers[0]
    layer.feedforward = Counting(layer.feedforward)
    cache = DynamicCache()
    model(torch.tensor([PROMPT]), cache=cache)
    with pytest.warns(UserWarning, match="is off by .* so that this model plays none of its kind"):
        for _ in range(4):
            model(torch.tensor([[7]]), cache=cache)
    (known,) = model.backbone.replays.values()
    assert known.tape is None and not known.proven
    calls = layer.feedforward.calls[0]
    model(torch.tensor([[7]]), cache=cache)
    assert layer.feedforward.calls[0] == calls + 1


class Reading(nn.Module):
    """A part that looks at numbers past all operators."""

    def __init__(self, inner, how):
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, x):
        y = self.inner(x)
        return 2 * y if self.how(y) > 0 else -3 * y


class Wrong(nn.Module):
    """A part that what is noted does to fail."""

    def forward(self, x):
        return (x.unflatten(2, (4, 8)).transpose(2, 3) * 2).transpose(2, 3).view(x.shape)


READINGS = [
    lambda y: y.numpy().sum(),
    lambda y: sum(y.flatten().tolist()),
    lambda y: y.sum().item(),
]


@torch.inference_mode()
@pytest.mark.parametrize("how", READINGS)
def test_a_part_that_reads_numbers_is_not_played(how):
    models = pair()
    for model in models:
        layer = model.backbone.layers[0]
        layer.feedforward = Reading(layer.feedforward, how)
    Steps(*models).go(9)
    (known,) = models[0].backbone.replays.values()
    assert known.tape is None


@torch.inference_mode()
def test_a_part_that_fails_while_it_is_noted_goes_on_as_it_did():
    models = pair()
    for model in models:
        layer = model.backbone.layers[0]
        layer.feedforward = nn.Sequential(layer.feedforward, Wrong())
    Steps(*models).go(5)
    (known,) = models[0].backbone.replays.values()
    assert known.tape is None and known.reason


@torch.inference_mode()
def test_a_cache_of_another_type_is_not_read_as_if_it_were_of_this():
    models = pair()
    Steps(*models).go(5)
    (known,) = models[0].backbone.replays.values()
    for kind in (torch.float32, torch.float64, torch.bfloat16):
        cache, keys = DynamicCache(), torch.zeros(1, 4, 3, 8, dtype=kind)
        for layer in range(2):
            cache.append(layer, keys, keys)
        assert known.tape.takes(cache.step_keys()) == (kind == torch.float32)


@torch.inference_mode()
def test_numbers_that_say_nothing_prove_nothing():
    model = make("gpt")
    model.backbone.final_norm.weight.zero_(), model.backbone.final_norm.bias.zero_()
    cache = DynamicCache()
    for tokens in (PROMPT, [7], [7], [7], [7]):
        model(torch.tensor([tokens]), cache=cache)
    (known,) = model.backbone.replays.values()
    assert not known.proven and known.tape is not None


@torch.inference_mode()
def test_what_cannot_be_noted_leaves_nothing_behind():
    models = pair()
    for model in models:
        _another_part(model)
    steps = Steps(*models).go(6)
    (known,) = models[0].backbone.replays.values()
    assert known.tape is None and "softmax" in known.reason
    assert steps.caches[0].length == len(PROMPT) + 6


@torch.inference_mode()
def test_who_counts_operators_sees_all_of_them():
    models = pair()
    steps = Steps(*models).go(5)
    counts = []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            steps.go(1)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
    with FlopCounterMode(display=False) as counter:
        models[1](torch.tensor([[7]]), cache=steps.caches[1])
    assert 2 * counter.get_total_flops() == counts[0]


@torch.inference_mode()
def test_caches_do_not_stay_with_the_tape():
    models = pair()
    steps = Steps(*models).go(5)
    assert plays(models[0])
    gone = weakref.ref(steps.caches[0].buffers[1][0])
    del steps
    gc.collect()
    assert gone() is None
    Steps(*models).go(5)


@torch.inference_mode()
@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_tapes_go_with_their_model(form):
    model, twin = pair("gpt", width=128)
    if form == "int8":
        freeze(model, "int8"), freeze(twin, "int8")
    Steps(model, twin).go(5)
    assert plays(model)
    weight = model.backbone.layers[0].attention_norm.weight
    gone = [weakref.ref(x) for x in (model.backbone, weight, model.backbone.layers[1].attention)]
    gc.disable()
    try:
        del model, weight
        assert [x() for x in gone] == [None] * 3  # not when Python happens to look for circles
    finally:
        gc.enable()


@torch.inference_mode()
def test_a_model_that_cannot_be_played_is_looked_at_once_a_text(monkeypatch):
    models, looks = pair(), []
    for model in models:
        _another_part(model)
    values = Made._values
    monkeypatch.setattr(Made, "_values", lambda *given: looks.append(1) or values(*given))
    steps = Steps(*models).go(3)
    before = len(looks)
    steps.go(20)
    assert len(looks) == before
    Steps(*models).go(5)
    assert before < len(looks) < before + 5


@torch.inference_mode()
def test_beams_are_played_and_not_looked_at_each_time(monkeypatch):
    models, looks = pair(), []
    steps = Steps(*models, rows=3).go(4)
    values = Made._values
    monkeypatch.setattr(Made, "_values", lambda *given: looks.append(1) or values(*given))
    for order in ([2, 0, 0], [1, 1, 2], [0, 2, 1]):
        for cache in steps.caches:
            cache.select(torch.tensor(order))
        steps.go(1)
    assert plays(models[0]) and not looks
