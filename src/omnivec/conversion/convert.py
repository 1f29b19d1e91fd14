"""A checkpoint of open_clip's or Apple's, to a folder that is served like any other model.

Nothing but NumPy is needed for it, and nothing is unpickled.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from omnivec.conversion import apple, fastvit, sources, texts, vit
from omnivec.conversion.stock import Stock
from omnivec.conversion.told import VIT, Told, by_apple, by_open_clip
from omnivec.core.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from omnivec.conversion.sources import Source
    from omnivec.core.nouns import Floats

MODEL_TYPE = "mobileclip"
_SCALES = {"logit_scale", "logit_bias"}  # of training; no vector depends on them


class Made(NamedTuple):
    """`config` is config.json, `pictures` preprocessor_config.json."""

    config: Mapping[str, Any]
    pictures: Mapping[str, Any]
    tensors: Mapping[str, Floats]

    def __str__(self) -> str:
        image, text = (self.config[f"{tower}_config"] for tower in ("vision", "text"))
        return (
            f"{image['parameters'] / 1e6:.1f} million numbers for pictures of "
            f"{image['image_size']} x {image['image_size']}, {text['parameters'] / 1e6:.1f} "
            f"million for texts, vectors of {self.config['projection_dim']}"
        )


def convert(place: Path, target: Path, tokenizer: Path | None, tell: Callable[[str], None]) -> None:
    """From the folder or file `place` to the folder `target`, which is empty or not there yet.
    The tokenizer is that of the folder `tokenizer`, or the source's own. `tell` gets lines for
    people. Raises CheckpointError."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} is there already; accepted: a new or an empty folder")
    source = sources.read(place)
    words = _tokenizer(source, tokenizer)
    tell(f"{source.name}: {len(source.tensors)} tensors")
    made = _made(source)
    _check(words, made)
    tell(str(made))
    _write(made, words, target)


def _made(source: Source) -> Made:
    """As made_of. Raises CheckpointError also for tensors of shapes that nobody thought of."""
    try:
        return made_of(source)
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{source.name} is not the model that it claims to be: the shapes of its tensors do "
            "not fit each other; download it again"
        ) from error


def made_of(source: Source) -> Made:
    """Both towers, with what only training needs folded in. Raises CheckpointError, and what
    NumPy raises for tensors that do not fit each other."""
    own = apple.claims(source.tensors)
    stock = Stock(source.name, apple.renamed(source.tensors) if own else source.tensors)
    text = stock.under("text")
    if own:
        width = text.take("token_embedding.weight").shape[1]
        told = by_apple(width, convolutional=stock.count("visual.trunk.stem") > 0)
    else:
        told = by_open_clip(source)
    image, pictures = _image(stock.under("visual.trunk"), told)
    words, read = texts.convert(text, heads=told.heads, causal=told.causal)
    left = sorted(set(stock.rest()) - _SCALES)
    if left:
        raise CheckpointError(
            f"{source.name}: {left[0]!r} and {len(left) - 1} more of its tensors are no part of a "
            "tower that is known here"
        )
    config = {
        "model_type": MODEL_TYPE,
        "projection_dim": len(read["text_projection.weight"]),
        "text_config": _counted(words, read),
        "vision_config": _counted(image, pictures),
    }
    return Made(config, told.pictures, {**read, **pictures})


def _image(trunk: Stock, told: Told) -> tuple[dict[str, Any], dict[str, Floats]]:
    if told.tower == VIT:
        return vit.convert(trunk, told.side, epsilon=told.epsilon, border=told.border)
    return fastvit.convert(trunk, told.side)


def _counted(config: dict[str, Any], tensors: Mapping[str, Floats]) -> dict[str, Any]:
    return {**config, "parameters": sum(one.size for one in tensors.values())}


# ── the tokenizer ────────────────────────────────────────────────────────────────────────


def _tokenizer(source: Source, given: Path | None) -> Path:
    """The folder that has it. Raises CheckpointError."""
    folder = given or source.folder
    if (folder / sources.TOKENIZER).is_file():
        return folder
    raise CheckpointError(
        f"{folder} has no {sources.TOKENIZER}; name a folder that has CLIP's with --tokenizer: "
        "every model of OpenAI's CLIP has the same one (omnivec pull openai/clip-vit-base-patch32)",
        "NOT_FOUND",
    )


def _check(words: Path, made: Made) -> None:
    """Ids of another tokenizer would be other words. Raises CheckpointError."""
    from tokenizers import Tokenizer

    file = words / sources.TOKENIZER
    try:
        count = Tokenizer.from_file(str(file)).get_vocab_size()
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{file} is no tokenizer that can be read") from error
    wanted = made.config["text_config"]["vocab_size"]
    if count != wanted:
        raise CheckpointError(
            f"{file} has {count} words and the model {wanted}; name the model's own tokenizer "
            "with --tokenizer"
        )


# ── the folder ───────────────────────────────────────────────────────────────────────────


def _write(made: Made, words: Path, target: Path) -> None:
    """config.json last: without it a folder is no model."""
    from safetensors.numpy import save_file

    target.mkdir(parents=True, exist_ok=True)
    for name in (sources.TOKENIZER, *sources.SPELLINGS):
        if (words / name).is_file():
            shutil.copyfile(words / name, target / name)
    save_file(dict(made.tensors), target / "model.safetensors")
    for name, told in (
        ("preprocessor_config.json", made.pictures),
        ("config.json", made.config),
    ):
        text = msgspec.json.format(msgspec.json.encode(told), indent=2)
        (target / name).write_bytes(text + b"\n")
