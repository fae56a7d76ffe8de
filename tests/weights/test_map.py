"""Weight maps: every public tensor is used, each of ours made once, and export is the inverse."""

from __future__ import annotations

import random

import pytest
import safetensors.torch
import torch

from zoo.errors import WeightsError
from zoo.weights.files import open_weights, save_weights
from zoo.weights.map import (
    Add,
    Drop,
    Fill,
    FromHeadGroups,
    Fuse,
    HalfSplit,
    Optional,
    Rename,
    Reshape,
    Split,
    Squeeze,
    Tie,
    Transpose,
    WeightMap,
)

State = dict[str, torch.Tensor]


def numbered(*shape: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + int(torch.Size(shape).numel()), dtype=torch.float32).view(
        shape
    )


def round_trip(weight_map: WeightMap, public: State) -> State:
    """Load, check that nothing is left over, export, compare bit for bit; returns our tensors."""
    mapped = weight_map.load(public)
    mapped.check()
    ours = {name: lazy.read() for name, lazy in mapped.items()}
    for name, lazy in mapped.items():
        assert tuple(ours[name].shape) == lazy.shape and ours[name].is_contiguous(), name
        assert torch.equal(lazy.read(copy=True), ours[name])
    back = weight_map.export(ours)
    assert set(back) == set(public)
    for name, tensor in public.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    return ours


GPT2 = WeightMap(
    [
        Tie(["transformer.wte.weight", "lm_head.weight"], ["embedding.weight", "head.weight"]),
        Rename("transformer.wpe.weight", "position.weight"),
        Rename("transformer.h.*.ln_1.", "layers.*.attention_norm."),
        Rename("transformer.h.*.attn.c_attn.weight", "layers.*.attention.qkv.weight", Transpose()),
        Rename("transformer.h.*.attn.c_attn.bias", "layers.*.attention.qkv.bias"),
        Drop("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"),
    ],
    prefixes=["transformer."],
    spellings={".gamma": ".weight", ".beta": ".bias"},
)


def gpt2_file() -> State:
    torch.manual_seed(0)
    state = {
        "transformer.wte.weight": torch.randn(7, 4),
        "transformer.wpe.weight": torch.randn(3, 4),
    }
    for i in range(11):
        state[f"transformer.h.{i}.ln_1.weight"] = torch.randn(4)
        state[f"transformer.h.{i}.ln_1.bias"] = torch.randn(4)
        state[f"transformer.h.{i}.attn.c_attn.weight"] = torch.randn(4, 12)
        state[f"transformer.h.{i}.attn.c_attn.bias"] = torch.randn(12)
    return state


def test_one_line_covers_all_layers():
    public = gpt2_file()
    ours = round_trip(GPT2, public)
    assert len(ours) == len(public) + 1  # the head, tied
    assert ours["head.weight"].data_ptr() == ours["embedding.weight"].data_ptr()
    expected = public["transformer.h.10.attn.c_attn.weight"].T
    assert torch.equal(ours["layers.10.attention.qkv.weight"], expected)


@pytest.mark.parametrize("prefix", ["", "transformer.", "transformer.transformer."])
def test_prefixes_spellings_and_masks_of_old_files(prefix):
    public = gpt2_file()
    old = {name.replace("transformer.", prefix): tensor for name, tensor in public.items()}
    old[f"{prefix}h.0.ln_1.gamma"] = old.pop(f"{prefix}h.0.ln_1.weight")
    old[f"{prefix}h.0.attn.bias"] = torch.ones(1, 1, 3, 3)
    old[f"{prefix}h.1.attn.bias"] = torch.ones(1, 1, 3, 3)
    mapped = GPT2.load(old)
    mapped.check()
    assert mapped.ignored == {
        "transformer.h.*.attn.bias": [f"{prefix}h.0.attn.bias", f"{prefix}h.1.attn.bias"]
    }
    back = GPT2.export({name: lazy.read() for name, lazy in mapped.items()})
    assert back.keys() == public.keys()  # the canonical layout, without the masks
    assert all(torch.equal(back[name], public[name]) for name in public)


