"""Encoder-decoders against transformers: one body of tests that every family runs through.

A family's test file subclasses `PairTests` and says what it is: class names, configurations by what
is odd about them, and what its reference cannot do.
"""

# b batch, m source tokens, n target tokens, v vocabulary

import json

import pytest
import torch

import zoo
from tests.weights.formats.parity import (
    PADDINGS,
    TOLERANCE,
    distance,
    export,
    parameters,
    random_tokens,
    random_weights,
    relative,
    transformers,
)
from zoo.models.text.steps import Seq2SeqSteps
from zoo.nn.cache import DynamicCache
from zoo.registry import resolve
from zoo.weights.formats import format_for, formats
from zoo.weights.formats._text import computation
from zoo.weights.formats.keys import differences

_MODELS: dict = {}  # (family, configuration) -> what was made of it
_FOLDERS: dict = {}
_OURS: dict = {}


class PairTests:
    """What every encoder-decoder is held to."""

    names: dict  # configuration -> (class of the config, class of the model)
    cases: dict  # configuration -> keys
    nodes: dict = {}  # name -> (config class, model class, keys, parameters)
    pads: dict = {None: 0}  # configuration -> padding, where it is not that of None
    tolerance = TOLERANCE
    left_padding = True  # whether the reference's positions follow the mask
    not_written: tuple = ()  # ends of names that files carry and an export leaves out

    def pytest_generate_tests(self, metafunc):
        if "odd" in metafunc.fixturenames:
            metafunc.parametrize("odd", list(self.cases))
        if "node" in metafunc.fixturenames:
            metafunc.parametrize("node", list(self.nodes))

    @classmethod
    def reference(cls, odd):
        """A tiny model of transformers with weights that make every part matter."""
        if (cls, odd) not in _MODELS:
            config, model = cls.names.get(odd, cls.names[None])
            keys = dict(cls.cases[odd])
            own_head = keys.pop("own_head", False)
            made = getattr(transformers, model)(getattr(transformers, config)(**keys))
            if own_head:  # which version 5 loads, but never makes
                made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.clone())
            random_weights(made, seed=len(odd))
            if hasattr(made, "final_logits_bias"):
                made.final_logits_bias.copy_(torch.linspace(-1, 1, made.lm_head.out_features)[None])
            _MODELS[cls, odd] = made
        return _MODELS[cls, odd]

    @pytest.fixture
    def folder(self, tmp_path_factory):
        """Returns the folder that transformers saved a configuration to, once a session."""

        def saved(odd):
            if (type(self), odd) not in _FOLDERS:
                path = _FOLDERS[type(self), odd] = tmp_path_factory.mktemp("pair")
                self.reference(odd).save_pretrained(path)
            return _FOLDERS[type(self), odd]

        return saved

    @pytest.fixture
    def ours(self, folder):
        """Returns our model of such a folder, loaded once."""

        def loaded(odd):
            if (type(self), odd) not in _OURS:
                _OURS[type(self), odd] = zoo.load(f"dir:{folder(odd)}")
            return _OURS[type(self), odd]

        return loaded

    def texts(self, model, length=7):
        """Returns source (2 11) and target (2 length) tokens."""
        target = model.config.target_vocabulary or model.config.vocabulary
        return random_tokens(model.config.vocabulary), random_tokens(target, 2, length, seed=1)

    def logits(self, odd, source, target, mask=None):
        mask = torch.ones_like(source) if mask is None else mask
        found = self.reference(odd)(
            input_ids=source, attention_mask=mask, decoder_input_ids=target, use_cache=False
        ).logits
        assert found.std() > 0.1, "weights so small that little would show"
        return found

    @torch.no_grad()
    def test_logits(self, odd, ours):
        model = ours(odd)
        source, target = self.texts(model)
        assert distance(model(source, target).logits, self.logits(odd, source, target)) <= (
            self.tolerance
        )

    @pytest.mark.parametrize("side", PADDINGS)
    @torch.no_grad()
    def test_padded_sources(self, odd, side, ours):
        """Against the reference where it can, and against each text alone."""
        model, mask = ours(odd), torch.tensor(PADDINGS[side])
        source, target = self.texts(model)
        source = source.masked_fill(mask == 0, self.pads.get(odd, self.pads[None]))
        found = model(source, target, mask).logits
        if side == "right" or self.left_padding:
            assert distance(found, self.logits(odd, source, target, mask)) <= self.tolerance
        for row, real in enumerate(mask.bool()):
            alone = model(source[row : row + 1, real], target[row : row + 1]).logits[0]
            assert distance(found[row], alone) <= TOLERANCE

    @pytest.mark.parametrize("side", PADDINGS)
    @torch.no_grad()
    def test_padded_targets(self, odd, side, ours):
        model, mask = ours(odd), torch.tensor(PADDINGS[side])
        source, target = self.texts(model, length=11)
        found = model(source, target, target_mask=mask).logits
        for row, real in enumerate(mask.bool()):
            alone = model(source[row : row + 1], target[row : row + 1, real]).logits[0]
            assert distance(found[row, real], alone) <= TOLERANCE

    @torch.no_grad()
    def test_cache(self, odd, ours):
        """Steps give what recomputation gives, and read the source once."""
        model, mask = ours(odd), torch.tensor(PADDINGS["left"])
        source, target = self.texts(model, length=40)
        calls = []
        hooks = [
            layer.cross_attention.kv.register_forward_hook(lambda *_, i=i: calls.append(i))
            for i, layer in enumerate(model.decoder.layers)
        ]
        cache_, parts = DynamicCache(), []
        memory = model.encode(source, mask)
        for part in target.split([8] + [1] * 32, 1):
            parts.append(model.decode(part, memory, mask, cache=cache_).logits)
            memory = None  # its keys and values are kept
        for hook in hooks:
            hook.remove()
        assert calls == list(range(len(model.decoder.layers))) and cache_.length == 40
        assert distance(torch.cat(parts, 1), model(source, target, mask).logits) <= TOLERANCE

    @torch.no_grad()
    def test_greedy(self, odd, ours):
        """40 tokens are those that transformers generates."""
        model, theirs = ours(odd), self.reference(odd)
        mask = torch.tensor(PADDINGS["left" if self.left_padding else "right"])
        pad = self.pads.get(odd, self.pads[None])
        source = self.texts(model)[0].masked_fill(mask == 0, pad)
        start = model.config.special["start"]
        theirs.generation_config.forced_eos_token_id = None
        expected = theirs.generate(
            source,
            attention_mask=mask,
            max_new_tokens=40,
            do_sample=False,
            num_beams=1,
            eos_token_id=None,
            suppress_tokens=[pad],  # after which FSMT loses count of positions
            decoder_start_token_id=start,
        )
        steps, tokens = Seq2SeqSteps(model, source, mask), torch.full((2, 1), start)
        for _ in range(40):
            scores = steps.step(tokens[:, -1:])
            scores[:, pad] = -torch.inf
            tokens = torch.cat([tokens, scores.argmax(-1)[:, None]], 1)
        assert tokens.tolist() == expected.tolist()

    @torch.no_grad()
    def test_bf16(self, odd, folder, ours):
        source, target = self.texts(ours(odd))
        found = zoo.load(f"dir:{folder(odd)}", dtype="bf16")(source, target).logits
        assert found.dtype == torch.bfloat16
        assert relative(found, ours(odd)(source, target).logits) <= 2e-2

    @torch.no_grad()
    def test_export(self, odd, ours, folder, tmp_path):
        """The same bits under the same names, and transformers computes the same from them."""
        model, theirs = ours(odd), self.reference(odd)
        path = export(model, folder(odd), tmp_path, self.not_written)
        back = type(theirs).from_pretrained(path).eval()
        source, target = self.texts(model)
        found = back(input_ids=source, decoder_input_ids=target, use_cache=False).logits
        assert distance(found, self.logits(odd, source, target)) <= 1e-6

    def test_an_unknown_key_is_refused_by_name(self, odd, folder):
        content = json.loads((folder(odd) / "config.json").read_text())
        chosen = format_for(content)
        for key, value in (
            ("attention_sinks", 4),
            ("quantization_config", {"bits": 4}),
            ("is_encoder_decoder", False),
            ("tie_encoder_decoder", True),
            ("is_decoder", True),
            ("architectures", ["TheirModel"]),
        ):
            with pytest.raises(zoo.errors.ConfigError, match=key.removesuffix("s")):
                chosen.read_config({**content, key: value}, frozenset())

    def test_nodes(self, node):
        """A node is what the translation of its public config is, at true shape."""
        config, model, keys, count = self.nodes[node]
        with torch.device("meta"):
            theirs = getattr(transformers, model)(getattr(transformers, config)(**keys))
        own = keys.get("tie_word_embeddings") is False and hasattr(theirs, "lm_head")
        own_head = theirs.lm_head.weight.numel() if own else 0
        tables = sum(p.numel() for k, p in theirs.named_parameters() if "embed_positions" in k)
        buffers = sum(b.numel() for k, b in theirs.named_buffers() if k == "final_logits_bias")
        assert parameters(theirs) - tables + own_head + buffers == count
        assert parameters(zoo.create(node, device="meta")) == count
        content = {**theirs.config.to_dict(), "architectures": [model], **keys}
        names = {*theirs.state_dict()} if own else {*theirs.state_dict()} - {"lm_head.weight"}
        translated = format_for(content).read_config(content, names)
        translated = resolve("model", {"kind": "seq2seq", **translated})
        typed = zoo.config(node)
        assert not differences(computation(typed), computation(translated))
        assert typed.special == translated.special
        for tag in typed.weights.values():
            assert formats()[tag.format].model_types
