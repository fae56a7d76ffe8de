"""BERT, RoBERTa and sentence embedders against transformers."""

# b batch, n tokens

import json
from functools import cache

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.weights.formats.parity import (
    PADDINGS,
    TOLERANCE,
    distance,
    export,
    parameters,
    random_tokens,
    random_weights,
    refuses,
    relative,
    rewrite,
    tensors,
    transformers,
)

VOCABULARY = 53
_TINY = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "hidden_size": 36,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 40,
}
CASES = {
    "Bert": {
        "odd heads": ("ForPreTraining", {}),
        "relu, one type": (
            "ForMaskedLM",
            {"hidden_act": "relu", "layer_norm_eps": 1e-2, "type_vocab_size": 1},
        ),
        "gelu_new, one head": ("ForMaskedLM", {"hidden_act": "gelu_new", "num_attention_heads": 1}),
        "untied": ("ForPreTraining", {"tie_word_embeddings": False}),
        "encoder": ("Model", {"num_attention_heads": 9}),
        "classes": ("ForSequenceClassification", {"num_labels": 5}),
        "tags": (
            "ForTokenClassification",
            {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}, "hidden_act": "silu"},
        ),
        "span": ("ForQuestionAnswering", {"num_hidden_layers": 1}),
    },
    "Roberta": {
        "odd heads": ("ForMaskedLM", {}),
        "relu, three types": ("ForMaskedLM", {"hidden_act": "relu", "type_vocab_size": 3}),
        "padding index": ("ForMaskedLM", {"pad_token_id": 3, "layer_norm_eps": 1e-2}),
        "untied": ("ForMaskedLM", {"tie_word_embeddings": False}),
        "encoder": ("Model", {"num_attention_heads": 4}),
        "classes": ("ForSequenceClassification", {"num_labels": 3}),
        "tags": ("ForTokenClassification", {"num_labels": 4, "hidden_act": "gelu_new"}),
        "span": ("ForQuestionAnswering", {}),
    },
}
every_case = pytest.mark.parametrize(
    ("family", "odd"), [(family, odd) for family, cases in CASES.items() for odd in cases]
)
every_family = pytest.mark.parametrize("family", CASES)