def test_two_spellings_of_one_tensor_clash():
    public = gpt2_file() | {"transformer.h.0.ln_1.gamma": torch.ones(4)}
    with pytest.raises(WeightsError, match=r"ln_1.weight' and '.*ln_1.gamma' are two spellings"):
        GPT2.load(public)


def test_fuse_cuts_where_sizes_say():
    sizes = (8, 4, 4)  # two query heads on one key/value head, width 4
    weight_map = WeightMap([Fuse(["b.*.q.", "b.*.k.", "b.*.v."], "l.*.qkv.", sizes=sizes)])
    public: State = {}
    for i in range(2):
        for part, rows in zip("qkv", sizes, strict=True):
            public[f"b.{i}.{part}.weight"] = torch.randn(rows, 6)
            public[f"b.{i}.{part}.bias"] = torch.randn(rows)
    ours = round_trip(weight_map, public)
    assert set(ours) == {f"l.{i}.qkv.{kind}" for i in range(2) for kind in ("weight", "bias")}
    expected = torch.cat([public[f"b.1.{part}.weight"] for part in "qkv"])
    assert torch.equal(ours["l.1.qkv.weight"], expected)


def test_fuse_with_steps_of_parts_and_of_the_whole():
    weight_map = WeightMap(
        [
            Fuse(
                [
                    ("*.wq", HalfSplit(2, 4)),
                    ("*.wk", HalfSplit(1, 4)),
                    ("*.wv", Transpose()),
                ],
                "l.*.qkv",
                sizes=[8, 4, 4],
            ),
            Fuse(["a", "b"], "ab", Transpose(), dim=1),
        ]
    )
    public = {"0.wq": torch.randn(8, 5), "0.wk": torch.randn(4, 5), "0.wv": torch.randn(5, 4)}
    public |= {"a": torch.randn(3, 2), "b": torch.randn(3, 2)}
    ours = round_trip(weight_map, public)
    assert torch.equal(ours["l.0.qkv"][:8], HalfSplit(2, 4).forward(public["0.wq"]))
    assert torch.equal(ours["l.0.qkv"][12:], public["0.wv"].T)
    assert torch.equal(ours["ab"], torch.cat([public["a"], public["b"]], 1).T)


def test_split_is_the_inverse_of_fuse():
    weight_map = WeightMap(
        [
            Split("*.in_proj_weight", ["*.q.weight", "*.kv.weight"], sizes=[4, 8]),
            Split("*.wide", ["*.left", ("*.right", Squeeze(1))], dim=1, sizes=[3, 1]),
        ]
    )
    public = {"0.in_proj_weight": numbered(12, 4), "0.wide": numbered(2, 4)}
    ours = round_trip(weight_map, public)
    assert torch.equal(ours["0.q.weight"], public["0.in_proj_weight"][:4])
    assert torch.equal(ours["0.right"], torch.tensor([3.0, 7.0]))


def test_bloom_and_xlnet_layouts():
    weight_map = WeightMap(
        [
            Rename("h.*.query_key_value.", "l.*.qkv.", FromHeadGroups(2, 3)),
            Rename("*.q", "*.query.weight", Reshape((6, 2, 3), (6, 6)), Transpose()),
            Rename("*.o", "*.out.weight", Reshape((6, 2, 3), (6, 6))),
        ]
    )
    public = {
        "h.0.query_key_value.weight": torch.randn(18, 6),
        "h.0.query_key_value.bias": torch.randn(18),
        "0.q": torch.randn(6, 2, 3),
        "0.o": torch.randn(6, 2, 3),
    }
    ours = round_trip(weight_map, public)
    x = torch.randn(6)
    expected = torch.einsum("i,ihe->he", x, public["0.q"]).flatten()
    torch.testing.assert_close(ours["0.query.weight"] @ x, expected)
    heads = torch.randn(2, 3)
    expected = torch.einsum("he,dhe->d", heads, public["0.o"])
    torch.testing.assert_close(ours["0.out.weight"] @ heads.flatten(), expected)


