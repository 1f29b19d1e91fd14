"""A picture's bytes to upright, opaque RGB.

Only media/image_child.py calls this, in a process of its own: the formats are few, but their
libraries are C, and a picture from a stranger has overrun every one of them (decision 21).

Transparent places become white. CMYK, palettes and LAB are converted; an ICC profile is not
applied. 16-bit grey is divided by 257, so that 65535 is white; whole numbers and floats of 32
bits are taken as 0..1, 0..255 or 0..65535 where they fit, and are stretched where they do not.
"""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from omnivec.core.nouns import Array

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
PIXELS = 50_000_000
SLIMMEST = 200
"""How often the short side may go into the long one: what resizes the short one to a model's
size would make the long one endless."""

SIXTEEN = 65535.0  # white, in 16 bits
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(Exception):
    """These bytes are no picture that is read here. The text is for the log."""


def open_picture(data: bytes) -> Image.Image:
    """Its header, and of an animation the first frame's; no pixels yet. Raises PictureError."""
    Image.MAX_IMAGE_PIXELS = PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise PictureError(type(error).__name__) from error
    short, long = sorted(picture.size)
    if short < 1 or short * long > PIXELS or long > SLIMMEST * short:
        raise PictureError("its size")
    return picture


def to_rgb(picture: Image.Image) -> Array:
    """uint8 [H, W, 3]. Raises PictureError, also for a picture that is cut short."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture.load()
            turn = _TURNS.get(_orientation(picture) or 0)
            opaque = _opaque(picture if turn is None else picture.transpose(turn))
    except Exception as error:
        raise PictureError(type(error).__name__) from error
    return np.asarray(opaque)


def _orientation(picture: Image.Image) -> int | None:
    """1 to 8 as EXIF has it; None for a picture without one, or with one that is broken. (A
    TIFF is turned when it is loaded, and says 1 or nothing afterwards.)"""
    try:
        found = picture.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - metadata of the client's; the picture is good
        return None
    return found if isinstance(found, int) else None


def _opaque(picture: Image.Image) -> Image.Image:
    """In mode RGB."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        return Image.fromarray(_grey(picture)).convert("RGB")
    if picture.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB")
        return picture if converted is None else converted
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode == "La":  # which has no way to RGBA but this one
        picture = picture.convert("LA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _grey(picture: Image.Image) -> Array:
    """uint8 [H, W] of numbers of 16 or 32 bits; see the top of this file."""
    numbers = np.nan_to_num(np.asarray(picture).astype(np.float32))
    low, high = float(numbers.min()), float(numbers.max())
    if picture.mode.startswith("I;16"):
        low, high = 0.0, SIXTEEN
    elif low >= 0 and high <= SIXTEEN:
        ranges = (1.0, 255.0, SIXTEEN) if picture.mode == "F" else (255.0, SIXTEEN)
        low, high = 0.0, next(most for most in ranges if high <= most)
    scaled = np.rint((numbers - low) * (255.0 / max(high - low, 1e-12)))
    grey: Array = scaled.astype(np.uint8)
    return grey
