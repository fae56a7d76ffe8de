"""A clip of a story: prompt after prompt, each going on from the frames before it.

Examples:
    zoo animate phenaki-digits "a three moving left"
    zoo animate phenaki-digits "a three moving left" "a three moving up" --out story.gif --scale 4
    zoo animate phenaki-digits "a three moving right" --first frame.png --seed 1

A name that ends in .gif or .mp4 (needs PyAV) is a clip, .png a sheet of its frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo.cli.drawing import add_drawing, drawing
from zoo.cli.inputs import add_model, load_model
from zoo.cli.output import add_json, print_json, progress

SECTION = "Use"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    add_model(parser)
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="scenes, in order")
    parser.add_argument("--frames", type=int, help="frames of a scene (default: the model's)")
    parser.add_argument("--first", help="a picture that the clip goes on from")
    parser.add_argument(
        "--overlap", type=int, default=1, help="frames that a scene sees of the one before (1)"
    )
    parser.add_argument("--scale", type=int, default=4, help="pixels of the file for each drawn")
    parser.add_argument("--seconds", type=float, default=0.2, help="time of a frame")
    parser.add_argument("--out", default="clip.gif", help="the file (default clip.gif)")
    add_drawing(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Draws, writes, and says where."""
    from zoo.models.generator.pictures import save_clip, sheet

    model = load_model(args, "animate")
    with progress(len(args.prompts), "drawing scenes") as advance:
        frames = model.animate(
            args.prompts,
            frames=args.frames,
            first=args.first,
            overlap=args.overlap,
            **drawing(args),
        )
        advance(len(args.prompts))
    out = Path(args.out)
    if out.suffix == ".png":
        sheet(frames, columns=min(len(frames), 9), scale=args.scale).save(out)
    else:
        save_clip(frames, out, args.seconds, args.scale)
    if args.json:
        print_json({"prompts": args.prompts, "frames": len(frames), "file": str(out)})
    else:
        print(out)
    return 0