class TestFill:
    parts = ("l.*.q_proj.bias", Fill((3,)), "l.*.v_proj.bias")
    weight_map = WeightMap([Fuse(parts, "l.*.qkv.bias")])

    def test_a_bias_that_whisper_does_not_have(self):
        public = {
            "l.0.q_proj.bias": torch.randn(3).half(),
            "l.0.v_proj.bias": torch.randn(3).half(),
        }
        ours = round_trip(self.weight_map, public)["l.0.qkv.bias"]
        assert ours.dtype == torch.float16 and ours[3:6].tolist() == [0, 0, 0]

    def test_export_refuses_to_lose_a_value(self):
        with pytest.raises(
            WeightsError, match=r"l.0.qkv.bias \(9\) \(should be 0 where the public"
        ):
            self.weight_map.export({"l.0.qkv.bias": torch.ones(9)})

    def test_unless_it_is_harmless(self):
        parts = ("l.*.q", Fill((3,), harmless=True), "l.*.v")
        exported = WeightMap([Fuse(parts, "l.*.qkv")]).export({"l.0.qkv": numbered(9)})
        assert {name: tensor.tolist() for name, tensor in exported.items()} == {
            "l.0.q": [0, 1, 2],
            "l.0.v": [6, 7, 8],
        }

    def test_a_tensor_that_is_filled_wholly(self):
        weight_map = WeightMap([Rename(Fill((2, 2), 1.5), "scale"), Rename("w", "w")])
        public = {"w": torch.randn(3).bfloat16()}
        ours = round_trip(weight_map, public)
        assert torch.equal(ours["scale"], torch.full((2, 2), 1.5, dtype=torch.bfloat16))
        with pytest.raises(WeightsError, match="lacking scale"):
            weight_map.export({"w": ours["w"]})

    def test_its_shape_must_fit(self):
        mapped = self.weight_map.load(
            {"l.0.q_proj.bias": numbered(4), "l.0.v_proj.bias": numbered(4)}
        )
        assert not mapped and "rows" in mapped.problems["l.0.qkv.bias"]

    def test_it_stands_on_the_left(self):
        with pytest.raises(WeightsError, match="belongs on the left"):
            Rename("a", Fill((1,)))
        with pytest.raises(WeightsError, match=r"same '\*' in every name"):
            Rename(Fill((1,)), "l.*.bias")


class TestTie:
    weight_map = WeightMap([Tie(["wte", "lm_head"], ["embedding", "head"])])

    @pytest.mark.parametrize("names", [["wte"], ["lm_head"], ["wte", "lm_head"]])
    def test_any_public_name_will_do(self, names):
        table = torch.randn(5, 3)
        mapped = self.weight_map.load({name: table.clone() for name in names})
        mapped.check()
        assert mapped["embedding"] is mapped["head"]
        assert torch.equal(mapped["head"].read(), table)
        assert set(self.weight_map.export({"embedding": table, "head": table})) == {"wte"}
        assert set(self.weight_map.export({"head": table})) == {"wte"}

    def test_both_can_be_written(self):
        both = WeightMap([Tie(["wte", "lm_head"], ["embedding"], Transpose(), writes=2)])
        table = torch.randn(5, 3)
        round_trip(both, {"wte": table, "lm_head": table})

    def test_copies_that_differ_are_refused_not_chosen_from(self):
        public = {"wte": torch.zeros(5, 3), "lm_head": torch.ones(5, 3)}
        with pytest.raises(WeightsError, match="'wte' and 'lm_head' differ in the file"):
            self.weight_map.load(public)["head"].read()
        with pytest.raises(WeightsError, match=r"embedding \+ head .* but differ"):
            self.weight_map.export({"embedding": torch.zeros(2), "head": torch.ones(2)})
        public["lm_head"] = torch.zeros(3, 5)
        mapped = self.weight_map.load(public)
        assert "one tensor under all their names" in mapped.problems["embedding"]


def test_add_with_a_scalar():
    weight_map = WeightMap([Rename("norm.weight", "norm.weight", Add(1.0))])
    ours = round_trip(weight_map, {"norm.weight": torch.tensor([0.5, -0.25, 0.0])})
    assert ours["norm.weight"].tolist() == [1.5, 0.75, 1.0]


