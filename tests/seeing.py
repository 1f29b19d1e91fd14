"""Tiny vision-language checkpoints with random weights, pictures for them, and models opened."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Film, Pixels, Text, Unit
from omnivec.runtimes.torch import PLUGIN as TORCH
from vocabularies import SENTENCES, tokenizer

if TYPE_CHECKING:
    from pathlib import Path

QWEN_MARKS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


class Opened:
    """A family's model over the torch runtime, and what a test asks of it. `spare` opens those
    graphs, too, on a runtime of their own."""

    def __init__(
        self, family: Any, folder: Path, name: str = "tiny", *, spare: Any = None, **told: Any
    ) -> None:
        checkpoint = Checkpoint(name, folder, **told)
        assert family.claims(checkpoint)
        self.card = family.card(checkpoint)
        heads = family.graphs(checkpoint)
        self.sessions = {
            name: (spare if head.spare else TORCH).open(checkpoint, name, head, "cpu", "f32")
            for name, head in heads.items()
            if spare or not head.spare
        }
        self.model = family.ready(checkpoint, self.sessions)

    def run(self, *units: Unit) -> list[Any]:
        return self.model.forward(self.model.prepare(units))


def unit(*parts: Any, other: tuple[Any, ...] | None = None, **told: Any) -> Unit:
    """Of texts, as they are, and of what else a unit may have."""

    def parted(part: Any) -> Any:
        return Text(part) if isinstance(part, str) else part

    return Unit(
        parts=tuple(map(parted, parts)),
        other=None if other is None else tuple(map(parted, other)),
        **told,
    )


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Soft shapes with some noise, as nothing in a photograph is only noise."""
    rng = np.random.default_rng([height, width, seed])
    rows, columns = np.mgrid[0:height, 0:width] / 16
    waves = [np.sin(rows * a + columns * b + c) for a, b, c in rng.uniform(0.1, 2, (3, 3))]
    noise = rng.normal(0, 12, (height, width, 3))
    shades = np.stack(waves, axis=2) * 100 + 127 + noise
    return Pixels(np.clip(shades, 0, 255).astype(np.uint8))


def film(frames: int, size: tuple[int, int] = (48, 80), rate: float = 1.0) -> Film:
    pictures = tuple(picture(*size, seed) for seed in range(frames))
    return Film(frames=pictures, times=tuple(index / rate for index in range(frames)))


def qwen_tokenizer(after: str | None = None, words: tuple[str, ...] = ("yes", "no")) -> Any:
    """Byte-level, with Qwen's special tokens. `after`: the one that follows every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(QWEN_MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.add_tokens(list(words))
    if after is not None:
        made.post_processor = processors.TemplateProcessing(
            single=f"$A {after}",
            pair=f"$A $B {after}",
            special_tokens=[(after, made.token_to_id(after))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<|endoftext|>",
        additional_special_tokens=list(QWEN_MARKS[1:]),
        model_max_length=262144,
        chat_template=TEMPLATE,
    )


def build_qwen3_vl(
    folder: Path, *, after: str | None = None, tied: bool = True, width: int = 32, seed: int = 0
) -> Path:
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokens = qwen_tokenizer(after)
    named = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    config = Qwen3VLConfig(
        text_config={
            "hidden_size": width,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 64,
            "vocab_size": len(tokens),
            "max_position_embeddings": 16384,
            "initializer_range": 0.2,
            "tie_word_embeddings": tied,
            "rope_scaling": {
                "rope_type": "default",
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "out_hidden_size": width,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.2,
        },
        tie_word_embeddings=tied,
        **{name: tokens.convert_tokens_to_ids(token) for name, token in named.items()},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def build_colqwen2(folder: Path, *, after: str | None = None, seed: int = 0) -> Path:
    """With its processor, which transformers builds without torchvision."""
    import torch
    from transformers import ColQwen2Config, ColQwen2ForRetrieval, ColQwen2Processor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokens = qwen_tokenizer(after)
    config = ColQwen2Config(
        vlm_config={
            "model_type": "qwen2_vl",
            "text_config": {
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 64,
                "vocab_size": len(tokens),
                "max_position_embeddings": 4096,
                "initializer_range": 0.2,
                "bos_token_id": None,
                "eos_token_id": None,
                "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
            },
            "vision_config": {
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": 32,
                "num_heads": 2,
                "mlp_ratio": 2,
                "patch_size": 14,
                "initializer_range": 0.2,
            },
            "image_token_id": tokens.convert_tokens_to_ids("<|image_pad|>"),
            "video_token_id": tokens.convert_tokens_to_ids("<|video_pad|>"),
            "vision_start_token_id": tokens.convert_tokens_to_ids("<|vision_start|>"),
            "vision_end_token_id": tokens.convert_tokens_to_ids("<|vision_end|>"),
        },
        embedding_dim=16,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ColQwen2ForRetrieval(config).save_pretrained(folder)
    pictures = Qwen2VLImageProcessorPil(min_pixels=4 * 28 * 28, max_pixels=40 * 28 * 28)
    ColQwen2Processor(pictures, tokens).save_pretrained(folder)
    return folder


def build_colpali(folder: Path, *, seed: int = 0) -> Path:
    """As build_colqwen2; its pictures are four by four patches."""
    import torch
    from transformers import ColPaliConfig, ColPaliForRetrieval, ColPaliProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    half = [0.5, 0.5, 0.5]
    pictures = SiglipImageProcessorPil(
        size={"height": 56, "width": 56}, image_mean=half, image_std=half
    )
    pictures.image_seq_length = 16
    processor = ColPaliProcessor(pictures, gemma_tokenizer())
    tokens = processor.tokenizer
    config = ColPaliConfig(
        vlm_config={
            "model_type": "paligemma",
            "text_config": {
                "model_type": "gemma",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "intermediate_size": 64,
                "vocab_size": len(tokens),
                "max_position_embeddings": 512,
                "initializer_range": 0.2,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "image_size": 56,
                "patch_size": 14,
                "vision_use_head": False,
            },
            "image_token_index": tokens.convert_tokens_to_ids("<image>"),
            "projection_dim": 32,
            "hidden_size": 32,
        },
        embedding_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ColPaliForRetrieval(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_blip2(folder: Path, *, seed: int = 0) -> Path:
    import torch
    from transformers import Blip2Config, Blip2ForImageTextRetrieval
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    tokens = tokenizer("wordpiece", 64, segments=False)
    inner = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = Blip2Config(
        vision_config={"hidden_size": 32, "image_size": 56, "patch_size": 14, **inner},
        qformer_config={
            "hidden_size": 32,
            "encoder_hidden_size": 32,
            "vocab_size": len(tokens),
            "max_position_embeddings": 64,
            "use_qformer_text_input": True,
            "initializer_range": 0.2,
            **inner,
        },
        num_query_tokens=8,
        image_text_hidden_size=16,
        initializer_range=0.2,
    )
    config.image_token_index = None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Blip2ForImageTextRetrieval(config)
        model.query_tokens.data.normal_()
        model.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 56, "width": 56}).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def gemma_tokenizer() -> Any:
    """Letters and a few words, spaces as Gemma has them, and its special tokens."""
    from transformers import GemmaTokenizer

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\n", "\u2581"]
    letters = sorted(set("".join(SENTENCES)) - {" "})
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the"), ("o", "x")]
    pieces = [*specials, *letters, *("".join(pair) for pair in merges)]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    return GemmaTokenizer(vocab=vocabulary, merges=merges)


def write_json(folder: Path, **files: Any) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
