"""Any transformers encoder, through torch: CPUs for architectures without a graph of our own,
and GPUs. Needs the extra `torch`, which is imported when a model is opened.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import (
    LAYER_NORM_EPSILON,
    MASK_FLOOR,
    NORM_FLOOR,
    activation,
)
from omnivec.core.nouns import Array, Dense, Head, LayerNorm, Normalize, Pool, Step
from omnivec.core.seams import SessionLost

Tensor: TypeAlias = Any  # torch is not there when this module is imported
Layer: TypeAlias = Callable[[Tensor], Tensor]

INSTALL = "pip install 'omnivec[torch]'"
CPU_COST = 1024
GPU_COST = 16384

_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_OURS = ("omnivec-fake", "model2vec")  # model types that are no transformer


class TorchRuntime:
    name = "torch"
    rank = 10

    def can(self, checkpoint: Checkpoint, graph: str, head: Head, device: str) -> str | None:  # noqa: ARG002
        if checkpoint.architecture in _OURS:
            return f"transformers has no {checkpoint.architecture}"
        missing = [name for name in ("torch", "transformers") if not _installed(name)]
        if missing:
            return f"needs {' and '.join(missing)}: {INSTALL}"
        if device == "cuda" and not _has_cuda():
            return "torch finds no CUDA device; use --device cpu, or a torch built for CUDA"
        return None

    def open(
        self,
        checkpoint: Checkpoint,
        graph: str,  # noqa: ARG002 - a transformers model is one graph
        head: Head,
        device: str,
        dtype: str,
    ) -> TorchSession:
        place = _place(device)
        return TorchSession(checkpoint, head, place, _choose_dtype(dtype, place))

    def describe(self, session: TorchSession) -> tuple[str, str]:
        return session.device, session.dtype

    def memory(self) -> int:
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available():
            return 0
        return int(torch.cuda.memory_allocated())


class TorchSession:
    """A transformers model and its head on one device. Raises CheckpointError when the files
    do not make one."""

    padded = True
    streams = 1

    def __init__(self, checkpoint: Checkpoint, head: Head, device: str, dtype: str) -> None:
        import torch

        self.device = device
        self.dtype = dtype
        self.batch_cost = GPU_COST if device == "cuda" else CPU_COST
        self._torch = torch
        model = _load(checkpoint, getattr(torch, _DTYPES[dtype]), logits=head.kind == "logits")
        self._model = model.to(device).eval().requires_grad_(False)
        self._accepts = set(inspect.signature(self._model.forward).parameters)
        self._head = _head(checkpoint, head, device)

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        torch = self._torch
        try:
            with torch.inference_mode():
                tensors = {name: self._move(array) for name, array in arrays.items()}
                output = self._head(self._forward(tensors), tensors)
                return {"output": output.float().cpu().numpy()}
        except getattr(torch, "AcceleratorError", ()) as error:  # since torch 2.8
            # after an error on the device every later call fails; out of memory is not one
            raise SessionLost("the GPU reported an error") from error

    def close(self) -> None:
        self._model = None
        if self.device == "cuda":
            self._torch.cuda.empty_cache()

    def _move(self, array: Array) -> Tensor:
        return self._torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _forward(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The logits, or the last hidden states. `position_ids` are the model's own to make:
        it counts them from the mask or the padding as its architecture does."""
        fed = {name: tensor for name, tensor in tensors.items() if name in self._accepts}
        output = self._model(**fed, return_dict=True)
        return output.logits if hasattr(output, "logits") else output.last_hidden_state


# ── opening ──────────────────────────────────────────────────────────────────────────────


def _installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _place(device: str) -> str:
    if device == "auto":
        return "cuda" if _has_cuda() else "cpu"
    return device


def _choose_dtype(dtype: str, device: str) -> str:
    if dtype == "auto":
        return "bf16" if device == "cuda" else "f32"
    return dtype


