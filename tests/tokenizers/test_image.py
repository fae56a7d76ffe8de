"""Pixels against timm's and transformers' own preprocessing, and what happens to hostile input."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.errors import DataError
from zoo.tokenizers.image import MAX_PIXELS, as_list, open_image, to_pixels

SIZES = [
    (1, 1),
    (2, 3),
    (5, 1),
    (17, 31),
    (31, 17),
    (48, 48),
    (50, 49),
    (97, 64),
    (64, 97),
    (33, 200),
]
HALF = (0.5, 0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Pixels with edges and gradients, so that every filter has something to do."""
    generator = np.random.default_rng(width * 1000 + height)
    coarse = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels))
    return np.kron(coarse, np.ones((4, 4, 1)))[:height, :width].astype(np.uint8)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    planes = noise(width, height, len(Image.new(mode, (1, 1)).getbands()))
    return Image.merge(mode, [Image.fromarray(planes[..., i]) for i in range(planes.shape[2])])


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# -- parity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crop", "mode", "interpolation", "size"),
    [
        (0.875, "center", "bilinear", (32, 32)),
        (0.9, "center", "bicubic", (48, 48)),
        (0.95, "center", "bicubic", (40, 40)),
        (1.0, "center", "bicubic", (33, 33)),
        (0.9, "squash", "bicubic", (48, 32)),
        (1.0, "squash", "lanczos", (30, 45)),
        (0.9, "center", "bicubic", (32, 64)),
        (0.875, "center", "nearest", (64, 24)),
    ],
)
def test_pixels_equal_timm(crop, mode, interpolation, size) -> None:
    from timm.data import create_transform

    mean, std = IMAGENET
    transform = create_transform(
        (3, *size), interpolation=interpolation, crop_pct=crop, crop_mode=mode, mean=mean, std=std
    )
    for width, height in SIZES:
        image = picture(width, height)
        ours = to_pixels(
            [image],
            size=size,
            crop=crop,
            resize={"center": "shortest", "squash": "squash"}[mode],
            interpolation=interpolation,
            mean=mean,
            std=std,
        )
        theirs = transform(image)[None]
        assert torch.equal(ours, theirs), (width, height)


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_pixels_equal_vit_processor(resample) -> None:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 48, "width": 40}, resample=resample)
    for width, height in SIZES:
        image = picture(width, height)
        ours = to_pixels(
            [image], size=(48, 40), resize="squash", interpolation=resample.name.lower()
        )
        theirs = processor(image, return_tensors="pt").pixel_values
        assert torch.equal(ours, theirs), (width, height)


@pytest.mark.parametrize(("short", "crop"), [(48, 48), (56, 48), (55, 48), (37, 32)])
def test_pixels_equal_clip_processor(short, crop) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": short}, crop_size={"height": crop, "width": crop}
    )
    for width, height in SIZES:
        image = picture(width, height)
        ours = to_pixels(
            [image],
            size=(crop, crop),
            crop=crop / short,
            crop_offset="floor",
            mean=processor.image_mean,
            std=processor.image_std,
        )
        theirs = processor(image, return_tensors="pt").pixel_values
        assert torch.equal(ours, theirs), (width, height)


def test_pixels_equal_deit_processor() -> None:
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil

    processor = DeiTImageProcessorPil(
        size={"height": 64, "width": 64}, crop_size={"height": 56, "width": 56}
    )
    for width, height in SIZES:
        image = picture(width, height)
        ours = to_pixels([image], size=(56, 56), crop=56 / 64, crop_offset="floor", resize="squash")
        theirs = processor(image, return_tensors="pt").pixel_values
        assert torch.equal(ours, theirs), (width, height)


def test_odd_rests_differ_between_the_two_croppings() -> None:
    image = picture(35, 32)
    both = [to_pixels([image], size=(32, 32), crop_offset=o) for o in ("round", "floor")]
    assert not torch.equal(*both)


def test_pad_puts_the_picture_in_a_square_of_the_mean_colour() -> None:
    mean = (0.48145466, 0.4578275, 0.40821073)
    wide = np.zeros((4, 8, 3), np.uint8)
    square = to_pixels(
        [wide], size=(8, 8), resize="pad", mean=mean, std=(1.0, 1.0, 1.0), interpolation="nearest"
    )[0]
    colour = torch.tensor([int(255 * m) for m in mean]) / 255 - torch.tensor(mean)
    torch.testing.assert_close(square[:, 0, 0], colour)
    torch.testing.assert_close(square[:, 2:6], -torch.tensor(mean)[:, None, None].expand(3, 4, 8))