@cache
def reference(family, odd):
    head, keys = CASES[family][odd]
    special = {"pad_token_id": 1} if family == "Roberta" else {}
    config = getattr(transformers, f"{family}Config")(**{**_TINY, **special, **keys})
    return random_weights(getattr(transformers, family + head)(config), seed=len(odd))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Returns the folder that transformers saved a case to."""

    @cache
    def saved(family, odd):
        path = tmp_path_factory.mktemp("bert")
        reference(family, odd).save_pretrained(path)
        return path

    return saved


@pytest.fixture(scope="session")
def ours(folder):
    return cache(lambda family, odd: zoo.load(f"dir:{folder(family, odd)}"))


def compare(model, theirs, tokens, mask=None, types=None, tolerance=TOLERANCE):
    """Every output of ours against theirs, at real tokens; positions are told, as ours follow the
    mask."""
    seen = torch.ones_like(tokens) if mask is None else mask
    positions = (seen.cumsum(-1) - 1).clamp(min=0)
    if "Roberta" in type(theirs).__name__:
        positions = positions + theirs.config.pad_token_id + 1
    expected = theirs(
        input_ids=tokens, attention_mask=seen, token_type_ids=types, position_ids=positions
    )
    found = model(tokens, mask, types=types)
    pairs = {
        "logits": found.logits,
        "prediction_logits": found.logits,
        "last_hidden_state": found.hidden,
        "pooler_output": found.pooled,
        "seq_relationship_logits": found.next_sentence,
    }
    compared = 0
    for key, mine in pairs.items():
        if key not in expected:
            continue
        if key == "last_hidden_state" or (mine.ndim == 3):
            mine, his = mine[seen.bool()], expected[key][seen.bool()]
        else:
            his = expected[key]
        assert his.std() > 0.05, "weights so small that little would show"
        assert distance(mine, his) <= tolerance, key
        compared += 1
    if "start_logits" in expected:
        his = torch.stack([expected.start_logits, expected.end_logits], -1)
        assert distance(found.logits[seen.bool()], his[seen.bool()]) <= tolerance
        compared += 1
    assert compared


@every_case
@torch.no_grad()
def test_outputs(family, odd, ours):
    model, theirs = ours(family, odd), reference(family, odd)
    tokens = random_tokens(VOCABULARY)
    compare(model, theirs, tokens)
    kinds = theirs.config.type_vocab_size
    compare(model, theirs, tokens, types=tokens % kinds)


@every_case
@pytest.mark.parametrize("side", PADDINGS)
@torch.no_grad()
def test_padding(family, odd, side, ours):
    """Against the reference, and against each text alone."""
    model, tokens, mask = ours(family, odd), random_tokens(VOCABULARY), torch.tensor(PADDINGS[side])
    by_token = ("ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering")
    if side == "right" or CASES[family][odd][0] in by_token:  # it pools the first place, also pads
        compare(model, reference(family, odd), tokens, mask)
    found = model(tokens, mask)
    for row, real in enumerate(mask.bool()):
        alone = model(tokens[row : row + 1, real])
        assert distance(found.hidden[row, real], alone.hidden[0]) <= TOLERANCE
        if found.logits is not None and found.logits.ndim == 3:
            assert distance(found.logits[row, real], alone.logits[0]) <= TOLERANCE
        for mine, single in (
            (found.pooled, alone.pooled),
            (found.next_sentence, alone.next_sentence),
        ):
            if mine is not None:
                assert distance(mine[row], single[0]) <= TOLERANCE


@every_case
@torch.no_grad()
def test_bf16(family, odd, folder, ours):
    tokens = random_tokens(VOCABULARY)
    exact = ours(family, odd)(tokens)
    found = zoo.load(f"dir:{folder(family, odd)}", dtype="bf16")(tokens)
    assert found.hidden.dtype == torch.bfloat16
    assert relative(found.hidden, exact.hidden) <= 2e-2
    if exact.logits is not None and exact.logits.ndim == 3:
        assert relative(found.logits, exact.logits) <= 2e-2


@every_case
@torch.no_grad()
def test_export(family, odd, ours, folder, tmp_path):
    """The same bits under the same names, and transformers computes the same from them."""
    model, theirs = ours(family, odd), reference(family, odd)
    unread = {"Bert": "cls.predictions.bias", "Roberta": "lm_head.bias"}
    without = [unread[family]] if odd == "untied" else []
    path = export(model, folder(family, odd), tmp_path, without)
    back = type(theirs).from_pretrained(path).eval()
    tokens = random_tokens(VOCABULARY)
    for found, expected in zip(back(tokens).to_tuple(), theirs(tokens).to_tuple(), strict=True):
        assert distance(found, expected) <= 1e-6
    assert back.config.id2label == theirs.config.id2label


# -- old layouts -----------------------------------------------------------------------------------


@torch.no_grad()
def test_a_file_of_2018(folder, ours, tmp_path):
    """gamma and beta, position numbers, the head's tied matrix, keys that nobody reads."""

    def old(saved):
        names = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
        for new, spelt in names.items():
            saved = {k.replace(new, spelt): v for k, v in saved.items()}
        saved["bert.embeddings.position_ids"] = torch.arange(40)[None]
        table = saved["bert.embeddings.word_embeddings.weight"]
        saved["cls.predictions.decoder.weight"] = table.clone()
        saved["cls.predictions.decoder.bias"] = saved["cls.predictions.bias"].clone()
        return saved

    keys = {"pooler_fc_size": 768, "pooler_type": "first_token_transform", "directionality": "bidi"}
    source = folder("Bert", "odd heads")
    # the hub's file calls itself BertForMaskedLM and holds the other head, too
    path = rewrite(source, old, tmp_path, architectures=["BertForMaskedLM"], **keys)
    tokens = random_tokens(VOCABULARY)
    found, expected = zoo.load(f"dir:{path}")(tokens), ours("Bert", "odd heads")(tokens)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.next_sentence, expected.next_sentence)


@torch.no_grad()
def test_copies_of_a_tied_matrix_must_agree(folder, tmp_path):
    def torn(saved):
        table = saved["bert.embeddings.word_embeddings.weight"]
        return {**saved, "cls.predictions.decoder.weight": table + 1}

    path = rewrite(folder("Bert", "odd heads"), torn, tmp_path)
    with pytest.raises(zoo.errors.WeightsError, match="differ in the file"):
        zoo.load(f"dir:{path}")