def _load(checkpoint: Checkpoint, dtype: Any, *, logits: bool) -> Any:
    checkpoint.weights()  # says what is wrong in our words before transformers says it in its
    with _quiet():
        from transformers import AutoModel, AutoModelForSequenceClassification

        kind = AutoModelForSequenceClassification if logits else AutoModel
        try:
            model, info = kind.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=dtype,
            )
        except Exception as error:  # whatever transformers raises for a file it cannot use
            raise CheckpointError(
                f"{checkpoint.name}: transformers cannot open it ({_first_line(error)})"
            ) from error
    # a pooler is left out of most checkpoints and of every head
    missing = [key for key in sorted(info["missing_keys"]) if logits or "pooler" not in key]
    if missing:
        raise CheckpointError(
            f"{checkpoint.name}: the weights lack {missing[0]} ({len(missing)} missing); "
            "download the model again"
        )
    return model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers draws progress bars and logs reports; what matters of them is checked."""
    from transformers.utils import logging as reports

    bars, level = reports.is_progress_bar_enabled(), reports.get_verbosity()
    reports.disable_progress_bar()
    reports.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if bars:
            reports.enable_progress_bar()


# ── heads, as core/heads.py has them in numpy ────────────────────────────────────────────

HeadRun: TypeAlias = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


def _head(checkpoint: Checkpoint, head: Head, device: str) -> HeadRun:
    """The steps as one function of the model's output [B, T, H] and its inputs.

    They are done in float32 whatever the model's dtype: they cost next to nothing.
    """
    if head.kind == "logits":
        return lambda output, _inputs: output
    pools = [step for step in head.steps if isinstance(step, Pool)]
    layers = [_layer(checkpoint, step, device) for step in head.steps if not isinstance(step, Pool)]

    def run(hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        x = hidden.float()
        for step in pools:
            x = _pool(x, step.modes, inputs["attention_mask"], inputs.get("pool_mask"))
        for layer in layers:
            x = layer(x)
        return x

    return run


def _pool(x: Tensor, modes: Sequence[str], mask: Tensor, pool_mask: Tensor | None) -> Tensor:
    """[B, T, H] to [B, len(modes) * H]. A row that nothing is pooled of gives zeros."""
    import torch

    kept = mask if pool_mask is None else pool_mask
    return torch.cat([_POOLS[mode](x, mask, kept) for mode in modes], dim=1)


def _first(x: Tensor, _mask: Tensor, kept: Tensor) -> Tensor:
    return _chosen(x, kept, kept.int().argmax(1))


def _last(x: Tensor, _mask: Tensor, kept: Tensor) -> Tensor:
    return _chosen(x, kept, kept.shape[1] - 1 - kept.flip(1).int().argmax(1))


def _chosen(x: Tensor, kept: Tensor, index: Tensor) -> Tensor:
    import torch

    rows = torch.arange(len(x), device=x.device)
    return x[rows, index] * kept[rows, index, None]


def _mean(x: Tensor, _mask: Tensor, kept: Tensor) -> Tensor:
    weights = kept.to(x.dtype)
    return _summed(x, weights) / weights.sum(1, keepdim=True).clamp(min=MASK_FLOOR)


def _mean_sqrt_len(x: Tensor, _mask: Tensor, kept: Tensor) -> Tensor:
    weights = kept.to(x.dtype)
    return _summed(x, weights) / weights.sum(1, keepdim=True).clamp(min=MASK_FLOOR).sqrt()


def _max(x: Tensor, _mask: Tensor, kept: Tensor) -> Tensor:
    highest = x.masked_fill(kept[..., None] == 0, float("-inf")).amax(1)
    return highest.masked_fill(~kept.any(1)[:, None], 0.0)


def _weightedmean(x: Tensor, mask: Tensor, kept: Tensor) -> Tensor:
    """Weights 1, 2, 3 … from the first token attended to."""
    import torch

    ramp = torch.arange(1, mask.shape[1] + 1, device=x.device) - mask.int().argmax(1)[:, None]
    weights = (ramp * kept).to(x.dtype)
    return _summed(x, weights) / weights.sum(1, keepdim=True).clamp(min=MASK_FLOOR)


def _summed(x: Tensor, weights: Tensor) -> Tensor:
    return (x * weights[..., None]).sum(1)


_POOLS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "mean": _mean,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weightedmean,
    "last": _last,
}


def _layer(checkpoint: Checkpoint, step: Step, device: str) -> Layer:
    import torch
    from torch.nn import functional

    if isinstance(step, Normalize):
        return lambda x: functional.normalize(x, dim=-1, eps=NORM_FLOOR)
    if isinstance(step, Dense):
        weights = _weights(checkpoint, step.file, device, "linear.weight")
        function = getattr(torch.nn, activation(step.activation))()
        bias = weights.get("linear.bias")
        return lambda x: function(functional.linear(x, weights["linear.weight"], bias))
    if isinstance(step, LayerNorm):
        weights = _weights(checkpoint, step.file, device, "norm.weight", "norm.bias")
        scale, shift = weights["norm.weight"], weights["norm.bias"]
        return lambda x: functional.layer_norm(x, scale.shape, scale, shift, LAYER_NORM_EPSILON)
    raise ValueError(f"a {type(step).__name__} step comes first or not at all")


def _weights(checkpoint: Checkpoint, file: str, device: str, *names: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = {name: tensor.float() for name, tensor in load(checkpoint.read(file)).items()}
    except SafetensorError as error:
        raise CheckpointError(
            f"{checkpoint.name}: {file} cannot be read ({error}); download it again"
        ) from error
    for name in names:
        if name not in found:
            raise CheckpointError(f"{checkpoint.name}: {file} lacks {name}; download it again")
    return {name: tensor.to(device) for name, tensor in found.items()}


PLUGIN = TorchRuntime()
