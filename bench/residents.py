"""What each shape of Qwen3-Embedding takes of memory. Of ours alone; a shape that does not fit
in the memory that is free is left out, and its weights are on disk only while it is measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import models, servers, texts
from bench.models import Shape
from bench.places import MODELS
from bench.processes import ServerLostError
from bench.suites import _plain, started

GROWN: Mapping[str, Mapping[str, int]] = {
    "qwen3": {},
    "qwen3-4b": {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "intermediate_size": 9728,
    },
    "qwen3-8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "intermediate_size": 12288,
    },
}
TITLES = {"qwen3": "0.6B", "qwen3-4b": "4B", "qwen3-8b": "8B"}
ROOM = 2.0  # GB beside the weights, and as much again of the disk
ASKED = 24


def measure(repeats: int) -> Iterator[dict[str, Any]]:
    for repeat in range(repeats):
        for name in GROWN:
            about = {"suite": "residents", "server": "omnivec", "repeat": repeat}
            try:
                yield from ({**about, **sample} for sample in _weighed(name))
            except (ServerLostError, OSError, RuntimeError, ValueError) as error:
                yield {**about, "workload": "lost", "why": _plain(str(error))}


def _weighed(name: str) -> Iterator[dict[str, Any]]:
    weights = sum(2 * int(np.prod(shape)) for shape in tensors(config(name)).values())
    if weights / 1e9 + ROOM > min(_free_memory(), shutil.disk_usage(MODELS).free / 1e9 - ROOM):
        return
    folder = _made(name)
    try:
        with started(servers.NAMED["omnivec"], name) as running:
            idle = running.memory()
            for size in (12, 100, 400):
                for batch in (1, ASKED // 3):
                    running.post(
                        "/v1/embeddings", texts.embed_body(texts.windows(size, batch)), within=1200
                    )
            used = running.memory()
    finally:
        if name != "qwen3":
            shutil.rmtree(folder)
    figures = {"idle_mb": idle["resident"], "loaded_mb": used["resident"], "peak_mb": used["peak"]}
    yield {"workload": TITLES[name], "weights_mb": weights / 1e6, **figures}


def _free_memory() -> float:
    """GB that could be had now."""
    told = Path("/proc/meminfo").read_text(encoding="utf-8")
    return int(told.split("MemAvailable:")[1].split()[0]) / 1e6


# ── a checkpoint that torch would not have the room to make ──────────────────────────────


def config(name: str) -> dict[str, Any]:
    return {**models.QWEN3_SMALL, **GROWN[name]}


def tensors(told: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a Qwen3Model's tensors, by name."""
    width, inner, size = told["hidden_size"], told["intermediate_size"], told["head_dim"]
    asked, kept = (told[f"num_{kind}_heads"] * size for kind in ("attention", "key_value"))
    layer = {
        "self_attn.q_proj": (asked, width),
        "self_attn.k_proj": (kept, width),
        "self_attn.v_proj": (kept, width),
        "self_attn.o_proj": (width, asked),
        "self_attn.q_norm": (size,),
        "self_attn.k_norm": (size,),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    found: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (told["vocab_size"], width),
        "norm.weight": (width,),
    }
    for at in range(told["num_hidden_layers"]):
        found |= {f"layers.{at}.{part}.weight": shape for part, shape in layer.items()}
    return found


def _made(name: str) -> Path:
    if name == "qwen3":
        return models.folder(name)
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    told = config(name)
    models.write_beside(Shape(name, "Qwen3", told, 8192, "last"), folder, told["hidden_size"])
    own = {"model_type": "qwen3", "architectures": ["Qwen3Model"], "hidden_act": "silu"}
    own |= {"rms_norm_eps": 1e-6, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(told | own), encoding="utf-8")
    _write(tensors(told), folder / "model.safetensors")
    (folder / "done").touch()
    return folder


def _write(named: Mapping[str, tuple[int, ...]], file: Path) -> None:
    """Small random numbers in bf16, one block of them again and again."""
    block = np.random.default_rng(0).standard_normal(1 << 24, np.float32) * np.float32(0.02)
    cut = (block.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    header, at = {}, 0
    for name, shape in named.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    with file.open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        while at:
            at -= out.write(cut[:at])
