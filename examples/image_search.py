"""Search a folder of pictures by words, or by another picture.

    python examples/image_search.py --data holidays/
    python examples/image_search.py google/siglip2-base-patch16-224 --data holidays/ \\
        --query "a boat" --query holidays/harbour.jpg

Prints the best of them for each query and draws them on one sheet, found.png. The model is
downloaded when it is not here; without a network the default one is replaced by a tiny one of
random weights (as with --random), and that is said on the sheet, too: nothing it finds for words
means anything then, though pictures that look alike still come together.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from contact_sheet import Tile, draw
from PIL import Image, ImageOps
from random_clip import DEFAULT, seeing

from omnivec import Engine
from omnivec.core.errors import Fault

QUERIES = ("a pair of shoes", "a hat", "a red dress", "a person wearing jeans")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
TOGETHER = 64  # pictures between two words of progress


def main() -> None:
    options = parse(sys.argv[1:])
    paths = pictures(options.data)
    queries = options.query or list(QUERIES)
    with seeing(options.model, random=options.random) as (engine, weights):
        vectors = embed(engine, paths)
        asked = [Path(query) if Path(query).is_file() else query for query in queries]
        scores = engine.embed(asked) @ vectors.T
    rows = []
    print(f"{len(paths)} pictures, {weights}")
    for query, row in zip(queries, scores, strict=True):
        best = np.argsort(-row, kind="stable")[: options.top]
        found = [(paths[at], float(row[at])) for at in best]
        report(query, found, options.data)
        rows.append((query, [tile(path, score, options.data) for path, score in found]))
    draw(f"{len(paths)} pictures, {weights}", rows).save(options.sheet)
    print(f"\ndrawn on {options.sheet}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Search a folder of pictures.")
    parser.add_argument("model", nargs="?", help=f"of texts and pictures; {DEFAULT}")
    parser.add_argument("--data", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--query", action="append", help="words or a picture; may be repeated")
    parser.add_argument("--top", type=int, default=5, help="how many for each query")
    parser.add_argument("--sheet", type=Path, default=Path("found.png"), help="what to draw")
    parser.add_argument("--random", action="store_true", help="random weights, to try it out")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return found or sys.exit(f"{folder} has no pictures")


def embed(engine: Engine, paths: Sequence[Path]) -> np.ndarray:
    """[pictures, d], each of length 1."""
    began = time.perf_counter()
    parts = []
    for start in range(0, len(paths), TOGETHER):
        say(f"{start} of {len(paths)} pictures ...")
        try:
            parts.append(engine.embed(paths[start : start + TOGETHER]))
        except Fault as fault:  # which says `[3]` of the fourth
            number = int((fault.param or "[0]")[1:-1])
            sys.exit(f"{paths[start + number]}: {fault.message}")
    say(f"... in {time.perf_counter() - began:.1f} s")
    return np.concatenate(parts)


def report(query: str, found: Sequence[tuple[Path, float]], folder: Path) -> None:
    print(f"\n{query}")
    for path, score in found:
        print(f"{score:9.4f}  {path.relative_to(folder)}")


def tile(path: Path, score: float, folder: Path) -> Tile:
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGBA")
    paper = Image.new("RGBA", upright.size, "white")
    seen = Image.alpha_composite(paper, upright).convert("RGB")
    return Tile(seen, f"{score:.3f} {path.relative_to(folder)}")


if __name__ == "__main__":
    main()
