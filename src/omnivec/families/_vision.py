"""Pictures to what a tower looks at, as transformers' processors without torchvision make it.

Everything is done on bytes but the last step, scaling, which is part of the graph (`Scale`):
so a picture that waits takes a quarter of the memory. Resampling is Pillow's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import Array, Pixels
from omnivec.core.steps import Scale

_FILES = ("preprocessor_config.json", "processor_config.json")
_RESCALE = 1 / 255
_BICUBIC, _BILINEAR = 3, 2
_WIDE = 256
"""How many times as long as the other a side of a picture may be that is resized whole. One
longer is not: it might become millions wide. There some pixels are off by a step of 255 or two,
because Pillow is told in float32 which part is wanted."""
_CLIP = {
    "resample": _BICUBIC,
    "do_center_crop": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
# what a processor does where its file does not say; sizes are the tower's own then
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "clip": _CLIP,
    "chinese_clip": _CLIP,
    "mobileclip": {
        "resample": _BILINEAR,
        "do_center_crop": True,
        "image_mean": (0, 0, 0),
        "image_std": (1, 1, 1),
    },
    "siglip": {**_HALF, "resample": _BICUBIC, "do_center_crop": False},
    "siglip2": {**_HALF, "resample": _BILINEAR, "max_num_patches": 256, "patch_size": 16},
}


class Recipe(Protocol):
    """How a picture is prepared. `scale` is left to the graph."""

    @property
    def scale(self) -> Scale: ...

    def take(self, picture: Pixels) -> dict[str, Array]:
        """A session's arrays, one row of them, of a picture of at least one pixel."""
        ...


def read(checkpoint: Checkpoint, tower: Mapping[str, Any]) -> Recipe:
    """From preprocessor_config.json, or processor_config.json of transformers 5, and the
    tower's section of config.json. Raises CheckpointError."""
    told = {**_DEFAULTS[checkpoint.architecture], **_settings(checkpoint)}
    try:
        scale = _scale(told)
        resample = Image.Resampling(told["resample"])
        if checkpoint.architecture == "siglip2":
            patch = int(told["patch_size"])
            return Patches(scale, resample, patch, int(told["max_num_patches"]))
        side = int(tower["image_size"])
        square = {"height": side, "width": side}
        size = told.get("size", side if told["do_center_crop"] else square)
        crop = told.get("crop_size", side) if told["do_center_crop"] else None
        resized = _resized(size) if told.get("do_resize", True) else None
        even = checkpoint.architecture == "mobileclip"
        recipe = Square(scale, resample, resized, _edges(crop), even)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: preprocessor_config.json has a value that is not understood "
            f"({error}); download the model again"
        ) from error
    if (recipe.crop or recipe.size) != (side, side):
        raise CheckpointError(
            f"{checkpoint.name}: preprocessor_config.json makes no pictures of {side} x {side}, "
            "which are what config.json says that the model looks at"
        )
    return recipe


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    for name in _FILES:
        found = checkpoint.json(name)
        found = found.get("image_processor", found) if isinstance(found, dict) else None
        if isinstance(found, dict) and found.keys() & {"image_mean", "size", "resample"}:
            return {key: value for key, value in found.items() if value is not None}
    return {}