def test_what_does_not_fit_is_listed_together():
    weight_map = WeightMap(
        [
            Fuse(["*.q", "*.k"], "l.*.qk"),
            Rename("conv", "linear", Squeeze(2, 3)),
            Rename("norm", "final_norm"),
            Optional(Rename("pooler.", "pooler.")),
        ]
    )
    public = {
        "0.q": numbered(2, 2),
        "1.q": numbered(2, 2),
        "1.k": numbered(3, 2),
        "extra": numbered(1),
    }
    public |= {"conv": numbered(4, 4, 3, 3), "2.q": numbered(2), "2.k": numbered(2).half()}
    mapped = weight_map.load(public)
    assert not mapped and mapped.unmatched == ["extra"] and mapped.absent == ["norm"]
    assert mapped.problems["l.0.qk"] == "the file has no '0.k'"
    assert mapped.problems["linear"] == "'conv' (4, 4, 3, 3) should have size 1 in dimension 2, 3"
    assert "5" in mapped.problems["l.1.qk"] and "one dtype" in mapped.problems["l.2.qk"]
    with pytest.raises(WeightsError) as caught:
        mapped.check()
    for word in ("unknown extra", "absent norm", "l.0.qk (the file has no '0.k')", "linear"):
        assert word in str(caught.value)
    assert mapped.origin("l.7.qk") == ["7.q", "7.k"] and mapped.origin("nothing") == []


def test_long_lists_are_cut():
    mapped = WeightMap([]).load({f"w{i}": numbered(1) for i in range(1000)})
    with pytest.raises(WeightsError, match="and 990 more") as caught:
        mapped.check()
    assert len(str(caught.value)) < 200


def test_export_lists_all_its_problems():
    weight_map = WeightMap(
        [
            Split("qk.*", ["l.*.q", "l.*.k"]),
            Rename("norm", "norm"),
            Optional(Rename("pooler", "pooler")),
            Rename("c", "conv", Reshape((4, 1), (4,))),
        ]
    )
    with pytest.raises(WeightsError) as caught:
        weight_map.export({"l.0.q": numbered(2), "gate": numbered(2), "conv": numbered(5)})
    assert str(caught.value) == (
        "The weights cannot be written in this format: no place for gate; lacking norm; "
        "unusable l.0.q (without l.0.k), conv (5) (should be (4,))."
    )


def test_export_does_not_cut_elsewhere_than_load():
    weight_map = WeightMap([Split("in", ["q", "kv"], sizes=[4, 8])])
    for q, kv in ((5, 7), (4, 7)):
        with pytest.raises(WeightsError, match=r"unusable q \+ kv .*should have .* rows, not"):
            weight_map.export({"q": numbered(q, 2), "kv": numbered(kv, 2)})
    with pytest.raises(WeightsError, match="cannot be joined in dimension 0"):
        weight_map.export({"q": numbered(4, 2), "kv": numbered(8, 3)})
    with pytest.raises(WeightsError, match="one dtype"):
        weight_map.export({"q": numbered(4, 2), "kv": numbered(8, 2).half()})


def test_clashes():
    with pytest.raises(WeightsError, match="'a' stands twice"):
        WeightMap([Rename("a", "x"), Rename("a", "y")])
    with pytest.raises(WeightsError, match="'x' stands twice"):
        WeightMap([Rename("a", "x"), Rename("b", "x")])
    with pytest.raises(WeightsError, match=r"same '\*' in every name"):
        Rename("a.*.b", "c.b")
    with pytest.raises(WeightsError, match=r"same '\*' in every name"):
        Rename("a.", "c")
    with pytest.raises(WeightsError, match="2 parts was given 3 sizes"):
        Fuse(["a", "b"], "c", sizes=[1, 1, 1])
    overlapping = WeightMap([Rename("a.", "x."), Rename("b", "x.w")])
    with pytest.raises(WeightsError, match=r"Two rows of the weight map give 'x.w'"):
        overlapping.load({"a.w": numbered(1), "b": numbered(1)})
    with pytest.raises(WeightsError, match=r"would become 'x.w'"):
        WeightMap([Rename("x.", "a."), Rename("x.w", "b")]).export(
            {"a.w": numbered(1), "b": numbered(1)}
        )