@every_family
@torch.no_grad()
def test_prefixes(family, folder, ours, tmp_path):
    """An encoder's file with the prefix of a whole model, and a whole model's without it."""
    prefix = f"{family.lower()}."
    tokens = random_tokens(VOCABULARY)
    more = rewrite(
        folder(family, "encoder"),
        lambda saved: {prefix + key: tensor for key, tensor in saved.items()},
        tmp_path / "more",
    )
    assert torch.equal(
        zoo.load(f"dir:{more}")(tokens).hidden, ours(family, "encoder")(tokens).hidden
    )
    less = rewrite(
        folder(family, "odd heads"),
        lambda saved: {key.removeprefix(prefix): tensor for key, tensor in saved.items()},
        tmp_path / "less",
    )
    found, expected = zoo.load(f"dir:{less}"), ours(family, "odd heads")
    assert torch.equal(found(tokens).logits, expected(tokens).logits)


@torch.no_grad()
def test_pickle_needs_the_flag(folder, ours, tmp_path):
    source = folder("Bert", "odd heads")
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    torch.save(tensors(source), tmp_path / "pytorch_model.bin")
    with pytest.raises(zoo.errors.WeightsError, match="allow_pickle"):
        zoo.load(f"dir:{tmp_path}")
    found = zoo.load(f"dir:{tmp_path}", allow_pickle=True)
    tokens = random_tokens(VOCABULARY)
    expected = ours("Bert", "odd heads")(tokens)
    assert torch.equal(found(tokens).logits, expected.logits)
    assert torch.equal(found(tokens).next_sentence, expected.next_sentence)


def test_what_is_missing_is_named(folder, tmp_path):
    gone = "bert.encoder.layer.1.attention.self.key.weight"
    path = rewrite(
        folder("Bert", "odd heads"),
        lambda saved: {key: tensor for key, tensor in saved.items() if key != gone},
        tmp_path,
    )
    with pytest.raises(zoo.errors.WeightsError, match=gone.replace(".", r"\.")):
        zoo.load(f"dir:{path}")


# -- configs ---------------------------------------------------------------------------------------


@every_family
def test_what_is_not_implemented_is_refused_by_name(family, folder):
    path = folder(family, "odd heads")
    assert refuses(path, "position_embedding_type", "relative_key_query")
    assert refuses(path, "is_decoder", True)
    assert refuses(path, "add_cross_attention", True)
    assert refuses(path, "hidden_act", "mish")
    assert refuses(path, "rope_theta", 1e4)
    content = json.loads((path / "config.json").read_text())
    content["architectures"] = [f"{family}ForMultipleChoice"]
    (chosen,) = [
        f for f in zoo.weights.formats.formats().values() if content["model_type"] in f.model_types
    ]
    with pytest.raises(zoo.errors.ConfigError, match="ForMultipleChoice"):
        chosen.read_config(content, frozenset())


@pytest.mark.parametrize(
    "swap",
    ["backbone.position=rope", "backbone.norm=rms", "backbone.feedforward=swiglu"],
)
def test_export_refuses_what_bert_cannot_say(swap, folder, tmp_path):
    model = zoo.load(f"dir:{folder('Bert', 'odd heads')}", swap, partial=True)
    with pytest.raises(zoo.errors.ConfigError, match="format 'zoo' holds every model"):
        zoo.save(model, tmp_path, format="transformers-bert")


def test_labels(ours):
    assert ours("Bert", "tags").config.labels == ["O", "B-PER", "I-PER"]
    assert ours("Bert", "classes").config.labels == []
    assert ours("Bert", "classes").config.classes == 5


# -- sentence vectors ------------------------------------------------------------------------------


