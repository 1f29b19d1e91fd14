"""MobileCLIP as `omnivec convert` writes it, the whole path, against timm and open_clip."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import open_clips
import wire
from multivectors import Opened
from omnivec.conversion.convert import convert
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import TooLong
from omnivec.core.nouns import Film, Pixels, Text, Unit
from omnivec.core.steps import Scale
from omnivec.families.dual_tower import PLUGIN
from omnivec.runtimes.torch import PLUGIN as TORCH
from open_clips import DIMS, KINDS, Reference

TEXTS = ["a fox", "A Dog,  over the lazy fox!", "", "fox " * 150]
AWKWARD = (
    "It’s a dog‘s “life”, and the dogʼs, too",
    "it\x92s \x93quoted\x94",
    "Tom &amp; Jerry &lt;3 &quot;fish&quot; &#39;n&#x27; chips",
    "P&eacute;rez &EACUTE;T&Eacute; P&EACUTE;REZ, BUNDESSTRA&SZLIG;E &nTILDE; &rsquo;s",
    "twice &amp;amp; thrice &amp;amp;amp; more &amp;amp;amp;amp;amp; R&amp;eacute;my",
    "&ampx; this&not that &copy",
    "<b>bold</b> &amp; it&rsquo;s\nbelow &rsquo;s",
    "it&rsquo;s above\nhere<br> it&rsquo;s",
    "ﬁsh ﬂour oﬃce ﬅ ﬆ Ĳssel ŉ ǄǱǈ æsop",
    "ｆｕｌｌ　ｗｉｄｔｈ！ Ｕﾀｰﾝ ＆ａｍｐ； ¥",
    "a\r\nb\rc\u2028d\u2029e\x85f\tg\u00a0h\x0ci\u3000j",
    "\x1b[36;44mblue\x1b[0m, \x1b［1m nul\x00l \x0bv\x1fu\x7f \ufeffbom \ufff9x\ufffc \u206a",
    "cafe\u0301 e\u0328\u0301 İstanbul ΣΊΣΥΦΟΣ STRASSE ẞ Å",
    "  spaces   around\t\n ",
    "2+2=4... e-mail: someone@example.org 3,700,000 ½ ² 🐈‍⬛ 👩🏽‍🚀 日本語 I'LL DON'T we’ve",
    "&#0; &#128; &#xD800; &#x110000; &; &#; &#x; &bogus; &#59;",
    "naïve schön Größe €5 – — … ™ №",
    "",
)
SHAPES = ((64, 64), (1, 1), (90, 61), (128, 160), (67, 301), (200, 333), (5, 9))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Reference]]:
    made: dict[str, tuple[Path, Reference]] = {}

    def build(kind: str) -> tuple[Path, Reference]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            reference = open_clips.build(kind, folder)
            convert(folder, folder / "made", None, lambda _: None)
            made[kind] = folder / "made", reference
        return made[kind]

    return build


def picture(height: int, width: int) -> np.ndarray:
    """Smooth, as photographs are, so that a pixel to the left matters as it does in them."""
    from PIL import Image

    random = np.random.default_rng(height * 1000 + width)
    small = Image.fromarray(random.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def see(model: Opened, *parts: Pixels | Film) -> np.ndarray:
    units = [Unit(parts=(part,)) for part in parts]
    return np.stack([one.dense for one in model.model.forward(model.model.prepare(units))])


def expected(reference: Reference, kind: str, *pictures: np.ndarray) -> np.ndarray:
    return reference.see(np.stack([open_clips.prepared(kind, one) for one in pictures]))


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_any_length_together(
    built: Callable[[str], tuple[Path, Reference]], kind: str
) -> None:
    folder, reference = built(kind)
    model = Opened(PLUGIN, folder)
    rows = np.stack([one.dense for one in model.encode(TEXTS)])
    close(rows, reference.read(open_clips.ids(TEXTS)))
    alone = np.concatenate([[model.encode([text])[0].dense] for text in TEXTS])
    close(alone, rows)


def test_captions_are_cleaned_as_open_clip_does(
    built: Callable[[str], tuple[Path, Reference]],
) -> None:
    model = Opened(PLUGIN, built("s")[0]).model
    units = [Unit(parts=(Text(text),)) for text in AWKWARD]
    for text, found in zip(AWKWARD, model.prepare(units), strict=True):
        got, want = found.arrays["input_ids"], open_clips.ids([text])[0]
        assert got.tolist() == want[: len(got)].tolist(), text
        assert not want[len(got) :].any()


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_any_shape(built: Callable[[str], tuple[Path, Reference]], kind: str) -> None:
    folder, reference = built(kind)
    pictures = [picture(*shape) for shape in SHAPES]
    close(
        see(Opened(PLUGIN, folder), *map(Pixels, pictures)),
        expected(reference, kind, *pictures),
    )


def test_a_video_is_the_mean_of_its_frames(
    built: Callable[[str], tuple[Path, Reference]],
) -> None:
    folder, reference = built("s")
    frames = [picture(70, 64 + at) for at in range(7)]
    film = Film(tuple(map(Pixels, frames)), tuple(map(float, range(7))))
    rows = expected(reference, "s", *frames)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    close(see(Opened(PLUGIN, folder), film), rows.mean(0, keepdims=True))


def test_what_is_told_of_it(built: Callable[[str], tuple[Path, Reference]]) -> None:
    checkpoint = Checkpoint("tiny", built("s")[0])
    assert PLUGIN.claims(checkpoint)
    card = PLUGIN.card(checkpoint)
    assert (card.architecture, card.dims, card.max_tokens) == ("mobileclip", DIMS, 77)
    assert card.modalities == ("text", "image")
    head = PLUGIN.graphs(checkpoint)["image"]
    assert head.steps == (Scale(1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),)
    sizes = [checkpoint.part(tower).size() for tower in ("text", "image")]
    assert abs(sum(sizes) - checkpoint.size()) < 2
    for tower in ("text", "image"):
        head = PLUGIN.graphs(checkpoint)[tower]
        assert "transformers has no mobileclip" in str(TORCH.can(checkpoint, tower, head, "cpu"))


def test_a_text_that_must_not_be_cut(built: Callable[[str], tuple[Path, Reference]]) -> None:
    model = Opened(PLUGIN, built("s")[0]).model
    with pytest.raises(TooLong):
        model.prepare([Unit(parts=(Text("fox " * 150),), overflow="refuse")])


def damaged(folder: Path, tmp_path: Path, *, tower: str, **told: Any) -> Path:
    """A copy whose config.json has `told` in a tower's section, or not (None)."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    section = config[f"{tower}_config"] | told
    kept = {key: value for key, value in section.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps({**config, f"{tower}_config": kept}))
    return tmp_path


