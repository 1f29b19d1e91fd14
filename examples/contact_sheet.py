"""What was found as one picture: a row of tiles for each query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE, GAP, LINE = 160, 8, 22  # pixels
INK, GREY, PAPER, FRAME = "#1a1a1a", "#666666", "#ffffff", "#eeeeee"
FONT = ImageFont.load_default(13)


class Tile(NamedTuple):
    picture: Image.Image
    caption: str


def draw(title: str, rows: Sequence[tuple[str, Sequence[Tile]]]) -> Image.Image:
    """`rows` are queries and what was found for each, best first."""
    most = max(len(tiles) for _, tiles in rows)
    size = (GAP + most * (TILE + GAP), LINE + GAP + len(rows) * row_height())
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, (GAP, GAP), title, size[0] - 2 * GAP, GREY)
    for number, (query, tiles) in enumerate(rows):
        _, top = corner(number, 0)
        write(pen, (GAP, top - LINE), query, size[0] - 2 * GAP, INK)
        for column, tile in enumerate(tiles):
            place(sheet, pen, corner(number, column), tile)
    return sheet


def row_height() -> int:
    """Of a query, its tiles and their captions."""
    return LINE + TILE + LINE + GAP


def corner(row: int, column: int) -> tuple[int, int]:
    """Where a tile begins: from the left and from the top."""
    return GAP + column * (TILE + GAP), LINE + GAP + row * row_height() + LINE


def place(sheet: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], tile: Tile) -> None:
    left, top = at
    small = ImageOps.pad(tile.picture, (TILE, TILE), Image.Resampling.LANCZOS, FRAME)
    sheet.paste(small, at)
    write(pen, (left, top + TILE + 3), tile.caption, TILE, GREY)


def write(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, colour: str
) -> None:
    """As much of it as there is room for."""
    if pen.textlength(text, FONT) > width:
        while text and pen.textlength(f"{text}…", FONT) > width:
            text = text[:-1]
        text += "…"
    pen.text(at, text, colour, FONT)
