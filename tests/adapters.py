"""LoRA adapters with random weights, as PEFT writes them, and PEFT's own answers with them.

    folder = adapter("bert", seed=1, r=4, target_modules=["query", "value"])
    model = peft_model(base, {"one": folder, "two": other})

`adapter` builds each variant once a session. The folder is shared: copy it before changing
anything in it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from checkpoints import tiny_checkpoints  # noqa: F401 - the fixture that `adapter` needs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

BASE = "__base__"  # PEFT's name for a row without any adapter


def build_adapter(
    base: Path, folder: Path, *, seed: int = 0, labels: bool = False, **config: Any
) -> Path:
    """`config` is that of PEFT's LoraConfig; B is random too, not the zeros of a beginning."""
    import torch
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(load_base(base, labels=labels), LoraConfig(**config))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(folder)
    return folder


def load_base(base: Path, *, labels: bool = False) -> Any:
    import transformers

    kind = "AutoModelForSequenceClassification" if labels else "AutoModel"
    return getattr(transformers, kind).from_pretrained(base).eval()


def peft_model(base: Path, adapters: Mapping[str, Path], *, labels: bool = False) -> Any:
    from peft import PeftModel

    (first, folder), *others = adapters.items()
    model = PeftModel.from_pretrained(load_base(base, labels=labels), folder, adapter_name=first)
    for name, other in others:
        model.load_adapter(other, adapter_name=name)
    return model.eval()


def peft_answer(model: Any, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Hidden states [B, T, H], or logits [B, labels], of rows that have one adapter each."""
    import torch

    with torch.no_grad():
        fed = {name: torch.from_numpy(array) for name, array in arrays.items()}
        output = model(**fed, adapter_names=list(names))
    return (output.logits if "logits" in output else output.last_hidden_state).numpy()


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="session", name="adapter")
def tiny_adapters(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`adapter(kind, base={...}, **options) -> folder`; `base` are the options of its model."""
    built: dict[str, Path] = {}

    def adapter(kind: str, base: Mapping[str, Any] | None = None, **options: Any) -> Path:
        key = json.dumps([kind, base, options], sort_keys=True)
        if key not in built:
            folder = tmp_path_factory.mktemp(f"{kind}-lora")
            built[key] = build_adapter(tiny(kind, **(base or {})), folder, **options)
        return built[key]

    return adapter
