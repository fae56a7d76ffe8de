"""LPIPS against the `lpips` package: VGG16 of random weights, the package's weights of channels."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.errors import ConfigError, WeightsError
from zoo.registry import build, resolve


@pytest.fixture(scope="module")
def theirs():
    """Their network; of torchvision's VGG16 the convolutions alone, its classifier is unread."""
    lpips = pytest.importorskip("lpips")  # tools/references.txt
    vgg = pytest.importorskip("torchvision").models.vgg
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        features = vgg.make_layers(vgg.cfgs["D"])
        for layer in features:
            if hasattr(layer, "bias"):
                torch.nn.init.normal_(layer.bias, std=0.1)
                torch.nn.init.kaiming_normal_(layer.weight)
        made = SimpleNamespace(features=features)
        patch.setattr(lpips.pretrained_networks.tv, "vgg16", lambda pretrained: made)
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    return network, features, Path(lpips.__file__).parent / "weights/v0.1/vgg.pth"


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    _, features, channels = theirs
    folder = tmp_path_factory.mktemp("lpips")
    state = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    torch.save({**state, "classifier.0.bias": torch.zeros(1)}, folder / "vgg16-397923af.pth")
    (folder / "vgg.pth").write_bytes(channels.read_bytes())
    return folder


def make(folder):
    return build(
        resolve("perceptual", {"name": "lpips", "folder": str(folder), "allow_pickle": True})
    )


def test_the_distance_is_theirs(theirs, folder):
    network, ours = theirs[0], make(folder)
    generator = torch.Generator().manual_seed(1)
    made, real = (torch.rand(2, 3, 32, 48, generator=generator) for _ in range(2))
    made.requires_grad_()
    expected = network(made, real, normalize=True).mean()
    found = ours(made, real)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(loss, made)[0] for loss in (found, expected)]
    scale = gradients[1].abs().max()
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-4 * scale
    grey = torch.rand(1, 1, 16, 16)
    assert float(ours(grey, grey)) == 0
    black = torch.zeros(1, 3, 16, 16, requires_grad=True)  # where features may be nothing at all
    ours(black, black.detach()).backward()
    assert bool(black.grad.isfinite().all())


def test_a_whole_lpips_in_one_file_serves_as_well(theirs, folder, tmp_path):
    torch.save(theirs[0].state_dict(), tmp_path / "lpips.pth")
    made, real = torch.rand(2, 1, 3, 16, 16)
    assert torch.equal(make(tmp_path)(made, real), make(folder)(made, real))


def test_what_lacks_is_one_sentence(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"perceptual\.folder: name one with torchvision's vgg16"):
        build(resolve("perceptual", {"name": "lpips"}))
    with pytest.raises(WeightsError, match="is no folder"):
        make(tmp_path / "none")
    (tmp_path / "vgg.pth").write_bytes((folder / "vgg.pth").read_bytes())
    with pytest.raises(WeightsError, match=r"has no features\.0\.weight; it needs torchvision's"):
        make(tmp_path)
    with pytest.raises(WeightsError, match="is a pickle"):
        build(resolve("perceptual", {"name": "lpips", "folder": str(folder)}))


def test_an_objective_takes_it_by_name(folder):
    keys = {"name": "lpips", "folder": str(folder), "allow_pickle": True, "weight": 0.5}
    objective = build(resolve("objective", {"name": "reconstruction", "perceptual": keys}))
    model = zoo.create("vq-digits", seed=0)
    loss = objective(model, {"pixels": torch.rand(2, 3, 32, 32)})
    parts = loss.scalars
    expected = parts["reconstruction"] + 0.5 * parts["perceptual"]
    expected = expected + parts["commitment"]
    torch.testing.assert_close(loss.value, expected)