def test_maps_nest_and_add():
    """A composite model is its parts' tables under its own prefixes."""
    vision = WeightMap(
        [Rename("encoder.*.w", "layers.*.w"), Rename("norm.weight", "norm.weight")],
        prefixes=["vision_model."],
        spellings={".gamma": ".weight"},
    )
    text = WeightMap([Rename("h.*.w", "layers.*.w"), Rename("norm.gamma", "norm.gain")])
    both = vision.under("vision_tower.", "vision.") + text.under("text.", "text.")
    public = {
        "vision_tower.encoder.0.w": torch.randn(2),
        "vision_tower.norm.weight": torch.randn(2),
        "text.h.3.w": torch.randn(2),
        "text.norm.gamma": torch.randn(2),  # the other part's spelling must not touch it
    }
    ours = round_trip(both, public)
    assert set(ours) == {
        "vision.layers.0.w",
        "vision.norm.weight",
        "text.layers.3.w",
        "text.norm.gain",
    }
    old = {name.replace("tower.", "tower.vision_model."): t for name, t in public.items()}
    old["vision_tower.vision_model.norm.gamma"] = old.pop("vision_tower.vision_model.norm.weight")
    mapped = both.load(old)
    mapped.check()
    assert set(mapped) == set(ours)


def test_the_table_can_be_shown():
    rows = [line.split() for line in str(GPT2).splitlines()]
    assert ["transformer.h.*.ln_1.", "layers.*.attention_norm."] in rows
    assert ["transformer.h.*.attn.bias", "(dropped)"] in rows
    assert len({line.index("layers.") for line in str(GPT2).splitlines() if "layers." in line}) == 1


def test_files_are_mapped_lazily(tmp_path):
    """A renamed tensor is the mapped page itself, a fused one is read into new memory."""
    public = {"a": torch.randn(4, 4), "q": torch.randn(4, 4), "k": torch.randn(4, 4)}
    save_weights(public, tmp_path)
    weights = open_weights(tmp_path)
    mapped = WeightMap([Rename("a", "x"), Fuse(["q", "k"], "qk")]).load(weights)
    assert mapped["x"].read().data_ptr() == weights["a"].read().data_ptr()
    assert torch.equal(mapped["qk"].read(), torch.cat([public["q"], public["k"]]))
    assert torch.equal(mapped["qk"][2:5], torch.cat([public["q"], public["k"]])[2:5])
    exported = tmp_path / "back.safetensors"
    save_weights(WeightMap([Rename("a", "x"), Fuse(["q", "k"], "qk")]).export(mapped), exported)
    for name, tensor in safetensors.torch.load_file(exported).items():
        assert torch.equal(tensor, public[name])


