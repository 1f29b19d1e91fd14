"""Pictures as the patches that Qwen's vision towers read, in numpy and Pillow.

The formulas are those of qwen-vl-utils 0.0.14 (`smart_resize`, the budget of a video's frames)
and of transformers' Qwen2VLImageProcessor. All is done on bytes but the last step, scaling,
which is the graph's (`Scale`): so a picture that waits takes a quarter of the memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import BadRequest
from omnivec.core.heads import PICTURES
from omnivec.core.nouns import Array, Features, Pixels
from omnivec.core.steps import Scale

LONGEST = 200
"""How many times as long as its shorter side a picture's longer one may be."""

_HALF = (0.5, 0.5, 0.5)


class Budget(NamedTuple):
    """Pixels that a picture should have at `least` and at `most` when it is resized."""

    least: int
    most: int


class Patches(NamedTuple):
    """`pixels` uint8 [t * h * w, temporal * patch * patch, 3] of a picture, or of the frames
    of a video; `grid` is (t, h, w)."""

    pixels: Array
    grid: tuple[int, int, int]


class Cutter(NamedTuple):
    """Patches are squares of `patch` pixels in `temporal` frames; `merge` x `merge` of them,
    which lie together, become one token."""

    patch: int
    merge: int
    temporal: int

    @property
    def factor(self) -> int:
        """The pixels of a side that one token stands for."""
        return self.patch * self.merge

    def tokens(self, size: tuple[int, int]) -> int:
        """How many a picture of that (height, width) becomes, or one of a video's steps."""
        return (size[0] // self.factor) * (size[1] // self.factor)

    def cut(self, pictures: Sequence[Pixels], size: tuple[int, int]) -> Patches:
        """Of one picture, or of a video's frames, resized to `size`, (height, width). The last
        is repeated until they fill the steps in time."""
        frames = [resize(picture, size) for picture in pictures]
        frames += frames[-1:] * (-len(frames) % self.temporal)
        t, h, w = len(frames) // self.temporal, size[0] // self.patch, size[1] // self.patch
        rows, columns = (h // self.merge, self.merge), (w // self.merge, self.merge)
        whole = np.stack(frames).reshape(
            t, self.temporal, *rows, self.patch, *columns, self.patch, 3
        )
        # each token's patches together, and each patch frame by frame
        lying = whole.transpose(0, 2, 5, 3, 6, 1, 4, 7, 8)
        return Patches(lying.reshape(t * h * w, -1, 3), (t, h, w))


def read_cutter(checkpoint: Checkpoint, vision: Mapping[str, Any]) -> Cutter:
    """From `vision`, the config of the model's tower, and preprocessor_config.json."""
    told = preprocessor(checkpoint)
    return Cutter(
        patch=int(vision.get("patch_size", told.get("patch_size", 16))),
        merge=int(vision.get("spatial_merge_size", told.get("merge_size", 2))),
        temporal=int(vision.get("temporal_patch_size", told.get("temporal_patch_size", 2))),
    )


def preprocessor(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """preprocessor_config.json, or what processor_config.json has of it since transformers 5;
    an empty mapping where there is neither."""
    found = checkpoint.json("preprocessor_config.json")
    if found is None:
        whole = checkpoint.json("processor_config.json")
        found = whole.get("image_processor") if isinstance(whole, dict) else None
    return found if isinstance(found, dict) else {}


def read_scale(checkpoint: Checkpoint) -> Scale:
    told = preprocessor(checkpoint)
    red, green, blue = map(float, told.get("image_mean") or _HALF)
    reds, greens, blues = map(float, told.get("image_std") or _HALF)
    factor = float(told.get("rescale_factor") or 1 / 255)
    return Scale(factor, (red, green, blue), (reds, greens, blues))


def fit(
    picture: Pixels, factor: int, budget: Budget, param: str, *, floor: bool = True
) -> tuple[int, int]:
    """The picture's size, (height, width), in multiples of `factor` within the budget, and as
    near to its shape as they allow. Raises BadRequest for a picture that is nearly a line.

    `floor`: a side is one `factor` long from the start, as in qwen-vl-utils. transformers lets
    it be 0 at first, which makes some narrow pictures larger.
    """
    height, width = picture.rgb.shape[:2]
    if max(height, width) > LONGEST * min(height, width):
        raise BadRequest(
            f"A picture's longer side is at most {LONGEST} times its shorter one.", param=param
        )
    low = factor if floor else 0
    rows = max(low, round(height / factor) * factor)
    columns = max(low, round(width / factor) * factor)
    if rows * columns > budget.most:
        shrink = math.sqrt(height * width / budget.most)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < budget.least:
        grow = math.sqrt(budget.least / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def resize(picture: Pixels, size: tuple[int, int], how: int = 3) -> Array:
    """uint8 [height, width, 3], by Pillow's filter number `how` (3: bicubic)."""
    from PIL import Image

    if picture.rgb.shape[:2] == size:
        return picture.rgb
    image = Image.fromarray(np.ascontiguousarray(picture.rgb))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling(how)))


def join(batch: Sequence[Features]) -> dict[str, Array]:
    """What a batch shows, item after item: the arrays that PICTURES names."""
    found = {}
    for name in (*PICTURES, *PICTURES.values()):
        there = [one.arrays[name] for one in batch if name in one.arrays]
        if there:
            found[name] = np.concatenate(there)
    return found