# -- modes -----------------------------------------------------------------------------------------


def palette(transparency: bytes | int | None) -> Image.Image:
    image = picture(23, 19).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    options = {} if transparency is None else {"transparency": transparency}
    return Image.open(io.BytesIO(saved(image, "PNG", **options)))


MODES = {
    "1": lambda: picture(23, 19, "L").convert("1"),
    "L": lambda: picture(23, 19, "L"),
    "LA": lambda: picture(23, 19, "LA"),
    "RGB": lambda: picture(23, 19),
    "RGBA": lambda: picture(23, 19, "RGBA"),
    "P": lambda: palette(None),
    "P with one clear colour": lambda: palette(3),
    "P with an alpha table": lambda: palette(bytes(range(0, 256, 16))),
    "L with one clear colour": lambda: Image.open(
        io.BytesIO(saved(picture(23, 19, "L"), "PNG", transparency=7))
    ),
    "CMYK": lambda: picture(23, 19, "CMYK"),
    "YCbCr": lambda: picture(23, 19).convert("YCbCr"),
    "HSV": lambda: picture(23, 19).convert("HSV"),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_equal_transformers(mode) -> None:
    from transformers.image_transforms import convert_to_rgb

    image = MODES[mode]()
    np.testing.assert_array_equal(
        np.asarray(open_image(image)), convert_to_rgb(image, return_numpy=True)
    )


def test_premultiplied_alpha_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert open_image(clear.convert("RGBa")).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(clear.convert("LA").convert("La")).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_keep_their_upper_eight() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 128, 255]], np.uint8)
    from_file = open_image(saved(Image.fromarray(values), "PNG"), channels=1)
    np.testing.assert_array_equal(np.asarray(from_file), expected)
    np.testing.assert_array_equal(np.asarray(open_image(values, channels=1)), expected)
    assert np.asarray(open_image(values)).shape == (1, 5, 3)


def test_whole_number_and_float_modes_follow_the_rules_of_arrays() -> None:
    assert (
        open_image(Image.fromarray(np.full((2, 2), 200, np.int32))).getpixel((0, 0)) == (200,) * 3
    )
    assert open_image(Image.fromarray(np.full((2, 2), 1.0, np.float32))).getpixel((0, 0)) == (
        255,
        255,
        255,
    )
    with pytest.raises(DataError, match=r"0\.\.255, this one 70000"):
        open_image(Image.fromarray(np.full((2, 2), 70000, np.int32)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation, format) -> None:
    from PIL import ImageOps

    upright = picture(12, 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    stored = Image.open(io.BytesIO(saved(upright, format, exif=exif, **options)))
    turned = ImageOps.exif_transpose(stored)
    assert turned.size == ((20, 12) if orientation >= 5 else (12, 20))
    np.testing.assert_array_equal(np.asarray(open_image(stored)), np.asarray(turned))
    twice = open_image(open_image(stored))  # the tag must be gone, or it would be applied again
    np.testing.assert_array_equal(np.asarray(twice), np.asarray(turned))


def test_broken_exif_does_not_lose_the_picture() -> None:
    data = saved(picture(12, 20), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff junk")
    assert open_image(data).size == (12, 20)


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(data).getpixel((3, 3)) == (255, 0, 0)
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert open_image(data).getpixel((3, 3)) == (255, 0, 0)


def test_files_are_closed(tmp_path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "lime")]
    path.write_bytes(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        open_image(path)
    with path.open("rb") as file:
        open_image(file)
        assert not file.closed


# -- arrays ----------------------------------------------------------------------------------------


def test_every_way_to_give_a_picture_gives_the_same_pixels(tmp_path) -> None:
    image = picture(21, 18)
    path = tmp_path / "picture.png"
    image.save(path)
    values = np.asarray(image)
    ways = [
        image,
        path,
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        values,
        values.astype(np.int64),
        values.transpose(2, 0, 1),
        torch.from_numpy(values.copy()),
        torch.from_numpy(values.copy()).permute(2, 0, 1).contiguous(),
        values / 255,
        (values / 255).astype(np.float32),
        torch.from_numpy(values / 255).double().requires_grad_(),
        values.astype(np.uint16) << 8,
    ]
    pixels = to_pixels(ways, size=(18, 24))
    for index in range(1, len(ways)):
        assert torch.equal(pixels[index], pixels[0]), index


def test_bfloat16_tensors_and_grey_arrays() -> None:
    assert open_image(torch.ones(3, 4, 5, dtype=torch.bfloat16)).size == (5, 4)
    assert open_image(np.eye(4, dtype=bool), channels=1).mode == "L"
    assert open_image(np.zeros((1, 4, 5), np.uint8)).size == (5, 4)
    assert open_image(np.zeros((4, 5, 1), np.uint8)).size == (5, 4)


def test_as_list() -> None:
    stack = np.zeros((2, 4, 4, 3), np.uint8)
    assert as_list("a.png") == (["a.png"], False)
    assert as_list(["a.png"]) == (["a.png"], True)
    assert len(as_list(stack)[0]) == 2 and as_list(stack)[1]
    assert as_list(stack[0])[1] is False


# -- hostile input ---------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing: decoding it, or allocating for it, would show."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 400, text
    return text


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 9_000), (65_535, 1_000)])
def test_bombs_are_refused_by_their_header(tmp_path, size) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as error:
            open_image(path)
    assert f"{MAX_PIXELS:,}" in one_sentence(error)


