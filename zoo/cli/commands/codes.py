"""Pictures and data sets to codes of a visual tokenizer, and codes back to pictures.

Examples:
    zoo codes encode fsq-digits scan.png                      # the codes of a picture, as rows
    zoo codes encode fsq-digits *.png --out codes.safetensors
    zoo codes encode fsq-digits colour-digits --out codes/    # a data set, for data=codes
    zoo codes decode fsq-digits codes.safetensors --out pictures/
    zoo codes decode cvivit-digits codes/test.safetensors --out clips/ --count 8

`encode` takes files of pictures or the name of a data set, whose splits become train.safetensors
and test.safetensors. `decode` writes a PNG for each picture, an animated GIF for each clip.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoo.cli.inputs import add_model, expand, load_model
from zoo.cli.output import add_json, print_json, status
from zoo.errors import ConfigError, DataError

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    encode = actions.add_parser("encode", help="pictures or a data set to codes")
    add_model(encode)
    encode.add_argument("inputs", nargs="+", metavar="INPUT", help="pictures, or one data set")
    encode.add_argument("--out", help="a .safetensors file, or a folder for a data set")
    encode.add_argument(
        "--data", action="append", default=[], metavar="key=value", help="a key of the data set"
    )
    encode.add_argument("--passes", type=int, default=1, help="over its training split (default 1)")
    add_json(encode)
    decode = actions.add_parser("decode", help="a file of codes to pictures or clips")
    add_model(decode)
    decode.add_argument("file", metavar="FILE", help="what zoo codes encode --out wrote")
    decode.add_argument("--out", required=True, metavar="FOLDER", help="where pictures go")
    decode.add_argument("--count", type=int, help="only the first so many")


def run(args: argparse.Namespace) -> None:
    """Encodes or decodes."""
    if args.action == "decode":
        _decode(args)
    elif _is_data(args.inputs):
        _encode_data(args)
    else:
        _encode_pictures(args)


def _is_data(inputs: list[str]) -> bool:
    from zoo.registry import names

    return len(inputs) == 1 and not Path(inputs[0]).exists() and inputs[0] in names("data")


def _encode_data(args: argparse.Namespace) -> None:
    from zoo.data.codes import encode_split
    from zoo.registry import build, read_mapping, resolve, to_mapping
    from zoo.registry.overrides import apply_overrides

    if not args.out:
        raise ConfigError("--out: say which folder the codes of the data set go to.")
    config = resolve("data", apply_overrides(read_mapping("data", args.inputs[0]), args.data))
    model = load_model(args, "encode")
    source = build(config)
    about = {"tokenizer": args.name, "source": to_mapping(config)}
    for split in ("train", "test"):
        passes = args.passes if split == "train" else 1
        path = Path(args.out) / f"{split}.safetensors"
        with status(f"encoding {split}"):
            made = encode_split(source, split, model, path, about, passes=passes)
        _say(args, made)


def _encode_pictures(args: argparse.Namespace) -> None:
    import torch

    from zoo.data.codes import write_codes

    model = load_model(args, "encode")
    files = expand(args.inputs)
    if args.out:
        batches = ({"pixels": model.preprocess([file]), "files": [file]} for file in files)
        _say(args, write_codes(args.out, model, batches, {"tokenizer": args.name}))
        return
    with torch.no_grad():
        found = [(file, model.encode(model.preprocess([file])).ids[0].tolist()) for file in files]
    if args.json:
        print_json([{"file": file, "codes": codes} for file, codes in found])
        return
    width = len(str(model.codebook_size - 1))
    for file, codes in found:
        print(file)
        for row in codes[0] if model.video else codes:
            print(" ".join(f"{code!s:>{width}}" for code in row))


def _decode(args: argparse.Namespace) -> None:
    import torch
    from PIL import Image

    from zoo.data.codes import CodesFile

    model = load_model(args, "decode")
    file = CodesFile(args.file)
    if file.codebook_size != model.codebook_size:
        raise DataError(
            f"{args.file} holds codes of {file.codebook_size}, and {args.name} has "
            f"{model.codebook_size}."
        )
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    count = min(args.count or len(file), len(file))
    for start in range(0, count, 64):
        rows = range(start, min(start + 64, count))
        with torch.no_grad():
            arrays = model.pictures(model.decode(file.batch(rows)["codes"]))
        for row, array in zip(rows, arrays, strict=True):
            frames = [Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame)
                      for frame in (array if model.video else [array])]  # fmt: skip
            _save(frames, folder / f"{row:05d}")
    print(f"{folder}: {count} {'clips' if model.video else 'pictures'}")


def _save(frames: list[Any], stem: Path) -> None:
    if len(frames) == 1:
        frames[0].save(stem.with_suffix(".png"))
    else:
        frames[0].save(
            stem.with_suffix(".gif"), save_all=True, append_images=frames[1:], duration=200, loop=0
        )


def _say(args: argparse.Namespace, made: Any) -> None:
    grid = " x ".join(map(str, made.grid))
    if args.json:
        print_json({"file": str(made.path), "samples": len(made), "grid": list(made.grid)})
    else:
        print(f"{made.path}: {len(made):,} samples of {grid} codes of {made.codebook_size}")