@pytest.mark.parametrize(
    ("tower", "told"),
    [
        ("vision", {"mixers": []}),
        ("vision", {"patch_size": 0}),
        ("vision", {"patch_size": "x"}),
        ("vision", {"parameters": "x"}),
        ("vision", {"parameters": [1]}),
        ("text", {"pad_token_id": None}),
        ("text", {"pad_token_id": "x"}),
    ],
)
def test_damaged_settings(
    built: Callable[[str], tuple[Path, Reference]], tmp_path: Path, tower: str, told: Any
) -> None:
    folder = damaged(built("s")[0], tmp_path, tower=tower, **told)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Opened(PLUGIN, folder)


@pytest.mark.parametrize(
    ("kind", "key", "shape"),
    [
        ("s", "vision_model.stem.0.weight", (16, 2, 3, 3)),
        ("s", "vision_model.stem.1.weight", (19, 1, 3, 3)),
        ("s", "vision_model.stages.0.blocks.0.mlp.conv.weight", (3, 1, 7, 7)),
        ("b", "vision_model.embeddings.stem.0.weight", (16, 2, 4, 4)),
        ("b", "vision_model.embeddings.patch_embedding.weight", (64, 16, 2, 0)),
    ],
)
def test_damaged_kernels(
    built: Callable[[str], tuple[Path, Reference]],
    tmp_path: Path,
    kind: str,
    key: str,
    shape: tuple[int, ...],
) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(built(kind)[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    assert key in tensors
    save_file({**tensors, key: np.zeros(shape, np.float32)}, file)
    with pytest.raises(CheckpointError, match=r"config\.json and the weights do not fit"):
        Opened(PLUGIN, tmp_path)


@pytest.mark.skipif(not wire.DATA.is_dir(), reason="the real data is not beside this checkout")
@pytest.mark.parametrize("kind", KINDS)
def test_files_to_vectors(built: Callable[[str], tuple[Path, Reference]], kind: str) -> None:
    from PIL import Image

    folder, reference = built(kind)
    files = [
        wire.DATA / "images/chelsea.png",
        *sorted((wire.DATA / "images/clothing").rglob("*.jpg"))[::90],
    ]
    pictures = []
    for file in files:
        with Image.open(file) as opened:
            pictures.append(np.asarray(opened.convert("RGB")))
    want = expected(reference, kind, *pictures)
    rounded = 0.999 if kind == "large" else 0.9999  # the most layers, and no trained ones
    for dtype, least in (("f32", 0.999999), ("auto", rounded)):
        got = see(Opened(PLUGIN, folder, dtype=dtype), *map(Pixels, pictures))
        cosine = (got * want).sum(1)
        cosine /= np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
        assert cosine.min() > least, (dtype, cosine)
