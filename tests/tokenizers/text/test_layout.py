"""Layouts: what a post-processor says, what a config says, and both ways of writing them."""

import pytest

from zoo.errors import ConfigError, DataError
from zoo.tokenizers.text.layout import Item, Layout, parse_layout, read_post_processor

IDS = {"[CLS]": 1, "[SEP]": 2, "<a:b>": 3}


def template(single, pair, special):
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {
            token: {"id": token, "ids": ids, "tokens": [token] * len(ids)}
            for token, ids in special.items()
        },
    }


def test_a_layout_as_a_config_writes_it():
    layout = parse_layout("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", Layout(), IDS.get)
    assert layout.assemble([7, 8], None, True) == ([1, 7, 8, 2], [0, 0, 0, 0])
    assert layout.assemble([7], [8, 9], True) == ([1, 7, 2, 8, 9, 2], [0, 0, 0, 1, 1, 1])
    assert layout.assemble([7], [8, 9], False) == ([7, 8, 9], [0, 1, 1])
    assert layout.added(False) == 2 and layout.added(True) == 3
    assert read_post_processor(layout.to_post_processor()) == layout


def test_one_layout_is_repeated_for_two_texts():
    layout = parse_layout("[CLS] $A", None, Layout(), IDS.get)
    assert layout.assemble([7], [8], True) == ([1, 7, 1, 8], [0, 0, 1, 1])
    assert parse_layout(None, None, layout, IDS.get) is layout
    both = parse_layout(None, "$B $A", layout, IDS.get)
    assert both.single == layout.single
    assert both.assemble([7], [8], True) == ([8, 7], [0, 0])


def test_tokens_with_colons_and_unknown_ones():
    assert parse_layout("<a:b>:2 $A", None, Layout(), IDS.get).single[0] == Item("<a:b>", (3,), 2)
    with pytest.raises(ConfigError, match=r"'\$A <eos>' names '<eos>'"):
        parse_layout("$A <eos>", None, Layout(), IDS.get)


def test_post_processors_of_tokenizer_json():
    assert read_post_processor(None) == Layout()
    assert read_post_processor({"type": "ByteLevel"}) == Layout()
    bert = {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}
    assert read_post_processor(bert).assemble([7], [8], True) == ([1, 7, 2, 8, 2], [0, 0, 0, 1, 1])
    roberta = read_post_processor({**bert, "type": "RobertaProcessing"})
    assert roberta.assemble([7], [8], True) == ([1, 7, 2, 2, 8, 2], [0] * 6)
    text = {"Sequence": {"id": "A", "type_id": 0}}
    mark = {"SpecialToken": {"id": "<x>", "type_id": 1}}
    two = template([mark, text], [text], {"<x>": [4, 5]})  # one special token of two ids
    assert read_post_processor(two).assemble([7], None, True) == ([4, 5, 7], [1, 1, 0])
    inside = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, two]}
    assert read_post_processor(inside) == read_post_processor(two)


def test_what_is_refused():
    with pytest.raises(DataError, match="post-processor 'Magic'"):
        read_post_processor({"type": "Magic"})
    bert = {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}
    with pytest.raises(DataError, match="two post-processors"):
        read_post_processor({"type": "Sequence", "processors": [bert, bert]})
