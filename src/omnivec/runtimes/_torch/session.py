"""A transformers model and its head on one device."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.heads import PICTURES, named, of_tokens
from omnivec.core.nouns import Array
from omnivec.core.seams import SessionLost
from omnivec.core.steps import Head, Scale, Vocabulary
from omnivec.runtimes._torch import architectures, attention, budget, heads
from omnivec.runtimes._torch.bridge import Bridge
from omnivec.runtimes._torch.loading import load
from omnivec.runtimes._torch.lora import Adapters
from omnivec.runtimes._torch.packing import Packing
from omnivec.runtimes._torch.sight import Sight

Tensor: TypeAlias = Any  # torch is not there when this module is imported

CPU_COST = 1024
GPU_COST = 16384
"""Of a tower for pictures, whose sizes are not known here."""


class TorchSession:
    """Rows run packed where the architecture is known to: no token of padding is computed.
    Raises CheckpointError when the files do not make a model.

    On a GPU two batches may be under way: while one runs, the other is brought to the device
    and queued behind it.
    """

    def __init__(self, checkpoint: Checkpoint, head: Head, device: str, dtype: str) -> None:
        import torch

        self.device = device
        self.dtype = dtype
        bridge = self._bridge = Bridge(device)
        self._move, self._fetch = bridge.move, bridge.fetch
        self.streams = bridge.streams
        self._torch = torch
        self._logits = head.kind == "logits"
        self._packed = architectures.find(checkpoint.architecture)
        self._manner = architectures.manner(checkpoint.architecture, head)
        self.padding = float(self._packed is None)
        model = load(
            checkpoint,
            dtype,
            head,
            attention=attention.register() if self._packed else None,
        ).to(device)
        self._step = next((step for step in head.steps if isinstance(step, Vocabulary)), None)
        self._of_tokens = of_tokens(head)
        self._heads = {
            name: heads.build(checkpoint, name, one, model)
            for name, one in named(head).items()
            if one.kind not in ("logits", "words")
        }
        # of a language model's head two rows are wanted, and they are taken by now
        self._model = model.base_model if head.kind == "contrast" else model
        scale = next((step for step in head.steps if isinstance(step, Scale)), None)
        self._sight = None if scale is None else Sight(scale, self._manner.lay, self._model)
        self._rows = _table_rows(self._model.base_model)
        self._accepts = self._manner.told | set(inspect.signature(self._model.forward).parameters)
        self._adapters = Adapters(self._model, checkpoint.adapters)
        self._queueing = threading.Lock()
        self.batch_cost = self._budget()

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:  # noqa: ARG002 - one batch has its device to itself anyway
        """Raises ValueError for arrays that are no batch, SessionLost after an error of the
        device: then every later call would fail. Out of memory is not one."""
        told = {name: array for name, array in arrays.items() if name != "adapter"}
        packing = Packing(self._with_pool_mask(told), self._of_tokens)
        which = self._adapters.read(arrays.get("adapter"), packing.shape[0])
        try:
            # a batch is queued whole: two that alternate would both hold their memory
            with self._torch.inference_mode(), self._queueing:
                outputs = self._outputs(told, packing, which)
                fetched = {name: self._fetch(_floats(one)) for name, one in outputs.items()}
            return {name: wait() for name, wait in fetched.items()}
        except getattr(self._torch, "AcceleratorError", ()) as error:  # since torch 2.8
            raise SessionLost("the GPU reported an error") from error

    def memory(self) -> int:
        """Bytes that this process holds on the session's device."""
        return self._bridge.memory()

    def close(self) -> None:
        self._model = None
        self._bridge.clear()

    # ── the model ────────────────────────────────────────────────────────────────────────

    def _outputs(
        self, arrays: Mapping[str, Array], packing: Packing, which: Array
    ) -> dict[str, Tensor]:
        """`which` int64 [B] is each row's adapter."""
        padded = self._packed is None or (self._step is not None and self._packed.spell is None)
        lying = which if padded else packing.spread(which)[None]
        with self._adapters.of(lying, self._move):
            if self._step is not None:
                return self._words(self._step, arrays, packing)
            if self._packed is None:
                return self._run_padded(arrays, packing)
            states = self._run_packed(self._packed, arrays, packing)
        outputs = self._project(states, packing)
        if self._logits:
            with self._adapters.of(which, self._move):
                outputs["output"] = self._classify(self._packed, states, packing)
        return outputs

    def _words(
        self, step: Vocabulary, arrays: Mapping[str, Array], packing: Packing
    ) -> dict[str, Tensor]:
        if self._packed is not None and self._packed.spell is not None:
            states = self._run_packed(self._packed, arrays, packing)
            spell = partial(self._packed.spell, self._model)
            return heads.words(step, spell, states, packing, self._move)
        logits = self._model(**self._feed(arrays), **self._told()).logits.flatten(0, 1)
        return heads.words(step, _same, logits[self._move(packing.places)], packing, self._move)

    def _project(self, states: Tensor, packing: Packing) -> dict[str, Tensor]:
        """The heads of the last hidden states, [S, H]."""
        return {name: head(states, packing, self._move) for name, head in self._heads.items()}

    def _run_packed(
        self, packed: architectures.Packed, arrays: Mapping[str, Array], packing: Packing
    ) -> Tensor:
        """The last hidden states, [S, H]."""
        base = self._model.base_model
        positions = packing.positions(arrays["input_ids"], packed.padding(base.config))
        known = {name: packing.pack(array) for name, array in arrays.items()}
        fed = self._feed({**known, "position_ids": positions}, ("attention_mask",))
        sequences = attention.Sequences(self._move(packing.starts.astype(np.int32)), packing)
        return base(**fed, **self._told(), sequences=sequences).last_hidden_state[0]

    def _run_padded(self, arrays: Mapping[str, Array], packing: Packing) -> dict[str, Tensor]:
        """Logits, or the heads of the hidden states. `position_ids` are the model's own to
        make: it counts them from the mask or the padding as its architecture does."""
        fed = {**self._feed(arrays), **self._told()}
        if self._logits:
            return {"output": self._model(**fed).logits}
        states = self._manner.states(self._model, fed).flatten(0, 1)
        return self._project(states[self._move(packing.places)], packing)

    def _feed(self, arrays: Mapping[str, Array], without: Sequence[str] = ()) -> dict[str, Tensor]:
        """What the model takes of the arrays, on the device. Raises ValueError for a number
        that a table has no row for: a GPU answers nothing any more once it has read past one."""
        fed = {}
        for name in self._accepts & (arrays.keys() - set(without)):
            array, rows = arrays[name], self._rows.get(name)
            if rows is not None and not (array.min() >= 0 and array.max() < rows):
                raise ValueError(f"{name} are 0 to {rows - 1} here")
            fed[name] = self._move(array)
            if name in PICTURES:
                fed[name] = self._show(fed[name], arrays.get(PICTURES[name]))
        return fed

    def _show(self, pixels: Tensor, grids: Array | None) -> Tensor:
        if self._sight is None:
            raise ValueError("this head has no scale for pictures")
        return self._sight.show(pixels, grids)

    def _told(self) -> dict[str, bool]:
        """A decoder would keep keys and values for a next token that never comes."""
        return {"use_cache": False} if "use_cache" in self._accepts else {}

    def _classify(self, packed: architectures.Packed, states: Tensor, packing: Packing) -> Tensor:
        """[S, H] to the architecture's logits, [B, labels]."""
        modes = (packed.pooling(self._model.config),)
        pooled = heads.pool(states, modes, packing, self._move)
        return packed.classify(self._model, pooled.to(states.dtype))

    def _with_pool_mask(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """A decoder's classifier reads the last token that is no padding, judged by its id."""
        if not self._logits or self._packed is None or not self._packed.decoder:
            return arrays
        return {**arrays, "pool_mask": arrays["input_ids"] != self._model.config.pad_token_id}

    def _budget(self) -> int:
        if not self.device.startswith("cuda"):
            return CPU_COST
        if "input_ids" not in self._accepts:  # what it sees is not to be guessed
            return GPU_COST
        with self._torch.cuda.device(self.device):
            return budget.probe(self, self._positions())

    def _positions(self) -> int | None:
        config = self._model.config
        found = getattr(config, "max_position_embeddings", None)
        if not isinstance(found, int):
            return None
        return found - (int(config.pad_token_id or 0) + 1)  # RoBERTa's kin keep some back


def _floats(output: Tensor) -> Tensor:
    """float32, but for whole numbers, which say where something is."""
    return output.float() if output.is_floating_point() else output


def _same(logits: Tensor) -> Tensor:
    return logits


def _table_rows(base: Any) -> dict[str, int]:
    """How many rows each of the model's tables has, by the input that chooses among them."""
    within = getattr(base, "embeddings", None)
    tables = {
        "input_ids": base.get_input_embeddings(),
        "token_type_ids": getattr(within, "token_type_embeddings", None),
        "position_ids": getattr(within, "position_embeddings", None),
    }
    return {
        name: table.num_embeddings
        for name, table in tables.items()
        if hasattr(table, "num_embeddings")
    }
