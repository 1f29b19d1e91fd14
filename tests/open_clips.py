"""Tiny checkpoints of MobileCLIP in open_clip's layout, and the reference: timm's image towers,
and open_clip's text tower and tokenizer.

Both packages import torchvision, of which the parts that are used here need nothing. It must not
be installed beside a torch for CPUs, so that a stand-in takes its place while they are imported.
"""

from __future__ import annotations

import enum
import gzip
import importlib
import importlib.machinery
import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from vocabularies import SENTENCES

KINDS = ("s", "b", "large")
WIDTH, WORDS, DIMS = 64, 77, 16
GAIN, BIAS = 1.5, 0.1  # under which outputs neither all look the same nor grow without end
SIDES = {"s": 64, "b": 64, "large": 128}
_TOWERS = {"s": "fastvit_mci1", "b": "vit_base_mci_224", "large": "fastvit_mci3"}
_PARTS = (
    "datasets",
    "models",
    "models.feature_extraction",
    "ops",
    "ops.misc",
    "transforms",
    "transforms.functional",
)
_CLIP = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}


class Reference(NamedTuple):
    image: Any
    text: Any

    def see(self, pixels: np.ndarray) -> np.ndarray:
        """float32 [B, 3, S, S] to [B, d]."""
        return _run(self.image, pixels)

    def read(self, ids: np.ndarray) -> np.ndarray:
        """int64 [B, 77] to [B, d]."""
        return _run(self.text, ids)


