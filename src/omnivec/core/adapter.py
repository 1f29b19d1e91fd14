"""LoRA adapters as PEFT writes them: what each adds to which matrices of its base model.

A layer's y = x W^T + b becomes y + s (x A^T) B^T, where s is alpha / r (arXiv 2106.09685) or,
with `use_rslora`, alpha / sqrt(r) (arXiv 2312.03732). The names of the tensors tell which
layers those are; nothing else of adapter_config.json is needed for that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from omnivec.core.checkpoint import CheckpointError, Update
from omnivec.core.tensors import Tensor, open_file

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")
# A key of adapter_config.json, the values under which the formula above holds, and what
# another one means.
_NEEDED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("use_dora", (None, False), "DoRA"),
    ("bias", (None, "none"), "trained biases"),
    ("lora_bias", (None, False), "biases of its own"),
    ("modules_to_save", (None, []), "whole modules of its own"),
    ("trainable_token_indices", (None, [], {}), "word embeddings of its own"),
    ("target_parameters", (None, []), "parameters that are no linear layers"),
    ("layer_replication", (None, []), "repeated layers"),
    ("alora_invocation_tokens", (None, []), "activated LoRA"),
    ("use_qalora", (None, False), "QALoRA"),
    ("use_bdlora", (None, False), "block-diagonal LoRA"),
    ("arrow_config", (None,), "Arrow routing"),
    ("kasa_config", (None,), "KaSA"),
    ("monteclora_config", (None,), "MonteCLoRA"),
    # the other ways to begin change the base's own matrices
    ("init_lora_weights", (None, True, False, "gaussian", "eva", "orthogonal"), "a changed base"),
)


class _Pair(NamedTuple):
    a: Tensor
    b: Tensor
    scale: float


class Adapter:
    """The adapter in `folder`, which clients ask for by `name`. `base` is what it says that it
    was trained on, "" where it does not.

    Raises CheckpointError when it is not whole, or changes more than linear layers.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._config = self._read_config()
        self.base = str(self._config.get("base_model_name_or_path") or "")
        self._pairs = self._read_pairs()

    def updates(self, matrices: Mapping[str, tuple[int, ...]]) -> dict[str, Update]:
        """Under the names of the base's `matrices`: their shapes [out, in] by the paths of
        their layers, which may begin otherwise than the adapter's ("bert.", "model.").

        Raises CheckpointError when the base has no such layer or one of another shape.
        """
        found = {}
        for path, (a, b, scale) in self._pairs.items():
            key = _locate(path, matrices)
            if key is None and "pooler" in path:  # left out of many models, and of most heads
                continue
            if key is None:
                raise self._error(f"its base has no linear layer {path!r}; is it for another model")
            if (b.shape[0], a.shape[1]) != matrices[key]:
                raise self._error(
                    f"{path!r} is {b.shape[0]} x {a.shape[1]}, and "
                    f"{' x '.join(map(str, matrices[key]))} in the model that is served; "
                    "is it for another model"
                )
            found[key] = Update(a.floats(), b.floats() * scale)
        return found

    # ── the files ────────────────────────────────────────────────────────────────────────

    def _read_config(self) -> Mapping[str, Any]:
        try:
            found = msgspec.json.decode((self.folder / CONFIG).read_bytes(), type=dict[str, Any])
        except OSError as error:
            raise self._error(
                f"{self.folder} has no {CONFIG} that can be read; accepted: a folder as PEFT's "
                "save_pretrained writes it"
            ) from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._error(f"{CONFIG} is not valid JSON") from error
        if found.get("peft_type") != "LORA":
            raise self._error(f"its type is {found.get('peft_type')!r}; accepted: 'LORA'")
        for key, right, what in _NEEDED:
            if found.get(key) not in right:
                raise self._error(f"it has {what} ({key!r}), which cannot be applied here")
        return found

    def _read_pairs(self) -> dict[str, _Pair]:
        """The matrices and the scale of each layer, by its path in the base model."""
        file = self.folder / WEIGHTS
        if not file.is_file():
            pickle = (self.folder / PICKLE).is_file()
            what = "is only there as a pickle, which can run code" if pickle else "is missing"
            raise self._error(f"{WEIGHTS} {what}; save it with a current release of PEFT")
        halves: dict[str, dict[str, Tensor]] = {}
        for key, tensor in open_file(f"adapter {self.name}", file)[1].items():
            match = _KEY.fullmatch(key)
            if match is None:
                raise self._error(f"{key!r} is no matrix of a linear layer; accepted: those alone")
            halves.setdefault(match[1], {})[match[2]] = tensor
        if not halves:
            raise self._error(f"{WEIGHTS} is empty")
        return {path: self._pair(path, half) for path, half in halves.items()}

    def _pair(self, path: str, half: Mapping[str, Tensor]) -> _Pair:
        for letter in "AB":
            if letter not in half:
                raise self._error(f"{path!r} has no lora_{letter}; save the adapter again")
        a, b = half["A"], half["B"]
        try:
            rank = int(self._told(path, "rank_pattern", "r"))
            alpha = float(self._told(path, "alpha_pattern", "lora_alpha"))
        except (AttributeError, TypeError, ValueError, re.error) as error:
            raise self._error(f"{CONFIG} has no r or lora_alpha that is a number") from error
        if rank < 1 or len(a.shape) != 2 or (a.shape[0], *b.shape[1:]) != (rank, rank):  # noqa: PLR2004 - a matrix
            raise self._error(f"{path!r} has not the rank {rank} that {CONFIG} says")
        root = math.sqrt(rank) if self._config.get("use_rslora") else rank
        return _Pair(a, b, alpha / root)

    def _told(self, path: str, pattern: str, otherwise: str) -> Any:
        """The value of the first pattern that is, or ends, the path, as PEFT matches them."""
        for key, value in (self._config.get(pattern) or {}).items():
            if re.fullmatch(rf"(.*\.)?({key})", path):
                return value
        return self._config.get(otherwise, 8)  # PEFT's default of both

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"adapter {self.name}: {what}")


def _locate(path: str, matrices: Mapping[str, tuple[int, ...]]) -> str | None:
    """The layer that `path` means, where one of the two begins with parts that the other does
    not have: "bert.encoder.layer.0", "encoder.layer.0"."""
    parts = path.split(".")
    for start in range(len(parts)):
        tail = ".".join(parts[start:])
        if tail in matrices:
            return tail
    longer = [name for name in matrices if name.endswith(f".{path}")]
    return longer[0] if len(longer) == 1 else None
