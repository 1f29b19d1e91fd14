"""The model of the picture examples: a real one, or where there is none a tiny CLIP of random
weights, which shows that everything runs and finds nothing that words mean."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from omnivec import Engine
from omnivec.core.checkpoint import CheckpointError

DEFAULT = "openai/clip-vit-base-patch32"
WARNING = "random weights: the order means nothing"
WIDTH, LAYERS, SIDE, PATCH, DIMS, WINDOW = 128, 2, 64, 8, 64, 77
FIRST, LAST = "<|startoftext|>", "<|endoftext|>"


@contextmanager
def seeing(model: str | None, *, random: bool) -> Iterator[tuple[Engine, str]]:
    """An engine that is open, and what there is to say of its weights. Ends the program when
    the model that was asked for cannot be had; only the default one is replaced."""
    with ExitStack() as stack:
        if not random:
            try:
                engine = stack.enter_context(Engine(model or DEFAULT))
            except CheckpointError as error:
                if model is not None:
                    sys.exit(f"{error}\nor use --random, to see how it would look")
                print(f"{DEFAULT} is not to be had here", file=sys.stderr)
            else:
                yield engine, model or DEFAULT
                return
        print(WARNING, file=sys.stderr, flush=True)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="omnivec-"))
        yield stack.enter_context(Engine(f"random-clip={write(Path(folder))}")), WARNING


def write(folder: Path) -> Path:
    """A checkpoint as transformers writes CLIP's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*alphabet, FIRST, LAST])}
    tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    weights = text_weights(len(vocabulary)) | vision_weights()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for name, content in settings(vocabulary).items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    """Each byte is a token."""
    made = Tokenizer(models.BPE(vocabulary, []))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([FIRST, LAST])
    made.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {LAST}",
        special_tokens=[(name, vocabulary[name]) for name in (FIRST, LAST)],
    )
    return made


def settings(vocabulary: dict[str, int]) -> dict[str, dict]:
    """The JSON files, by their names."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
    text = {
        "model_type": "clip_text_model",
        "vocab_size": len(vocabulary),
        "max_position_embeddings": WINDOW,
        "eos_token_id": vocabulary[LAST],
    }
    vision = {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH}
    return {
        "config": {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": DIMS,
            "text_config": tower | text,
            "vision_config": tower | vision,
        },
        "preprocessor_config": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": SIDE},
            "crop_size": {"height": SIDE, "width": SIDE},
        },
        "tokenizer_config": {"eos_token": LAST, "pad_token": LAST, "model_max_length": WINDOW},
    }


# ── weights: the same ones each time ─────────────────────────────────────────────────────

random = np.random.default_rng(0)


def matrix(*shape: int) -> np.ndarray:
    """[out, in, ...], so that what goes in about as large comes out."""
    return random.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)


def norm(name: str) -> dict[str, np.ndarray]:
    ones, zeros = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    return {f"{name}.weight": ones, f"{name}.bias": zeros}


def linear(name: str, out: int, into: int) -> dict[str, np.ndarray]:
    return {f"{name}.weight": matrix(out, into), f"{name}.bias": np.zeros(out, np.float32)}


def layers(tower: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in (f"{tower}.encoder.layers.{number}" for number in range(LAYERS)):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= linear(f"{name}.self_attn.{part}", WIDTH, WIDTH)
        found |= norm(f"{name}.layer_norm1") | norm(f"{name}.layer_norm2")
        found |= linear(f"{name}.mlp.fc1", 4 * WIDTH, WIDTH)
        found |= linear(f"{name}.mlp.fc2", WIDTH, 4 * WIDTH)
    return found


def text_weights(vocabulary: int) -> dict[str, np.ndarray]:
    return {
        "text_model.embeddings.token_embedding.weight": matrix(vocabulary, WIDTH),
        "text_model.embeddings.position_embedding.weight": matrix(WINDOW, WIDTH),
        **layers("text_model"),
        **norm("text_model.final_layer_norm"),
        "text_projection.weight": matrix(DIMS, WIDTH),
    }


def vision_weights() -> dict[str, np.ndarray]:
    return {
        "vision_model.embeddings.class_embedding": matrix(1, WIDTH)[0],
        "vision_model.embeddings.patch_embedding.weight": matrix(WIDTH, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": matrix(
            (SIDE // PATCH) ** 2 + 1, WIDTH
        ),
        **norm("vision_model.pre_layrnorm"),
        **layers("vision_model"),
        **norm("vision_model.post_layernorm"),
        "visual_projection.weight": matrix(DIMS, WIDTH),
    }
