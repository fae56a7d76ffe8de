"""zoo.plot: pictures that show what they should."""

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def model():
    return zoo.create("vit-digits", "backbone.depth=1", seed=0).eval()


@pytest.fixture
def looking(monkeypatch, model):
    """A model whose first head looks at the top right patch only, the second at the bottom left."""
    maps = np.zeros((2, 8, 8))
    maps[0, 0, 7] = maps[1, 7, 0] = 1.0
    monkeypatch.setattr(model, "attention_maps", lambda image: maps, raising=False)
    return model


def brightness(picture):
    return np.asarray(picture.convert("L"), dtype=float)


def test_attention_is_bright_where_the_model_looks(looking):
    black = np.zeros((32, 32), dtype=np.uint8)
    picture = zoo.plot.attention(looking, black, head=0, size=64)
    assert picture.size == (64, 64) and picture.mode == "RGB"
    levels = brightness(picture)
    assert levels[:8, -8:].mean() > 100 and levels[32:, :32].max() < 10
    other = brightness(zoo.plot.attention(looking, black, head=1, size=64))
    assert other[-8:, :8].mean() > 100 and other[:32, 32:].max() < 10


def test_attention_of_all_heads_is_their_mean(looking):
    levels = brightness(zoo.plot.attention(looking, np.zeros((32, 32), np.uint8), size=64))
    assert levels[:8, -8:].mean() > 100 and levels[-8:, :8].mean() > 100


def test_attention_leaves_the_picture_visible(looking):
    white = np.full((32, 32), 255, dtype=np.uint8)
    levels = brightness(zoo.plot.attention(looking, white, head=0, size=64, strength=0.0))
    assert levels.min() == 255


def test_attention_of_a_real_model(model):
    picture = zoo.plot.attention(model, np.zeros((32, 32), np.uint8))
    assert picture.size == (224, 224)


def test_attention_refuses(model):
    image = np.zeros((32, 32), np.uint8)
    heads = model.config.backbone.attention.heads
    with pytest.raises(ConfigError, match=f"heads 0 to {heads - 1}, got 9"):
        zoo.plot.attention(model, image, head=9)
    with pytest.raises(ConfigError, match="no attention maps"):
        zoo.plot.attention(object(), image)
    with pytest.raises(DataError):
        zoo.plot.attention(model, b"no picture")


def test_seen_puts_the_colours_back():
    model = zoo.create(
        "vit-digits", "backbone.depth=1", "tokenizer.channels=3", "tokenizer.resize=squash", seed=0
    )
    red = Image.new("RGB", (50, 50), (200, 30, 90))
    levels = np.asarray(zoo.plot.seen(model, red))
    assert levels.shape == (32, 32, 3)
    assert np.abs(levels.reshape(-1, 3).astype(int) - (200, 30, 90)).max() <= 1


def test_heat_orders_what_it_shows():
    levels = brightness(zoo.plot.heat([[0, 1, 2, 3, 4]]))
    assert (np.diff(levels[0]) > 0).all()
    assert zoo.plot.heat(np.eye(3), size=(60, 40)).size == (60, 40)
    assert zoo.plot.heat(np.zeros((2, 2))).size == (2, 2)


@pytest.mark.parametrize("bad", [[1, 2, 3], [[np.nan]], np.zeros((0, 2)), np.zeros((2, 2, 2))])
def test_heat_refuses(bad):
    with pytest.raises(DataError, match="table of finite numbers"):
        zoo.plot.heat(bad)


def test_matrix_tells_right_from_wrong():
    picture = np.asarray(zoo.plot.matrix([[9, 0], [3, 5]], ["a", "b"], cell=40), dtype=int)
    blue = (picture[..., 2] - picture[..., 0] > 60).any()
    red = picture[..., 0] - picture[..., 2] > 60
    assert blue and red.any()
    rows, columns = np.nonzero(red)
    middle = picture.shape[0] / 2
    assert rows.mean() > middle > columns.mean() - 20  # the mistakes are in row b, column a
    with pytest.raises(DataError, match="a row and a column per label"):
        zoo.plot.matrix([[1]], ["a", "b"])


def test_sheet_lays_out_rows():
    pictures = [Image.new("L", (10, 20), 255 * (i % 2)) for i in range(5)]
    one = zoo.plot.sheet(pictures, columns=5, size=50)
    two = zoo.plot.sheet(pictures, [str(i) for i in range(5)], columns=3, size=50)
    assert one.size == (5 * 55 + 5, 60)
    assert two.size == (3 * 55 + 5, 2 * (50 + 10 + 5) + 5)
    with pytest.raises(DataError, match="at least one"):
        zoo.plot.sheet([])


def test_save_makes_its_folder_and_wants_a_format(tmp_path):
    picture = zoo.plot.heat(np.eye(4))
    path = zoo.plot.save(picture, tmp_path / "new" / "heat.png")
    assert Image.open(path).size == (4, 4)
    with pytest.raises(DataError, match=r"heat.nope: .*use .png"):
        zoo.plot.save(picture, tmp_path / "heat.nope")


def test_a_table_shows_each_share_where_it_belongs():
    shares = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    image = zoo.plot.table(shares, ["a", " b\n"], ["x", "y", "z"], cell=20)
    pixels = np.asarray(image).astype(int)
    left, top = image.width - 60, image.height - 40
    cells = [[pixels[top + 20 * i + 9, left + 20 * j + 9].sum() for j in range(3)] for i in (0, 1)]
    assert cells[0][0] > cells[1][1] > cells[0][1]  # bright is much
    assert cells[1][1] == cells[1][2] and cells[0][1] == cells[0][2] == cells[1][0]
    with pytest.raises(DataError, match="a name per row"):
        zoo.plot.table(shares, ["a"], ["x", "y", "z"])


def test_words_redden_with_their_value_and_break_their_lines():
    calm = np.asarray(zoo.plot.words([("ab", 0.0), ("cd", 0.0)])).astype(int)
    keen = np.asarray(zoo.plot.words([("ab", 0.0), ("cd", 9.0)])).astype(int)
    assert np.ptp(calm, axis=2).max() == np.ptp(np.asarray([[32, 33, 36]]))  # no colour but the ink
    assert (keen[..., 0] - keen[..., 1]).max() > 100
    one = zoo.plot.words([("ab", 1.0)])
    assert zoo.plot.words([("ab\ncd", 1.0)]).height > one.height
    assert zoo.plot.words([("long ", 1.0)] * 60, width=200).height > 4 * one.height
    with pytest.raises(DataError, match="at least one piece"):
        zoo.plot.words([])


def test_speech_shows_a_waveform_features_and_words():
    from zoo.models.speech.transcript import Word

    wave = np.zeros(16000)
    wave[8000:] = np.sin(np.arange(8000))
    features = np.zeros((100, 40))
    features[:, :20] = 1  # the low half is bright, so the lower half of the picture is
    picture = np.asarray(zoo.plot.speech(wave, 16000, features, [Word("one", 0.5, 0.9, 1.0)], 400))
    blue = (picture[:90] == (26, 95, 180)).all(-1)
    assert blue[:, 210:].sum() > 5 * blue[:, :190].sum()
    shades = picture[110:240, 20].astype(int).sum(-1)
    assert shades[-1] > shades[0]
    assert (picture[:, 200] == (200, 40, 40)).all(-1).sum() > 200  # where the word begins
    with pytest.raises(DataError, match="one row of samples"):
        zoo.plot.speech(np.zeros((2, 5)), 16000, features)
