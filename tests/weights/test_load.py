"""Loading: what a module holds afterwards, what it costs, and what is said when it does not fit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from zoo.errors import WeightsError
from zoo.weights.files import open_weights, save_weights
from zoo.weights.load import load_into
from zoo.weights.map import Fuse, Rename, Tie, Transpose, WeightMap


class Table(nn.Module):
    """A part with a persistent and a computed buffer, as rotary tables are."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("table", torch.zeros(size), persistent=False)

    def reset_buffers(self) -> None:
        self.table = torch.arange(self.size, dtype=torch.float32)


class Net(nn.Module):
    """A tied embedding and head, a frozen and a marked parameter, buffers of both kinds."""

    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.scale = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.scale.no_weight_decay = True
        self.table = Table(width)
        self.head = nn.Linear(width, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.classifier = nn.Linear(width, classes)

    def reset_parameters(self) -> None:
        self.scale.fill_(0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # b n
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + layer(x) * self.scale + self.table.table
        return self.head(x), self.classifier(x)


def on_meta(**sizes: int) -> Net:
    with torch.device("meta"):
        return Net(**sizes)


@pytest.fixture
def trained() -> Net:
    torch.manual_seed(0)
    net = Net()
    net.scale.data = torch.randn(4)
    net.table.count.fill_(17)
    net.table.reset_buffers()
    return net


def same_function(a: Net, b: Net) -> bool:
    tokens = torch.arange(6).view(2, 3)
    return all(torch.equal(x, y) for x, y in zip(a(tokens), b(tokens), strict=True))


@pytest.mark.parametrize("copy", [False, True])
def test_a_module_on_meta_becomes_the_saved_one(tmp_path, trained, copy):
    save_weights(trained.state_dict(), tmp_path)
    net = on_meta()
    report = load_into(net, open_weights(tmp_path), copy=copy)
    assert same_function(net, trained)
    assert net.table.count == 17
    assert len(report.loaded) == 9 and not report.new and not report.unused
    assert report.nbytes == sum(t.nbytes for t in {id(p): p for p in net.parameters()}.values()) + 8
    assert "9 tensors loaded" in str(report)


def test_parameters_keep_what_they_are(tmp_path, trained):
    save_weights(trained.state_dict(), tmp_path)
    net = on_meta()
    load_into(net, open_weights(tmp_path))
    assert net.head.weight is net.embedding.weight
    assert isinstance(net.scale, nn.Parameter) and not net.scale.requires_grad
    assert net.scale.no_weight_decay is True
    assert net.layers[0].weight.requires_grad and net.layers[0].weight.is_leaf


def test_tensors_are_the_mapped_file_and_training_leaves_it_alone(tmp_path, trained):
    [path] = save_weights(trained.state_dict(), tmp_path)
    before, weights, net = path.read_bytes(), open_weights(tmp_path), on_meta()
    load_into(net, weights)
    assert net.layers[0].weight.data_ptr() == weights["layers.0.weight"].read().data_ptr()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.arange(3).view(1, 3))[1].sum().backward()
    optimiser.step()
    assert path.read_bytes() == before
    other = on_meta()
    load_into(other, weights, copy=True)
    assert same_function(other, trained)


def test_a_module_that_has_values_is_loaded_too(trained):
    net = Net()
    net.table.reset_buffers()
    load_into(net, trained.state_dict(), copy=True)
    assert same_function(net, trained)
    assert net.layers[0].weight.data_ptr() != trained.layers[0].weight.data_ptr()


@pytest.mark.parametrize("name", ["embedding.weight", "head.weight"])
def test_either_name_of_a_tied_tensor_will_do(trained, name):
    state = trained.state_dict()
    table = state["embedding.weight"].clone()
    for tied in ("embedding.weight", "head.weight"):
        del state[tied]
    net = on_meta()
    load_into(net, state | {name: table})
    assert net.head.weight is net.embedding.weight and torch.equal(net.head.weight, table)


def test_tied_names_with_different_values_are_refused(trained):
    state = trained.state_dict() | {"head.weight": torch.ones(7, 4)}
    with pytest.raises(WeightsError, match=r"embedding.weight and head.weight differ"):
        load_into(on_meta(), state)


def test_what_the_file_ties_and_the_model_does_not_gets_its_own_memory(tmp_path):
    shared = torch.randn(4, 4)
    save_weights({"0.weight": shared, "1.weight": shared}, tmp_path)
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    load_into(net, open_weights(tmp_path))
    with torch.no_grad():
        net[0].weight.zero_()
    assert torch.equal(net[1].weight, shared)


def test_shared_modules_are_one(tmp_path):
    with torch.device("meta"):
        layer = nn.Linear(3, 3)
        net = nn.ModuleDict({"a": layer, "b": layer})
    load_into(net, {"b.weight": torch.ones(3, 3), "a.bias": torch.ones(3)})
    assert net["a"] is net["b"]
    assert torch.equal(net["a"].weight, torch.ones(3, 3)) and net["b"].bias.sum() == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_casting(tmp_path, trained, dtype):
    save_weights(trained.state_dict(), tmp_path)
    net = on_meta()
    load_into(net, open_weights(tmp_path), dtype=dtype)
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert net.table.count.dtype == torch.int64
    torch.testing.assert_close(net.scale, trained.scale.to(dtype))


def test_stored_dtype_is_kept(tmp_path, trained):
    save_weights(trained.bfloat16().state_dict(), tmp_path)
    net = on_meta()
    load_into(net, open_weights(tmp_path))
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}


