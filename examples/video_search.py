"""Find the moments of a video by words, or by a picture.

    python examples/video_search.py --data street.mp4 --query "a red car" --query "nobody"

Takes frames of it evenly (48 of them, --frames), one vector each, prints when each query fits best
and draws these frames on one sheet, moments.png. Models and random weights are as in
image_search.py. Needs the extra `video`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from contact_sheet import Tile, draw
from PIL import Image
from random_clip import DEFAULT, seeing

from omnivec.core.errors import Fault
from omnivec.core.nouns import Clip, Film

QUERIES = ("a bottle", "a car on the road", "a person", "an empty scene")


def main() -> None:
    options = parse(sys.argv[1:])
    queries = options.query or list(QUERIES)
    with seeing(options.model, random=options.random) as (engine, weights):
        began = time.perf_counter()
        try:
            film = engine.film(options.data, Clip(frames=options.frames))
        except Fault as fault:
            sys.exit(f"{options.data}: {fault.message}")
        except OSError as error:
            sys.exit(str(error))
        say(f"{len(film.frames)} frames in {time.perf_counter() - began:.1f} s ...")
        began = time.perf_counter()
        vectors = engine.embed(film.frames)
        asked = [Path(query) if Path(query).is_file() else query for query in queries]
        scores = engine.embed(asked) @ vectors.T
        say(f"... their vectors in {time.perf_counter() - began:.1f} s")
    title = f"{len(film.frames)} frames of {options.data.name}, {weights}"
    rows = []
    print(title)
    for query, row in zip(queries, scores, strict=True):
        best = np.argsort(-row, kind="stable")[: options.top]
        print(f"\n{query}")
        for at in best:
            print(f"{row[at]:9.4f}  {clock(film.times[at])}")
        rows.append((query, [tile(film, at, row[at]) for at in best]))
    draw(title, rows).save(options.sheet)
    print(f"\ndrawn on {options.sheet}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Find the moments of a video.")
    parser.add_argument("model", nargs="?", help=f"of texts and pictures; {DEFAULT}")
    parser.add_argument("--data", type=Path, required=True, help="a video's file")
    parser.add_argument("--query", action="append", help="words or a picture; may be repeated")
    parser.add_argument("--frames", type=int, default=48, help="how many to look at; 0: all")
    parser.add_argument("--top", type=int, default=5, help="how many for each query")
    parser.add_argument("--sheet", type=Path, default=Path("moments.png"), help="what to draw")
    parser.add_argument("--random", action="store_true", help="random weights, to try it out")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """Minutes, seconds and tenths."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02}.{tenths % 10}"


def tile(film: Film, at: int, score: float) -> Tile:
    return Tile(Image.fromarray(film.frames[at].rgb), f"{score:.3f} at {clock(film.times[at])}")


if __name__ == "__main__":
    main()
