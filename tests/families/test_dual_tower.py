"""Models of two towers against transformers' models, processors and tokenizers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import SENTENCES
from multivectors import RUNTIMES, Opened
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import BadRequest, TooLong, Unsupported
from omnivec.core.nouns import Film, Pixels, Text, Tokens, Unit
from omnivec.families.dual_tower import PLUGIN
from towers import KINDS, SIZE, build_towers, reference_model, reference_processor

TEXTS = [*SENTENCES, "", "fox", "...", "A Fox, a DOG: no!", " ".join(SENTENCES), "a\n\tb  c"]
WINDOWS = {"clip": 77, "siglip": 64, "siglip2": 64, "chinese_clip": 52}

runtimes = pytest.mark.parametrize("runtime", RUNTIMES)
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[str, Path] = {}

    def build(kind: str, **told: Any) -> Path:
        key = f"{kind}{told}"
        if key not in made:
            made[key] = build_towers(kind, tmp_path_factory.mktemp(kind), **told)
        return made[key]

    return build


def picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * 1000 + width)
    return random.integers(0, 256, (height, width, 3)).astype(np.uint8)


PICTURES = [
    picture(*size) for size in ((32, 32), (1, 1), (40, 61), (7, 300), (120, 90), (64, 64), (5, 9))
]


def reference_texts(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """One text at a time, as the model's own documentation has it prepared."""
    import torch
    from transformers import PreTrainedTokenizerFast

    tokens = PreTrainedTokenizerFast.from_pretrained(folder)
    model = reference_model(folder)
    kind = model.config.model_type
    told: dict[str, Any] = {"truncation": True, "max_length": WINDOWS[kind]}
    if "siglip" in kind:
        told["padding"] = "max_length"
    if kind == "siglip2":
        texts = [text.lower() for text in texts]
    rows = []
    with torch.no_grad():
        for text in texts:
            given = tokens([text], return_tensors="pt", **told)
            rows.append(model.get_text_features(**given).pooler_output.numpy()[0])
    return np.stack(rows)


def reference_pictures(folder: Path, pictures: Sequence[np.ndarray]) -> np.ndarray:
    import torch

    processor, model = reference_processor(folder), reference_model(folder)
    rows = []
    with torch.no_grad():
        for one in pictures:
            given = processor(images=[one], input_data_format="channels_last", return_tensors="pt")
            rows.append(model.get_image_features(**given).pooler_output.numpy()[0])
    return np.stack(rows)


def see(model: Opened, *items: Any) -> np.ndarray:
    """Vectors of pictures, or of videos: lists of them."""
    units = [
        Unit(parts=(Pixels(one) if isinstance(one, np.ndarray) else film(one),)) for one in items
    ]
    return np.stack([one.dense for one in model.model.forward(model.model.prepare(units))])


def film(frames: Sequence[np.ndarray]) -> Film:
    return Film(tuple(map(Pixels, frames)), tuple(map(float, range(len(frames)))))


def read(model: Opened, *texts: str, **wishes: Any) -> np.ndarray:
    return np.stack([one.dense for one in model.encode(texts, **wishes)])


def close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


# ── against the reference ────────────────────────────────────────────────────────────────


@runtimes
@kinds
def test_texts(built: Callable[..., Path], kind: str, runtime: str) -> None:
    folder = built(kind)
    model, expected = Opened(PLUGIN, folder, runtime), reference_texts(folder, TEXTS)
    close(read(model, *TEXTS), expected)
    close(np.concatenate([read(model, text) for text in TEXTS]), expected)


@runtimes
@kinds
def test_pictures(built: Callable[..., Path], kind: str, runtime: str) -> None:
    folder = built(kind)
    model, expected = Opened(PLUGIN, folder, runtime), reference_pictures(folder, PICTURES)
    close(see(model, *PICTURES), expected)
    close(np.concatenate([see(model, one) for one in PICTURES]), expected)


@kinds
def test_texts_and_pictures_are_compared(built: Callable[..., Path], kind: str) -> None:
    model = Opened(PLUGIN, built(kind))
    assert see(model, PICTURES[0]).shape == read(model, "fox").shape
    assert model.card.dims == read(model, "fox").shape[1]


def test_the_old_end_of_a_text(built: Callable[..., Path]) -> None:
    folder = built("clip", old_end=True)
    close(read(Opened(PLUGIN, folder), *TEXTS), reference_texts(folder, TEXTS))


def test_rows_are_filled_on_the_side_that_the_tokenizer_says(
    built: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(built("siglip2"), tmp_path / "left")
    edit(folder / "tokenizer_config.json", padding_side="left")
    close(read(Opened(PLUGIN, folder), *TEXTS), reference_texts(folder, TEXTS))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_siglip_2_of_one_size_reads_small_letters(
    built: Callable[..., Path], tmp_path: Path
) -> None:
    """Its config.json is SigLIP's; Gemma's tokenizer tells it."""
    folder = shutil.copytree(built("siglip"), tmp_path / "fixed")
    edit(folder / "tokenizer_config.json", tokenizer_class="GemmaTokenizerFast")
    model = Opened(PLUGIN, folder)
    close(read(model, "A Fox."), reference_texts(folder, ["a fox."]))


def test_siglip_reads_canonical_texts(built: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(built("siglip"), tmp_path / "first")
    edit(folder / "tokenizer_config.json", tokenizer_class="SiglipTokenizer")
    close(
        read(Opened(PLUGIN, folder), " A Fox,\n\n a {DOG}: no! ", "…"),
        reference_texts(folder, ["a fox a dog no", "…"]),
    )


def test_in_the_folders_of_sentence_transformers(
    built: Callable[..., Path], tmp_path: Path
) -> None:
    """clip-ViT-B-32 and its kin lie in a folder beneath."""
    folder = tmp_path / "st"
    shutil.copytree(built("clip"), folder / "0_CLIPModel")
    listed = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "x.models.CLIPModel"}]
    (folder / "modules.json").write_text(json.dumps(listed))
    ours, plain = Opened(PLUGIN, folder), Opened(PLUGIN, built("clip"))
    assert ours.card == plain.card
    close(see(ours, *PICTURES), see(plain, *PICTURES))
    close(read(ours, *TEXTS), read(plain, *TEXTS))