def _scale(told: Mapping[str, Any]) -> Scale:
    factor = float(told.get("rescale_factor", _RESCALE)) if told.get("do_rescale", True) else 1.0
    if not told.get("do_normalize", True):
        return Scale(factor, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    red, green, blue = map(float, told["image_mean"])
    reds, greens, blues = map(float, told["image_std"])
    return Scale(factor, (red, green, blue), (reds, greens, blues))


# ── a square ─────────────────────────────────────────────────────────────────────────────


def _resized(size: Any) -> tuple[int, int] | int | None:
    """(height, width), or what the shorter side becomes."""
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return int(size["shortest_edge"])
    return int(size) if isinstance(size, int) else _edges(size)


def _edges(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    if isinstance(size, int):
        return size, size
    return int(size["height"]), int(size["width"])


class Square(NamedTuple):
    """Resized to `size`, as `_resized` gives it (None: not at all), and the middle of `crop`
    (height, width) of it cut out, with black around what is smaller. `even`: where the middle
    is between two pixels it begins at the even one, as torchvision has it."""

    scale: Scale
    resample: Image.Resampling
    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    even: bool = False

    def take(self, picture: Pixels) -> dict[str, Array]:
        """uint8 [S, S, 3]."""
        height, width = self._whole(*picture.rgb.shape[:2])
        if self.crop is None:
            return {"pixel_values": self._resize(picture.rgb, height, width)}
        pixels = np.zeros((*self.crop, 3), np.uint8)
        top, above, rows = _middle(height, self.crop[0], even=self.even)
        left, before, columns = _middle(width, self.crop[1], even=self.even)
        within = (left, top, left + columns, top + rows)
        cut = self._resize(picture.rgb, height, width, within)
        pixels[above : above + rows, before : before + columns] = cut
        return {"pixel_values": pixels}

    def _whole(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size or (height, width)
        if width <= height:
            return int(self.size * height / width), self.size
        return self.size, int(self.size * width / height)

    def _resize(
        self, rgb: Array, height: int, width: int, within: tuple[int, int, int, int] | None = None
    ) -> Array:
        """The part `within` (left, top, right, bottom) of the resized picture."""
        left, top, right, bottom = within or (0, 0, width, height)
        size = (right - left, bottom - top)
        if rgb.shape[:2] == (height, width):
            return rgb[top:bottom, left:right]
        picture = Image.fromarray(rgb)
        if max(height, width) <= _WIDE * min(height, width):
            whole = np.asarray(picture.resize((width, height), self.resample))
            return whole[top:bottom, left:right]
        across, down = rgb.shape[1] / width, rgb.shape[0] / height
        box = (left * across, top * down, right * across, bottom * down)
        return np.asarray(picture.resize(size, self.resample, box))


def _middle(length: int, wanted: int, *, even: bool) -> tuple[int, int, int]:
    """Of a line: where its middle part begins, how much black comes before it, how long it is."""
    over = length - wanted
    start = round(over / 2) if even else over // 2
    return max(0, start), max(0, -start), min(length, wanted)


# ── any shape ────────────────────────────────────────────────────────────────────────────


class Patches(NamedTuple):
    """NaFlex: resized, its shape nearly kept, to whole patches of `patch` x `patch`, as many as
    `most` allows."""

    scale: Scale
    resample: Image.Resampling
    patch: int
    most: int

    def take(self, picture: Pixels) -> dict[str, Array]:
        """uint8 [N, patch * patch * 3], N as many as there are, and their rows and columns."""
        rows, columns = fit(*picture.rgb.shape[:2], self.patch, self.most)
        size = (columns * self.patch, rows * self.patch)
        rgb = picture.rgb
        if rgb.shape[1::-1] != size:
            rgb = np.asarray(Image.fromarray(rgb).resize(size, self.resample))
        split = rgb.reshape(rows, self.patch, columns, self.patch, 3).swapaxes(1, 2)
        return {
            "pixel_values": split.reshape(rows * columns, -1),
            "spatial_shapes": np.array([rows, columns], np.int64),
        }


_NEAR = 1e-5  # of the scale that is looked for
_LARGEST = 100.0


@lru_cache(maxsize=4096)
def fit(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """The rows and columns of patches of a picture scaled up or down, each side rounded up to
    whole patches, until there would be more than `most`: transformers' search for that scale,
    step by step, because where it stops decides."""

    def sides(scale: float) -> tuple[int, int]:
        rows, columns = (math.ceil(side * scale / patch) for side in (height, width))
        return max(1, rows), max(1, columns)

    low, high = _NEAR / 10, _LARGEST
    while high - low >= _NEAR:
        scale = (low + high) / 2
        rows, columns = sides(scale)
        low, high = (scale, high) if rows * columns <= most else (low, scale)
    return sides(low)
