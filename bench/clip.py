"""The files beside CLIP's weights, as OpenAI's own checkpoints have them, in a spelling that
every release of transformers reads. The tokenizer knows letters and no merges: texts have more
tokens than they should, and no text is measured here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
IDS = {BEGIN: 49406, END: 49407}  # as CLIP's configuration has them when it is told nothing
WINDOW = 77
LETTER = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "processor_class": "CLIPProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def write_files(to: Path) -> None:
    (to / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    coder = _tokenizer()
    coder.save(str(to / "tokenizer.json"))
    (to / "vocab.json").write_text(json.dumps(coder.get_vocab()))
    (to / "merges.txt").write_text("#version: 0.2\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": WINDOW,
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (to / "tokenizer_config.json").write_text(json.dumps(settings))


def _tokenizer() -> Any:
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    every = [*letters, *(f"{letter}</w>" for letter in letters)]
    every += [f"<{at}>" for at in range(len(every), IDS[BEGIN])]  # readers warn of holes
    vocabulary = {piece: at for at, piece in enumerate(every)} | IDS
    made = Tokenizer(
        models.BPE(vocabulary, [], unk_token=END, end_of_word_suffix="</w>", fuse_unk=False)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(LETTER), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.add_special_tokens([AddedToken(name, special=True) for name in IDS])
    around = ((END, IDS[END]), (BEGIN, IDS[BEGIN]))
    made.post_processor = processors.RobertaProcessing(*around, trim_offsets=False)
    return made