def test_a_real_bomb_costs_no_memory(tmp_path) -> None:
    import tracemalloc

    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    tracemalloc.start()
    with pytest.raises(DataError, match="scale it down"):
        open_image(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("resize", ["shortest", "pad"])
def test_long_and_thin_pictures_do_not_grow_without_bound(resize) -> None:
    with pytest.raises(DataError, match="too long and thin") as error:
        to_pixels([Image.new("L", (60_000, 1))], size=(224, 224), resize=resize)
    one_sentence(error)


HOSTILE = {
    "empty": b"",
    "text": b"this is no picture\n" * 10,
    "html": b"<!DOCTYPE html><html></html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "only a header": png_header(30, 30),
    "half a jpeg header": b"\xff\xd8\xff\xe0\x00\x10JF",
    "zero pixels": png_header(0, 10),
    "bad chunk": saved(picture(40, 40), "PNG")[:60] + b"\0" * 40,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_gives_one_sentence(tmp_path, name) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(HOSTILE[name])
    for source in (path, HOSTILE[name]):
        with pytest.raises(DataError) as error:
            open_image(source)
        one_sentence(error)
    with pytest.raises(DataError, match=r"file\.bin"):
        open_image(str(path))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_and_flipped_files_give_one_sentence_or_a_picture(format) -> None:
    data = saved(picture(40, 30), format)
    with pytest.raises(DataError) as error:
        open_image(data[: len(data) // 2])
    one_sentence(error)
    generator = np.random.default_rng(0)
    for _ in range(40):  # a decoder that survives a flipped byte gives a picture, nothing else
        broken = bytearray(data)
        for place in generator.integers(0, len(data), 4):
            broken[place] ^= 1 << generator.integers(8)
        try:
            assert open_image(bytes(broken)).mode == "RGB"
        except DataError as refused:
            assert "\n" not in str(refused)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no/such/file.png", "no such file"),
        ("bad\0name.png", "no such file"),
        (7, "not int"),
        (None, "not NoneType"),
        ({"image": 1}, "not dict"),
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "no picture"),
        (np.zeros(4, np.uint8), "no picture"),
        (np.array(3), "no picture"),
        (np.zeros((1, 1, 4, 4), np.uint8)[..., None], "no picture"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf), "NaN or infinite"),
        (np.full((4, 4), 1.5), r"0\.\.1, this one"),
        (np.full((4, 4), -0.1, np.float32), r"0\.\.1, this one"),
        (np.full((4, 4), 256, np.int64), r"0\.\.255"),
        (np.full((4, 4), -1, np.int8), r"0\.\.255"),
        (np.zeros((4, 4), complex), "complex128"),
        (np.array([["a", "b"]]), "no picture"),
        (np.zeros((4, 4), object), "object"),
        (torch.full((3, 4, 4), float("nan"), dtype=torch.bfloat16), "NaN"),
    ],
)
def test_wrong_things_give_one_sentence(source, words) -> None:
    with pytest.raises(DataError, match=words) as error:
        open_image(source)
    one_sentence(error)


def test_folders_and_too_large_arrays(tmp_path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        open_image(tmp_path)
    vast = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (10_000, 10_000, 3))
    with pytest.raises(DataError, match="scale it down"):
        open_image(vast)
    with pytest.raises(DataError, match="nothing in it"):
        open_image(Image.new("RGB", (0, 4)))


def test_empty_lists_and_models_of_other_channels() -> None:
    with pytest.raises(DataError, match="no picture in the list"):
        to_pixels([], size=(8, 8))
    with pytest.raises(DataError, match="takes 5 channels"):
        to_pixels([picture(8, 8)], size=(8, 8), channels=5)
