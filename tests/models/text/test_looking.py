"""What surprises a model and where it looks: the numbers are the model's own."""

import math

import pytest
import torch

import zoo
from zoo.errors import ConfigError, DataError
from zoo.models.text.looking import attention_over, surprise

SMALL = {"backbone.width": 16, "backbone.depth": 2}
PAIR = {f"{side}.{key}": 16 if key == "width" else 1
        for side in ("encoder", "decoder") for key in ("width", "depth")}  # fmt: skip
TEXT = "def f(x):\n    return x"


def make(name, sizes):
    return zoo.create(name, sizes, seed=0).eval()


def test_surprise_of_a_decoder_is_its_loss():
    model = make("gpt-stdlib", SMALL)
    found = surprise(model, TEXT)
    ids = model.tokenizer.encode(TEXT, special=False)
    assert "".join(piece for piece, _ in found) == TEXT
    row = torch.tensor([[model.tokenizer.eos_id, *ids]])
    with torch.no_grad():
        logits = model(row[:, :-1]).logits[0]
    loss = torch.nn.functional.cross_entropy(logits, row[0, 1:])
    bits = sum(bits for _, bits in found) / len(found)
    assert bits == pytest.approx(float(loss) / math.log(2), rel=1e-4)


def test_surprise_of_an_encoder_hides_each_token_in_turn():
    model = make("bert-stdlib", SMALL)
    found = surprise(model, TEXT)
    ids = model.tokenizer.encode(TEXT, special=False)
    row = torch.tensor([ids])
    row[0, 3] = model.tokenizer.mask_id
    with torch.no_grad():
        share = model(row).logits[0, 3].softmax(-1)[ids[3]]
    assert found[3][1] == pytest.approx(-math.log2(float(share)), rel=1e-4)


@pytest.mark.parametrize("name", ["gpt-stdlib", "bert-stdlib"])
def test_attention_over_a_text(name):
    looked = attention_over(make(name, SMALL), TEXT)
    heads, rows, columns = looked.weights.shape
    assert (rows, columns) == (len(looked.rows), len(looked.columns)) and rows == columns
    assert torch.allclose(looked.weights.sum(-1), torch.ones(heads, rows), atol=1e-5)
    later = looked.weights.triu(1).abs().max()
    assert later == 0 if name == "gpt-stdlib" else later > 0


def test_attention_from_a_target_to_its_source():
    model = make("numbers-en-de", PAIR)
    looked = attention_over(model, "forty-two", "zweiundvierzig")
    assert looked.rows[0] == "start" and "".join(looked.rows[1:]) == "zweiundvierzig"
    assert "".join(looked.columns) == "forty-two"
    assert looked.weights.shape[1:] == (len(looked.rows), len(looked.columns))
    assert torch.allclose(looked.weights.sum(-1), torch.ones(()), atol=1e-5)


def test_what_cannot_be_looked_at():
    pair = make("numbers-en-de", PAIR)
    with pytest.raises(ConfigError, match="surprise reads causal-lm and masked-lm models"):
        surprise(pair, "one")
    with pytest.raises(ConfigError, match="a text alone reads"):
        attention_over(pair, "one")
    model = make("gpt-stdlib", SMALL)
    with pytest.raises(ConfigError, match="with a target reads seq2seq"):
        attention_over(model, "one", "eins")
    with pytest.raises(DataError, match="one token at least"):
        surprise(model, "")