def test_device(trained):
    for net in (Net(), on_meta()):
        load_into(net, trained.state_dict(), device="cpu")
        assert {t.device.type for t in (*net.parameters(), *net.buffers())} == {"cpu"}


def test_everything_that_does_not_fit_is_said_at_once(tmp_path, trained):
    state = trained.state_dict()
    state["layers.0.weigth"] = state.pop("layers.0.weight")
    state["classifier.bias"] = torch.zeros(5)
    state["table.count"] = torch.tensor(1.0)
    save_weights(state, tmp_path)
    net = on_meta()
    with pytest.raises(WeightsError) as caught:
        load_into(net, open_weights(tmp_path))
    assert str(caught.value).splitlines() == [
        "The weights do not fit Net (1 missing, 1 unexpected, 2 of wrong shape); "
        "partial=True loads what fits.",
        "  missing: layers.0.weight (4, 4) (nearest in the file: layers.0.weigth)",
        "  unexpected: layers.0.weigth (nearest in the model: layers.0.weight)",
        "  of wrong shape: table.count: float32 in the file, int64 in the model",
        "  of wrong shape: classifier.bias: (5) in the file, (3) in the model",
    ]
    assert all(t.is_meta for t in net.state_dict().values()), "the module must be untouched"


def test_at_most_ten_names_of_a_kind():
    with torch.device("meta"):
        net = nn.ModuleList(nn.Linear(2, 2) for _ in range(40))
    with pytest.raises(WeightsError) as caught:
        load_into(net, {f"x{i}": torch.ones(1) for i in range(33)})
    lines = str(caught.value).splitlines()
    assert len(lines) == 23 and "  missing: 70 more" in lines and "  unexpected: 23 more" in lines


def test_problems_of_a_map_are_part_of_the_same_message(trained):
    weight_map = WeightMap(
        [
            Fuse(["h.*.a.", "h.*.b."], "layers.*."),
            Tie(["wte"], ["embedding.weight", "head.weight"]),
            Rename("out.", "classifier."),
        ]
    )
    public = {"h.0.a.weight": torch.ones(2, 4), "h.1.a.weight": torch.ones(2, 4)}
    public |= {"h.1.b.weight": torch.ones(3, 4), "wte": torch.ones(7, 4), "odd": torch.ones(1)}
    with pytest.raises(WeightsError) as caught:
        load_into(on_meta(), weight_map.load(public))
    text = str(caught.value)
    assert "missing: layers.0.weight (4, 4): the file has no 'h.0.b.weight'" in text
    assert "layers.1.weight (4, 4): 'h.1.a.weight' (2, 4), 'h.1.b.weight' (3, 4) should" in text
    assert "missing: classifier.weight (3, 4), in the file out.weight" in text
    assert "unexpected: odd" in text


