"""Pictures among texts: from bytes to what each architecture is given, on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from omnivec.core.nouns import Array
from omnivec.core.steps import Scale

Tensor: TypeAlias = Any  # torch is not there when this module is imported
Lay: TypeAlias = Callable[[Tensor, Array | None], Tensor]
"""Scaled pixels, channel last, and the pictures' grids to the shape that a model wants."""


class Sight:
    """What `model` is shown, in its own type."""

    def __init__(self, scale: Scale, lay: Lay, model: Any) -> None:
        import torch

        self._factor = scale.factor
        self._mean = torch.tensor(scale.mean, device=model.device)
        self._std = torch.tensor(scale.std, device=model.device)
        self._dtype = model.dtype
        self._lay = lay

    def show(self, pixels: Tensor, grids: Array | None) -> Tensor:
        """uint8 [.., 3] on the device, and grids int64 [n, 3] where there are patches."""
        bright = pixels.float() * self._factor
        return self._lay(((bright - self._mean) / self._std).to(self._dtype), grids)


def whole(pixels: Tensor, _grids: Array | None) -> Tensor:
    """[n, H, W, 3] to [n, 3, H, W]."""
    return pixels.permute(0, 3, 1, 2)


def patches(pixels: Tensor, _grids: Array | None) -> Tensor:
    """[P, K, 3] to [P, 3 * K], colour by colour."""
    return pixels.transpose(1, 2).flatten(1)


def padded_patches(pixels: Tensor, grids: Array | None) -> Tensor:
    """[P, K, 3] to [n, longest, 3 * K], a row for each picture."""
    from torch.nn.utils.rnn import pad_sequence

    if grids is None:
        raise ValueError("patches come with the grids of their pictures")
    return pad_sequence(patches(pixels, grids).split(grids.prod(1).tolist()), batch_first=True)