def sentence_folder(source, to, mode="mean_tokens", unit=True, **pooling):
    """Makes a saved encoder a folder of sentence-transformers."""
    rewrite(source, lambda saved: saved, to)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds[: 3 if unit else 2])
    ]
    (to / "modules.json").write_text(json.dumps(modules))
    (to / "1_Pooling").mkdir(exist_ok=True)
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    flags = {f"pooling_mode_{known}": known == mode for known in modes}
    content = {"word_embedding_dimension": 36, **flags, **pooling}
    (to / "1_Pooling" / "config.json").write_text(json.dumps(content))
    return to


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
@torch.no_grad()
def test_sentence_vectors(mode, unit, folder, tmp_path):
    path = sentence_folder(folder("Bert", "encoder"), tmp_path / "in", mode, unit)
    model = zoo.load(f"dir:{path}")
    tokens, mask = random_tokens(VOCABULARY), torch.tensor(PADDINGS["right"])
    hidden = reference("Bert", "encoder")(tokens, mask).last_hidden_state
    expected = hidden[:, 0]
    if mode == "mean_tokens":
        expected = torch.stack([h[m.bool()].mean(0) for h, m in zip(hidden, mask, strict=True)])
    expected = F.normalize(expected, dim=-1) if unit else expected
    assert distance(model.sentence_vectors(tokens, mask), expected) <= TOLERANCE
    # and the folder that we write says the same
    zoo.save(model, tmp_path / "out", format="transformers-bert")
    again = zoo.load(f"dir:{tmp_path / 'out'}")
    assert again.config == model.config
    assert torch.equal(again.sentence_vectors(tokens, mask), model.sentence_vectors(tokens, mask))


def test_sentence_vectors_of_today(folder, tmp_path):
    """Version 5 names one mode instead of a flag for each."""
    path = sentence_folder(folder("Bert", "encoder"), tmp_path, mode="")
    content = {"embedding_dimension": 36, "pooling_mode": "cls", "include_prompt": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(content))
    assert zoo.load(f"dir:{path}").config.embed_from == "first"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"mode": "max_tokens"}, "max_tokens"),
        ({"pooling_mode_max_tokens": True}, r"mean\+max_tokens"),
        ({"mode": "", "pooling_mode_lasttoken": True}, "lasttoken"),
        ({"dropout": 0.1}, "'dropout'"),
    ],
)
def test_other_sentence_vectors_are_refused_by_name(keys, named, folder, tmp_path):
    path = sentence_folder(folder("Bert", "encoder"), tmp_path, **keys)
    with pytest.raises(zoo.errors.ConfigError, match=named):
        zoo.load(f"dir:{path}")


def test_other_modules_are_refused_by_name(folder, tmp_path):
    path = sentence_folder(folder("Bert", "encoder"), tmp_path)
    modules = json.loads((path / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(zoo.errors.ConfigError, match="Dense"):
        zoo.load(f"dir:{path}")


# -- nodes -----------------------------------------------------------------------------------------

_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_OF_FACEBOOK = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
_MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "intermediate_size": 1536,
}
NODES = {
    "bert-base-uncased": ("Bert", "ForPreTraining", {}, 110_106_428),
    "bert-base-cased": ("Bert", "ForPreTraining", {"vocab_size": 28996}, 108_932_934),
    "bert-large-uncased": ("Bert", "ForPreTraining", _LARGE, 336_226_108),
    "roberta-base": ("Roberta", "ForMaskedLM", _OF_FACEBOOK, 124_697_433),
    "roberta-large": ("Roberta", "ForMaskedLM", {**_OF_FACEBOOK, **_LARGE}, 355_412_057),
    "all-minilm-l6-v2": ("Bert", "Model", _MINILM, 22_713_216),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes(name):
    """A node is what the translation of its public config is, at true shape."""
    from zoo.registry import resolve
    from zoo.weights.formats import formats
    from zoo.weights.formats._text import computation
    from zoo.weights.formats.keys import differences

    family, head, keys, count = NODES[name]
    with torch.device("meta"):
        theirs = getattr(transformers, family + head)(
            getattr(transformers, f"{family}Config")(**keys)
        )
    assert parameters(theirs) == count == parameters(zoo.create(name, device="meta"))
    content = {**theirs.config.to_diff_dict(), "architectures": [family + head]}
    content = {**theirs.config.to_dict(), **content}
    chosen = formats()[f"transformers-{family.lower()}"]
    translated = resolve(
        "model", {"kind": "masked-lm", **chosen.read_config(content, set(theirs.state_dict()))}
    )
    node = zoo.config(name)
    assert not differences(computation(node), computation(translated))
    assert node.special == translated.special
    tag = next(iter(node.weights.values()))
    assert tag.format == chosen.name and node.card.license
    assert chosen.write_config(node)["model_type"] == family.lower()