def _run(tower: Any, given: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        found: np.ndarray = tower(torch.from_numpy(np.ascontiguousarray(given))).numpy()
    return found


# ── the packages ─────────────────────────────────────────────────────────────────────────


class _Modes(enum.Enum):
    NEAREST, BILINEAR, BICUBIC, BOX, HAMMING, LANCZOS = range(6)


class _Hollow(types.ModuleType):
    """A module that has every name: an empty class."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.__path__: list[str] = []
        self.InterpolationMode = _Modes

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        import torch

        return type(name, (torch.nn.Module,), {})


@contextmanager
def _standing_in() -> Iterator[None]:
    from transformers.utils import is_torchvision_available

    assert not is_torchvision_available()  # which remembers it
    names = ("torchvision", *(f"torchvision.{part}" for part in _PARTS))
    for name in names:
        sys.modules[name] = _Hollow(name)
        above, _, last = name.rpartition(".")
        if above:
            setattr(sys.modules[above], last, sys.modules[name])
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@cache
def packages() -> tuple[Any, Any, Any]:
    """timm's FastViT and its hybrid ViT, and open_clip's transformers."""
    with _standing_in():
        return tuple(
            importlib.import_module(name)
            for name in (
                "timm.models.fastvit",
                "timm.models.vision_transformer_hybrid",
                "open_clip.transformer",
            )
        )


# ── checkpoints ──────────────────────────────────────────────────────────────────────────


def build(
    kind: str, folder: Path, *, causal: bool | None = None, pickled: bool = False
) -> Reference:
    """A checkpoint of KINDS: MobileCLIP-S1's, -B's and MobileCLIP2-S3's towers, made small."""
    import torch
    from safetensors.torch import save_file

    causal = kind == "b" if causal is None else causal
    tokens = tokenizer()
    tokens.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = _shaken(_image(kind))  # before the other, so that no words change what it is
        made = Reference(image, _shaken(_text(len(tokens), causal=causal)))
    state = {f"visual.trunk.{key}": value for key, value in made.image.state_dict().items()}
    state |= {f"text.{key}": value for key, value in made.text.state_dict().items()}
    state["logit_scale"] = torch.tensor(2.6)
    if pickled:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(
            {key: one.contiguous() for key, one in state.items()},
            folder / "open_clip_model.safetensors",
        )
    told = settings(kind, len(tokens), causal=causal)
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    return made


def settings(kind: str, words: int, *, causal: bool) -> dict[str, Any]:
    seen = _CLIP if kind == "large" else {"mean": [0, 0, 0], "std": [1, 1, 1]}
    return {
        "model_cfg": {
            "embed_dim": DIMS,
            "vision_cfg": {"timm_model_name": _TOWERS[kind], "image_size": SIDES[kind]},
            "text_cfg": {
                "context_length": WORDS,
                "vocab_size": words,
                "width": WIDTH,
                "heads": 2,
                "layers": 2,
                "no_causal_mask": not causal,
            },
            "custom_text": True,
        },
        "preprocess_cfg": {**seen, "interpolation": "bilinear", "resize_mode": "shortest"},
    }


def _image(kind: str) -> Any:
    fastvit, hybrid, _ = packages()
    if kind == "b":
        return _vit(hybrid)
    from functools import partial

    five = {"s": 4, "large": 5}[kind]
    places = partial(fastvit.RepConditionalPosEnc, spatial_shape=(7, 7))
    told: dict[str, Any] = {
        "layers": (1, 2, 1, 2, 1)[:five],
        "embed_dims": (16, 32, 32, 64, 64)[:five],
        "mlp_ratios": (3,) * five,
        "downsamples": (False, True, True, True, True)[:five],
        "se_downsamples": (False, False, kind == "s", kind == "s", False)[:five],
        "pos_embs": (None, None, None, places, places)[:five],
        "token_mixers": ("repmixer", "repmixer", "repmixer", "attention", "attention")[:five],
        "lkc_use_act": True,
        "num_classes": DIMS,
    }
    if kind == "large":
        norm = partial(fastvit.LayerNorm2d, eps=1e-5)
        told |= {"norm_layer": norm, "stem_use_scale_branch": False}
    return fastvit.FastVit(**told).eval()


def _vit(hybrid: Any) -> Any:
    import torch

    stem = hybrid.ConvStem(
        channels=(16, 16, WIDTH),
        stride=(4, 2, 2),
        kernel_size=(4, 2, 2),
        padding=0,
        act_layer=torch.nn.GELU,
    )
    return hybrid._create_vision_transformer_hybrid(
        "vit_base_mci_224",
        backbone=stem,
        embed_args={"proj": False},
        embed_dim=WIDTH,
        depth=2,
        num_heads=1,
        no_embed_class=True,
        img_size=SIDES["b"],
        num_classes=DIMS,
        global_pool="token",
    ).eval()


def _text(words: int, *, causal: bool) -> Any:
    _, _, transformer = packages()
    return transformer.TextTransformer(
        context_length=WORDS,
        vocab_size=words,
        width=WIDTH,
        heads=2,
        layers=2,
        output_dim=DIMS,
        no_causal_mask=not causal,
    ).eval()


def _shaken(tower: Any) -> Any:
    """Random weights and statistics of training: those of a new tower hide mistakes."""
    import torch

    with torch.no_grad():
        for name, one in [*tower.named_parameters(), *tower.named_buffers()]:
            if not one.is_floating_point() or name.endswith("mask"):
                continue
            noise = torch.randn_like(one)
            if name.endswith("running_var"):
                one.copy_(0.5 + noise.abs())
            elif one.ndim < 2 and name.endswith("weight"):
                one.copy_(0.7 + 0.2 * noise)
            elif one.ndim < 2 or "layer_scale" in name:
                one.copy_(BIAS * noise + ("layer_scale" in name) * 0.3)
            else:
                one.copy_(GAIN * noise / max(1, one[0].numel()) ** 0.5)
    return tower


# ── tokenizers ───────────────────────────────────────────────────────────────────────────


@cache
def _own() -> Any:
    """open_clip's, of few words: these are its file's lines from the second one on."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = _split()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    merges = json.loads(made.to_str())["model"]["merges"]
    lines = ["", *(" ".join(pair) for pair in merges)]
    packages()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "words.txt.gz"
        file.write_bytes(gzip.compress("\n".join(lines).encode()))
        return importlib.import_module("open_clip.tokenizer").SimpleTokenizer(str(file))


def _split() -> Any:
    """As CLIP's tokenizer.json has it: words, digits, signs; each as bytes."""
    from tokenizers import Regex, pre_tokenizers

    words = Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


@cache
def tokenizer() -> Any:
    """The same words in the form of CLIP's tokenizer.json."""
    from tokenizers import Regex, Tokenizer, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    start, end = "<|startoftext|>", "<|endoftext|>"
    *words, first, last = _own().encoder.items()
    known = {**dict(words), start: first[1], end: last[1]}
    made = Tokenizer(
        models.BPE(known, list(_own().bpe_ranks), unk_token=end, end_of_word_suffix="</w>")
    )
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    made.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    made.pre_tokenizer = _split()
    made.add_special_tokens([start, end])
    made.post_processor = processors.TemplateProcessing(
        single=[start, "$A", end],
        pair=[start, "$A", end, "$B:1", f"{end}:1"],
        special_tokens=[(start, known[start]), (end, known[end])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=WORDS,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
    )


def ids(texts: list[str]) -> np.ndarray:
    """int64 [B, 77]: cut to 77 with the end still there, and zeros behind it."""
    found: np.ndarray = _own()(texts, WORDS).numpy()
    return found


# ── pictures ─────────────────────────────────────────────────────────────────────────────


def prepared(kind: str, picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] to float32 [3, S, S], as open_clip has it by torchvision's Resize,
    CenterCrop, ToTensor and Normalize of a Pillow image."""
    from PIL import Image

    side, told = SIDES[kind], settings(kind, 0, causal=False)["preprocess_cfg"]
    height, width = picture.shape[:2]
    short, long = min(height, width), max(height, width)
    sizes = {short: side, long: int(side * long / short)}
    size = sizes[width], sizes[height]
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    top, left = (round((one - side) / 2) for one in resized.shape[:2])
    cut = resized[top : top + side, left : left + side].astype(np.float32) / np.float32(255)
    mean, std = (np.array(told[name], np.float32) for name in ("mean", "std"))
    return np.asarray(((cut - mean) / std).transpose(2, 0, 1))