class TestPartial:
    def test_a_new_head_is_initialised_and_the_rest_loaded(self, tmp_path, trained):
        state = {k: v for k, v in trained.state_dict().items() if k != "classifier.bias"}
        save_weights({**state, "old": torch.ones(2)}, tmp_path)
        net = on_meta(classes=5)
        torch.manual_seed(0)
        report = load_into(net, open_weights(tmp_path), partial=True)
        assert report.new == ("classifier.weight", "classifier.bias") and report.unused == ("old",)
        assert report.wrong_shape == {
            "classifier.weight": "(3, 4) in the file, (5, 4) in the model"
        }
        assert "new: classifier.weight" in str(report) and "unused: old" in str(report)
        assert net.classifier.weight.shape == (5, 4)
        assert 0 < net.classifier.weight.abs().max() <= 0.5  # nn.Linear's own range, 1/sqrt(4)
        assert torch.equal(net.layers[0].weight, trained.layers[0].weight)
        assert net.head.weight is net.embedding.weight

    def test_initialising_a_module_does_not_undo_what_was_loaded(self, trained):
        state = trained.state_dict()
        del state["classifier.bias"]
        net = on_meta()
        report = load_into(net, state, partial=True)
        assert report.new == ("classifier.bias",)
        assert torch.equal(net.classifier.weight, trained.classifier.weight)
        assert net.classifier.weight.requires_grad and not net.classifier.bias.is_meta

    def test_the_callers_initialiser(self, trained):
        state = trained.state_dict()
        for name in ("classifier.bias", "layers.1.weight", "table.count", "scale"):
            del state[name]
        seen = []

        def init(module: nn.Module) -> None:
            seen.append(type(module).__name__)
            for tensor in (*module._parameters.values(), module._buffers.get("count")):
                if tensor is not None:
                    tensor.fill_(3)

        net = on_meta()
        report = load_into(net, state, partial=True, init=init)
        assert sorted(seen) == ["Linear", "Linear", "Net", "Table"]
        assert set(report.new) == {"classifier.bias", "layers.1.weight", "table.count", "scale"}
        assert net.table.count == 3 and net.scale.tolist() == [3] * 4
        assert not net.scale.requires_grad and net.scale.no_weight_decay
        assert net.table.table.tolist() == [0, 1, 2, 3]
        assert torch.equal(net.layers[1].bias, trained.layers[1].bias)

    def test_new_tensors_take_the_dtype_of_the_rest(self, trained):
        state = trained.bfloat16().state_dict()
        del state["classifier.bias"], state["classifier.weight"]
        net = on_meta()
        load_into(net, state, partial=True)
        assert net.classifier.bias.dtype == torch.bfloat16

    def test_a_module_with_values_keeps_them(self, trained):
        net = Net()
        before = net.classifier.bias.clone()
        state = trained.state_dict()
        del state["classifier.bias"]
        assert load_into(net, state, partial=True).new == ("classifier.bias",)
        assert torch.equal(net.classifier.bias, before)

    def test_nothing_to_initialise_with(self):
        with torch.device("meta"):
            net = Table(3)
        with pytest.raises(WeightsError, match=r"count: Table has no reset_parameters\(\)"):
            load_into(net, {}, partial=True)


def test_a_buffer_that_nothing_fills_is_named():
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(1, 1))
        net[0].register_buffer("mask", torch.zeros(3), persistent=False)
    state = {"0.weight": torch.ones(1, 1), "0.bias": torch.ones(1)}
    for device in (None, "cpu"):
        with pytest.raises(WeightsError, match=r"\(0.mask\); .*reset_buffers\(\)"):
            load_into(net, state, device=device)


def test_loading_computes_nothing_on_meta(tmp_path, trained):
    """An operation on meta imports hundreds of modules, more than a second."""
    save_weights(trained.state_dict(), tmp_path)
    code = """
import sys, torch
from torch import nn
from zoo.weights.files import open_weights
from zoo.weights.load import load_into
from zoo.weights.map import Fuse, Rename, Transpose, WeightMap
weights = open_weights(sys.argv[1])
with torch.device("meta"):
    net = nn.Module()
    net.weight = nn.Parameter(torch.empty(8, 4))
    net.bias = nn.Parameter(torch.empty(4))
    net.turned = nn.Parameter(torch.empty(4, 3))
    net.register_buffer("table", torch.empty(4), persistent=False)
    net.reset_buffers = lambda: setattr(net, "table", torch.zeros(4))
before = set(sys.modules)
rows = [
    Fuse(["layers.0.weight", "layers.1.weight"], "weight"),
    Rename("scale", "bias"),
    Rename("classifier.weight", "turned", Transpose()),
]
report = load_into(net, WeightMap(rows).load(weights), partial=True)
print(len(report.loaded), len(report.unused), net.turned.shape)
new = set(sys.modules) - before
assert len(new) < 40, len(new)
"""
    done = run_python(code, tmp_path)
    assert done.stdout.split() == ["3", "6", "torch.Size([4,", "3])"], done.stderr


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


