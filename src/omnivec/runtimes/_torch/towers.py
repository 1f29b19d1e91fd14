"""One tower of a model that has one for texts and one for pictures, through transformers' own
`get_text_features` and `get_image_features`."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Array
from omnivec.core.seams import SessionLost
from omnivec.core.steps import Head, Scale
from omnivec.runtimes._pictures import check_patches, check_squares
from omnivec.runtimes._torch.bridge import Bridge
from omnivec.runtimes._torch.loading import load

Tensor: TypeAlias = Any  # torch is not there when this module is imported

CPU_COST = 1024
GPU_COST = 16384
"""Tokens of a batch: 330 pictures of ViT-B/32, 64 of ViT-L/14."""

_CHANNELS = 3
_TEXT = ("text_model", "text_projection")
_IMAGE = ("vision_model", "visual_projection")


class TowerSession:
    """The tower of pictures where the head has a Scale, else the one of texts; the other one is
    let go. Raises CheckpointError when the files do not make a model."""

    def __init__(self, checkpoint: Checkpoint, head: Head, device: str, dtype: str) -> None:
        import torch

        self._scale = next((step for step in head.steps if isinstance(step, Scale)), None)
        self._torch = torch
        self._bridge = Bridge(device)
        self.device = device
        self.dtype = dtype
        self.streams = self._bridge.streams
        self.padding = 1.0 if self._scale is None else 0.0
        self.batch_cost = GPU_COST if device.startswith("cuda") else CPU_COST
        model = load(checkpoint, dtype, head, attention=None)
        for name in _TEXT if self._scale else _IMAGE:
            if hasattr(model, name):
                setattr(model, name, None)
        self._model = model.to(device)
        self._config = model.config.vision_config if self._scale else model.config.text_config
        self._queueing = threading.Lock()

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:  # noqa: ARG002 - one batch has its device to itself anyway
        """Raises ValueError for arrays that are no batch, SessionLost after an error of the
        device: then every later call would fail."""
        try:
            with self._torch.inference_mode(), self._queueing:
                rows = self._see(arrays) if self._scale else self._read(arrays)
                wait = self._bridge.fetch(rows.float())
            return {"output": wait()}
        except getattr(self._torch, "AcceleratorError", ()) as error:  # since torch 2.8
            raise SessionLost("the GPU reported an error") from error

    def memory(self) -> int:
        """Bytes that this process holds on the session's device."""
        return self._bridge.memory()

    def close(self) -> None:
        self._model = None
        self._bridge.clear()

    # ── texts ────────────────────────────────────────────────────────────────────────────

    def _read(self, arrays: Mapping[str, Array]) -> Tensor:
        """The end of a text is found by its id, so that padding is given another one."""
        mask = arrays["attention_mask"]
        self._check(arrays["input_ids"], mask)
        told = {name: self._bridge.move(array) for name, array in arrays.items()}
        if "eos_token_id" in self._config and self._config.model_type == "clip_text_model":
            told["input_ids"] = told["input_ids"] * told["attention_mask"]
        return self._model.get_text_features(**told).pooler_output

    def _check(self, ids: Array, mask: Array) -> None:
        """A GPU answers nothing any more once it has read past a table."""
        if not ids.size or ids.shape != mask.shape:
            raise ValueError("the arrays of a batch must share one shape [B, T], neither of them 0")
        if not (ids.min() >= 0 and ids.max() < self._config.vocab_size):
            raise ValueError(f"input_ids are 0 to {self._config.vocab_size - 1} here")
        if ids.shape[1] > self._config.max_position_embeddings:
            raise ValueError(f"a row is longer than {self._config.max_position_embeddings} tokens")

    # ── pictures ─────────────────────────────────────────────────────────────────────────

    def _see(self, arrays: Mapping[str, Array]) -> Tensor:
        pixels = arrays["pixel_values"]
        if "spatial_shapes" not in arrays:
            side = self._config.image_size
            check_squares(pixels, side)
            seen = self._scaled(pixels).permute(0, 3, 1, 2)
            return self._model.get_image_features(pixel_values=seen).pooler_output
        shapes = arrays["spatial_shapes"]
        check_patches(pixels, shapes, self._config.patch_size**2 * _CHANNELS)
        mask = np.arange(pixels.shape[1])[None] < shapes.prod(1)[:, None]
        split = self._scaled(pixels.reshape(*pixels.shape[:2], -1, _CHANNELS))
        return self._model.get_image_features(
            pixel_values=split.flatten(2),
            pixel_attention_mask=self._bridge.move(mask.astype(np.int64)),
            spatial_shapes=self._torch.from_numpy(np.ascontiguousarray(shapes)),
        ).pooler_output

    def _scaled(self, pixels: Array) -> Tensor:
        """Bytes [.., 3] in the model's type, scaled on the device."""
        if self._scale is None:
            raise TypeError("a tower of texts sees no pictures")
        mean, std = (
            self._bridge.move(np.array(each, np.float32))
            for each in (self._scale.mean, self._scale.std)
        )
        bright = self._bridge.move(pixels).float() * self._scale.factor
        return ((bright - mean) / std).to(self._model.dtype)