# ── units ────────────────────────────────────────────────────────────────────────────────


@kinds
def test_what_the_card_says(built: Callable[..., Path], kind: str) -> None:
    card = Opened(PLUGIN, built(kind)).card
    assert card.modalities == ("text", "image")
    assert card.tasks == ("encode", "score")
    assert card.max_tokens == WINDOWS[kind]
    assert (card.kinds, card.scoring) == (("dense",), "cosine")


@kinds
def test_a_video_is_the_mean_of_its_frames(built: Callable[..., Path], kind: str) -> None:
    model = Opened(PLUGIN, built(kind))
    frames = [picture(48, 64 + at) for at in range(3)]
    frames = frames if kind != "siglip2" else [picture(48, 64) + np.uint8(at) for at in range(3)]
    each = see(model, *frames)
    mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(0)
    close(see(model, frames, PICTURES[0])[0], mean)
    close(see(model, PICTURES[0], frames)[0], see(model, PICTURES[0])[0])


def test_a_long_video_goes_through_in_parts(built: Callable[..., Path]) -> None:
    model = Opened(PLUGIN, built("clip"))
    frames = [picture(SIZE, SIZE) for _ in range(150)]
    close(see(model, frames), see(model, frames[:1]) / np.linalg.norm(see(model, frames[:1])))


def test_texts_and_pictures_of_one_request(built: Callable[..., Path]) -> None:
    model = Opened(PLUGIN, built("clip"))
    units = [
        Unit(parts=(Pixels(PICTURES[0]),)),
        Unit(parts=(Text("fox"),)),
        Unit(parts=(Pixels(PICTURES[1]),)),
    ]
    features = model.model.prepare(units)
    assert [one.group for one in features] == ["image", "text", "image"]
    (row,) = model.model.forward(features[1:2])
    close(row.dense, read(model, "fox")[0])
    assert features[0].tokens == 17  # 4 x 4 patches and the class token
    # half as many tokens of pictures as of texts make a batch
    assert features[0].cost == 2 * features[0].tokens


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ((Text("a"), Pixels(PICTURES[0])), Unsupported),
        ((Pixels(PICTURES[0]), Pixels(PICTURES[0])), Unsupported),
        ((Film((), ()),), BadRequest),
        ((), BadRequest),
        ((Tokens((10**6,)),), BadRequest),
    ],
    ids=["both", "two", "no frame", "nothing", "unknown id"],
)
def test_units_that_no_tower_takes(
    built: Callable[..., Path], parts: Any, fault: type[Exception]
) -> None:
    model = Opened(PLUGIN, built("clip"))
    good = Unit(parts=(Pixels(PICTURES[0]),))
    with pytest.raises(fault) as caught:
        model.model.prepare([good, Unit(parts=parts)])
    assert caught.value.param == "[1]"


@kinds
def test_a_text_that_is_too_long(built: Callable[..., Path], kind: str) -> None:
    model = Opened(PLUGIN, built(kind))
    long = " ".join(SENTENCES * 3)
    (features,) = model.prepare([long])
    assert features.cut
    assert features.tokens == WINDOWS[kind]
    with pytest.raises(TooLong) as caught:
        model.model.prepare(
            [Unit(parts=(Pixels(PICTURES[0]),)), Unit(parts=(Text(long),), overflow="refuse")]
        )
    assert caught.value.param == "[1]"
    (short,) = model.prepare([long], max_tokens=9)
    assert short.tokens == 9
    assert len(short.arrays["input_ids"]) == (64 if "siglip" in kind else 9)


def test_prompts_go_before_texts(built: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(built("clip"), tmp_path / "prompted")
    told = {"prompts": {"query": "a photo of "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(told))
    model = Opened(PLUGIN, folder)
    close(read(model, "fox", role="query"), read(model, "a photo of fox"))


# ── what is claimed ──────────────────────────────────────────────────────────────────────


def test_other_checkpoints_are_left_alone(built: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(built("siglip"), tmp_path / "labelled")
    edit(folder / "config.json", architectures=["SiglipForImageClassification"])
    assert not PLUGIN.claims(Checkpoint("tiny", folder))
    folder = shutil.copytree(built("clip"), tmp_path / "dense")
    listed = [
        {"idx": at, "name": str(at), "path": "", "type": f"x.{kind}"}
        for at, kind in enumerate(("Transformer", "Dense"))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    assert not PLUGIN.claims(Checkpoint("tiny", folder))