MEASURE = """
import ctypes, json, sys, time
import torch
from torch import nn
from zoo.weights.files import open_weights
from zoo.weights.load import load_into
from zoo.weights.map import Fuse, Rename, Transpose, WeightMap

torch.set_num_threads(1)
path, how = sys.argv[1:]

def module(depth=24):
    with torch.device("meta"):
        net = nn.Module()
        net.layers = nn.ModuleList(nn.Module() for _ in range(depth))
        for layer in net.layers:
            layer.qkv = nn.Parameter(torch.empty(3 * 512, 512))
            layer.up = nn.Parameter(torch.empty(2048, 512))
            layer.out = nn.Parameter(torch.empty(512, 512))
    return net

def memory(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) * 1024

def touch(net):  # one value of every page
    flat = ((p if p.is_contiguous() else p.T).view(-1) for p in net.parameters())
    return sum(float(p[::1024].float().sum()) for p in flat)

def load():
    weights = open_weights(path)
    if how.startswith("mapped"):
        fuse = Fuse(["layers.*.q", "layers.*.k", "layers.*.v"], "layers.*.qkv")
        up = Rename("layers.*.up", "layers.*.up", Transpose())
        weights = WeightMap([fuse, up, Rename("layers.*.out", "layers.*.out")]).load(weights)
    options = {"copy": {"copy": True}, "cast": {"dtype": torch.bfloat16}}.get(how, {})
    net = module()
    report = load_into(net, weights, **options)
    return net, report.nbytes

if how.endswith("time"):  # CPU seconds: a bare map and copy; a load with every page touched
    from safetensors import safe_open

    def bare():
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}

    best = {}
    for _ in range(5):
        for kind, work in (("bare", bare), ("ours", lambda: touch(load()[0]))):
            ctypes.CDLL(None).malloc_trim(0)  # both start without memory to use again
            start = time.process_time()
            kept = work()
            best[kind] = min(best.get(kind, 1e9), time.process_time() - start)
            del kept
    print(json.dumps(best))
    sys.exit()

touch(load()[0])  # what is imported on first use is not the load's
ctypes.CDLL(None).malloc_trim(0)  # nor may it use memory that this left behind
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
net, size = load()
total = touch(net)
peak = memory("VmHWM") - before
print(json.dumps({"size": size, "peak": peak, "sum": total}))
"""


def test_a_transposed_tensor_is_a_view_unless_copied(tmp_path):
    stored = torch.randn(3, 4)
    save_weights({"turned": stored}, tmp_path)
    rows = WeightMap([Rename("turned", "weight", Transpose())])

    def loaded(**options):
        with torch.device("meta"):
            net = nn.Linear(3, 4, bias=False)
        load_into(net, rows.load(open_weights(tmp_path)), **options)
        return net.weight

    weight = loaded()
    assert torch.equal(weight, stored.T) and weight.stride() == (1, 4)
    with torch.no_grad():  # writing to it touches no file
        weight.zero_()
    assert torch.equal(loaded(), stored.T)
    for options in ({"copy": True}, {"dtype": torch.float64}):
        weight = loaded(**options)
        assert torch.equal(weight, stored.T.to(weight.dtype)) and weight.is_contiguous()


@pytest.fixture(scope="module")
def big_files(tmp_path_factory):
    """The same 227 MB of random weights in our names and in a public format's."""
    folder = tmp_path_factory.mktemp("big")
    torch.manual_seed(0)
    block = torch.randn(3 * 512 + 2048 + 512, 512)
    ours, public = {}, {}
    for i in range(24):
        qkv, up, out = (block + i / 8).split([1536, 2048, 512])
        ours |= {f"layers.{i}.qkv": qkv, f"layers.{i}.up": up, f"layers.{i}.out": out}
        public |= {f"layers.{i}.{part}": t for part, t in zip("qkv", qkv.chunk(3), strict=True)}
        public |= {f"layers.{i}.up": up.T, f"layers.{i}.out": out}
    [native] = save_weights(ours, folder / "native.safetensors")
    [foreign] = save_weights(public, folder / "foreign.safetensors")
    yield {"native": native, "foreign": foreign}
    native.unlink()
    foreign.unlink()


@pytest.mark.parametrize(
    ("how", "file", "share"),
    [
        ("view", "native", 1.0),
        ("copy", "native", 1.0),
        ("cast", "native", 0.5),
        ("mapped", "foreign", 1.0),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory(big_files, how, file, share):
    """Peak resident memory of a load with every page touched, own and mapped pages alike."""
    done = run_python(MEASURE, big_files[file], how)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    stored = 24 * 4096 * 512 * 4
    assert found["size"] == stored * share and found["sum"] != 0
    assert 0.9 * found["size"] < found["peak"] <= 1.1 * found["size"], found["peak"] / found["size"]


@pytest.mark.parametrize(("how", "file"), [("view time", "native"), ("mapped time", "foreign")])
def test_a_load_is_no_slower_than_a_bare_map_and_copy(big_files, how, file):
    """Measured: 0.1x with our names, 0.6x with most of it fused and transposed on the way."""
    done = run_python(MEASURE, big_files[file], how)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ours"] <= 1.15 * found["bare"], found
