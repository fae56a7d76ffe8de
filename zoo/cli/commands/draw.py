"""Pictures of a prompt; or an edit of one.

Examples:
    zoo draw muse-digits "a handwritten red three"
    zoo draw muse-digits "a handwritten red three" --num 9 --seed 0 --out threes.png
    zoo draw muse-digits "a handwritten red three" --image seven.png --mask right-half.png
    zoo draw maskgit-imagenet-256 "tiger shark"
    zoo draw amused-256 "a red dog" --best-of 16 --rerank clip-vit-base-32 clip-text-base-32

Several pictures go onto one sheet; with --each they go to drawing-1.png, drawing-2.png, …
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoo.cli.drawing import add_drawing, drawing
from zoo.cli.inputs import add_model, load_another, load_model
from zoo.cli.output import add_json, print_json, progress, say_gain
from zoo.errors import ConfigError

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("prompt", metavar="PROMPT", help="what is drawn: a text, or a class")
    parser.add_argument("--num", type=int, default=1, help="how many pictures (default 1)")
    parser.add_argument("--image", help="a picture to edit, or to enlarge")
    parser.add_argument("--mask", help="with --image: what is bright here is drawn anew")
    parser.add_argument("--best-of", type=int, help="draw so many, keep what --rerank likes best")
    parser.add_argument(
        "--rerank",
        nargs=2,
        metavar=("PICTURES", "TEXTS"),
        help="two models that share a space and say which pictures fit the prompt",
    )
    parser.add_argument(
        "--draft", metavar="NAME", help="a smaller model with the same codes that guesses them"
    )
    parser.add_argument("--scale", type=int, default=1, help="pixels of the file for each drawn")
    parser.add_argument("--each", action="store_true", help="a file for every picture")
    parser.add_argument("--out", default="drawing.png", help="the file (default drawing.png)")
    add_drawing(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Draws, writes, and says where."""
    if args.num < 1 or args.scale < 1:
        raise ConfigError("--num and --scale must be at least 1.")
    if args.mask and not args.image:
        raise ConfigError("--mask says what of a picture is drawn anew; give --image too.")
    if args.image and args.rerank:
        raise ConfigError("--rerank chooses among drawn pictures, and --image edits one.")
    if args.image and args.draft:
        raise ConfigError("--draft guesses whole pictures, and --image has one already.")
    given = drawing(args)
    model = load_model(args, "draw")
    draft = load_another(args.draft, args) if args.draft else None
    passes = _passes(model, given) if draft is None else args.best_of or args.num
    with progress(passes, "drawing") as advance:
        watch = lambda codes: advance(1)  # noqa: E731
        if args.image and model.config.source is None:
            mask = _mask(args.mask)
            pictures = model.edit(args.image, mask, args.prompt, args.num, watch=watch, **given)
        else:
            given |= {"image": args.image, "best_of": args.best_of, "rerank": args.rerank}
            pictures = model.draw(args.prompt, args.num, draft=draft, watch=watch, **given)
    files = _written(pictures, args)
    if draft is not None:
        say_gain(model.report, "codes")
    if args.json:
        print_json([{"prompt": args.prompt, "file": str(file)} for file in files])
    else:
        print("\n".join(map(str, files)))
    return 0


def _passes(model: Any, given: dict[str, Any]) -> int:
    """Returns how often `watch` is called for one batch."""
    import math

    if model.config.causal:
        return math.prod(model.config.shape)
    from zoo.generation.masked import masked_options
    from zoo.models.generator.schema import draw_options

    wanted = draw_options(False, model.config.sampling, given)
    return masked_options(wanted.sampler, **wanted.masked()).steps


def _mask(path: str | None) -> Any:
    if path is None:
        return None
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except (OSError, UnidentifiedImageError) as error:
        raise ConfigError(f"--mask {path} cannot be read: {error}.") from None


def _written(pictures: list[Any], args: argparse.Namespace) -> list[Path]:
    from zoo.models.generator.pictures import sheet

    out = Path(args.out)
    if not args.each:
        sheet(pictures, scale=args.scale).save(out)
        return [out]
    files = []
    for number, picture in enumerate(pictures, 1):
        files.append(out.with_name(f"{out.stem}-{number}{out.suffix}"))
        sheet([picture], scale=args.scale).save(files[-1])
    return files