def random_map(seed: int) -> tuple[WeightMap, State, set[str], set[str]]:
    """A random table, tensors for it, the names it must make, and which tensors are only copies."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    rules, public, ours, copies = [], {}, set(), set()
    dtype = dice.choice([torch.float32, torch.bfloat16, torch.float16, torch.float64])

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(dtype)

    for row in range(dice.randint(1, 12)):
        depth = dice.randint(1, 12)
        starred = dice.random() < 0.7
        theirs = f"t{row}.*.x" if starred else f"t{row}.x"
        mine = f"o{row}.*.y" if starred else f"o{row}.y"
        numbers = [str(i) for i in range(depth)] if starred else [""]

        def at(pattern: str, number: str) -> str:
            return pattern.replace("*", number)

        heads, width, d = dice.randint(1, 4), 2 * dice.randint(1, 3), dice.randint(1, 5)
        kind = dice.choice(["rename", "prefix", "step", "fuse", "split", "fill", "tie", "drop"])
        if kind == "rename":
            rules.append(Rename(theirs, mine))
            public |= {at(theirs, n): tensor(d, heads) for n in numbers}
            ours |= {at(mine, n) for n in numbers}
        elif kind == "prefix":
            rules.append(Rename(theirs + ".", mine + "."))
            for n in numbers:
                for tail in dice.sample(["weight", "bias", "a.0.b"], 2):
                    public[f"{at(theirs, n)}.{tail}"] = tensor(d)
                    ours.add(f"{at(mine, n)}.{tail}")
        elif kind == "step":
            steps, shape = dice.choice(
                [
                    ((Transpose(),), (d, heads)),
                    (
                        (Reshape((d, heads, width), (d, heads * width)), Transpose()),
                        (d, heads, width),
                    ),
                    ((Squeeze(1, 2), Transpose()), (d, 1, 1, heads)),
                    ((HalfSplit(heads, width),), (heads * width, d)),
                    ((FromHeadGroups(2 * heads, width, heads),), (4 * heads * width, d)),
                ]
            )
            rules.append(Rename(theirs, mine, *steps))
            public |= {at(theirs, n): tensor(*shape) for n in numbers}
            ours |= {at(mine, n) for n in numbers}
        elif kind in ("fuse", "split"):
            parts = dice.randint(2, 4)
            sizes = [dice.randint(1, 4) for _ in range(parts)]
            dim = dice.randint(0, 1)
            shapes = [(size, d) if dim == 0 else (d, size) for size in sizes]
            names = [f"{theirs if kind == 'fuse' else mine}{chr(97 + i)}" for i in range(parts)]
            if kind == "fuse":
                rules.append(Fuse(names, mine, dim=dim, sizes=sizes))
                for n in numbers:
                    public |= {at(k, n): tensor(*s) for k, s in zip(names, shapes, strict=True)}
                ours |= {at(mine, n) for n in numbers}
            else:
                rules.append(Split(theirs, names, dim=dim, sizes=sizes))
                total = (sum(sizes), d) if dim == 0 else (d, sum(sizes))
                public |= {at(theirs, n): tensor(*total) for n in numbers}
                ours |= {at(name, n) for n in numbers for name in names}
        elif kind == "fill":
            rules.append(Fuse([theirs + "q", Fill((d,), 2.0), theirs + "v"], mine, sizes=[d] * 3))
            public |= {at(theirs + part, n): tensor(d) for n in numbers for part in "qv"}
            ours |= {at(mine, n) for n in numbers}
        elif kind == "tie":
            writes = dice.randint(1, 2)
            rules.append(Tie([theirs + "a", theirs + "b"], [mine + "a", mine + "b"], writes=writes))
            for n in numbers:
                value = tensor(d)
                public |= {at(theirs + part, n): value for part in "ab"[:writes]}
                copies |= {at(theirs + part, n) for part in "ab" if writes == 2}
                ours |= {at(mine + part, n) for part in "ab"}
        else:
            rules.append(Drop(theirs))
    dice.shuffle(rules)
    names = list(public)
    dice.shuffle(names)
    return WeightMap(rules), {name: public[name] for name in names}, ours, copies


@pytest.mark.parametrize("seed", range(60))
def test_random_maps_are_reversible(seed, tmp_path):
    weight_map, public, expected, _ = random_map(seed)
    assert set(round_trip(weight_map, public)) == expected
    # and the same from a file, from which tensors are read lazily
    save_weights({name: tensor.clone() for name, tensor in public.items()}, tmp_path)
    exported = weight_map.export(weight_map.load(open_weights(tmp_path)))
    assert exported.keys() == public.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in public.items())


@pytest.mark.parametrize("seed", range(20))
def test_random_maps_notice_what_is_gone_or_extra(seed):
    weight_map, public, expected, copies = random_map(seed)
    if not public:
        return
    gone = random.Random(seed).choice(list(public))
    mapped = weight_map.load(
        {k: v for k, v in public.items() if k != gone} | {"extra.0": numbered(1)}
    )
    assert mapped.unmatched == ["extra.0"]
    lost = expected - set(mapped)
    assert bool(lost) != (gone in copies)
