"""Roles of names: what Python's own scopes say, at the tokens in which names begin."""

import re
import symtable
import textwrap
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.data.text import roles as room
from zoo.data.text import stdlib
from zoo.data.text.roles import ROLES, roles
from zoo.errors import DataError
from zoo.registry import build, resolve

SOURCE = textwrap.dedent(
    '''
    import os.path as p, sys
    from json import dumps

    LIMIT = 3

    @staticmethod
    def call(first, *rest, key=LIMIT, **more):
        """No names in here: first, rest."""
        global LIMIT
        total = sum(first) + LIMIT
        LIMIT = 4
        for item in rest:
            dumps(item, indent=total).strip()
        def inner(x): return x + total + first
        try: pass
        except ValueError as error: print(error, sorted(rest, key=lambda y: y.size))
        return [n for n in more]

    class Thing(Exception): "ünï"; sizé = len("ü"); x = p.join(sizé)
    '''
)


def test_the_role_of_every_name():
    found = [
        (next(w for w in _words(SOURCE[place:])), role)
        for place, role in sorted(roles(SOURCE).items())
    ]
    expected = """
        os import, sys import, dumps import, LIMIT global, staticmethod builtin, call definition,
        first parameter, rest parameter, key parameter, LIMIT global, more parameter, total local,
        sum builtin, first parameter, LIMIT global, LIMIT global, item local, rest parameter,
        dumps global, item local, indent keyword, total local, strip attribute, inner definition,
        x parameter, x parameter, total local, first parameter, ValueError builtin, print builtin,
        error local, sorted builtin, rest parameter, key keyword, y parameter, y parameter,
        size attribute, n local, n local, more parameter, Thing definition, Exception builtin,
        sizé global, len builtin, x global, p global, join attribute, sizé global
    """
    assert found == [tuple(pair.split()) for pair in " ".join(expected.split()).split(", ")]


def _words(text):
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("module", ["textwrap", "bisect", "shlex", "json.decoder", "argparse"])
def test_roles_are_those_of_symtable(module):
    """Python's own table of scopes has the same parameters, and no other locals."""
    source = stdlib.source_of(module)
    told = {role: set() for role in ROLES}
    for place, role in roles(source).items():
        told[role].add(_words(source[place : place + 80])[0])
    symbols = [s for t in _functions(symtable.symtable(source, module, "exec")) for s in t]
    parameters = {s.get_name() for s in symbols if s.is_parameter()} - {".0"}
    assert told["parameter"] == parameters
    assert told["local"] <= {s.get_name() for s in symbols if s.is_local()}


def _functions(table):
    for child in table.get_children():
        if child.get_type() == "function":
            yield child.get_symbols()
        yield from _functions(child)


def test_what_is_no_python_has_no_roles():
    assert roles("print 'so it was'") == {} and roles("x = \0") == {}


@pytest.fixture(scope="module")
def model():
    return SimpleNamespace(tokenizer=zoo.tokenizer("stdlib-bpe"))


def data(**keys):
    return build(resolve("data", {"name": "roles", "packages": ["mine"], **keys}))


@pytest.fixture
def few(monkeypatch, tmp_path):
    found = {}
    for number in range(8):
        path = found[f"mine.m{number}"] = tmp_path / f"m{number}.py"
        path.write_text(SOURCE, encoding="utf-8")
    for module in (stdlib, room):
        monkeypatch.setattr(module, "modules", lambda: found)


def test_labels_stand_where_names_begin(model, few):
    train, test = (data(length=16, held_out=0.4).split(s, model) for s in ("train", "test"))
    assert len(train) and len(test)
    batch = train.batch(range(len(train)))
    assert batch["tokens"].shape == batch["labels"].shape == (len(train), 16)
    texts = [model.tokenizer.id_to_token(int(t)) for t in batch["tokens"].flatten()]
    said = [(t, ROLES[i]) for t, i in zip(texts, batch["labels"].flatten()) if i >= 0]
    assert {("Ġos", "import"), ("Ġcall", "definition"), ("Ġitem", "local")} <= {*said}
    silent = {t for t, i in zip(texts, batch["labels"].flatten()) if i < 0}
    assert {"Ġ=", "def"} & silent
    assert torch.equal(train.batch([3])["tokens"][0], batch["tokens"][3])


def test_no_piece_is_one_sentence(model, few):
    with pytest.raises(DataError, match="not one piece of 4000 tokens"):
        data(length=4000).split("train", model)
