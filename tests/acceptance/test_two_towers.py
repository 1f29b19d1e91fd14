"""From real files to vectors: our decoder aside, the whole path against the reference's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wire
from multivectors import Opened
from omnivec.core.nouns import Pixels, Unit
from omnivec.families.dual_tower import PLUGIN
from towers import KINDS, build_towers, reference_model, reference_processor

if not wire.DATA.is_dir():
    pytest.skip("the real data is not beside this checkout", allow_module_level=True)

SIDE, PATCH = 224, 32
IMAGES = wire.DATA / "images"
FILES = [
    IMAGES / "chelsea.png",
    *sorted((IMAGES / "emoji").glob("*.png"))[:2],
    *sorted((IMAGES / "clothing").rglob("*.jpg"))[::90],
    *sorted((IMAGES / "exif").glob("*.jpg"))[:1],
]


def decoded(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as opened:
        whole = opened.convert("RGBA")
    white = Image.new("RGBA", whole.size, "white")
    return np.asarray(Image.alpha_composite(white, whole).convert("RGB"))


def build(kind: str, folder: Path) -> Path:
    """Of the real models' resolution."""
    size = {"height": SIDE, "width": SIDE}
    if kind == "siglip2":
        told = {"patch_size": PATCH, "max_num_patches": 49}
        return build_towers(
            kind, folder, image={"patch_size": PATCH, "num_patches": 49}, processor=told
        )
    image = {"image_size": SIDE, "patch_size": PATCH}
    told = {"size": size if kind == "siglip" else {"shortest_edge": SIDE}}
    if kind != "siglip":
        told["crop_size"] = size
    return build_towers(kind, folder, image=image, processor=told)


@pytest.mark.parametrize("kind", KINDS)
def test_files_to_vectors(tmp_path: Path, kind: str) -> None:
    import torch

    folder = build(kind, tmp_path)
    pictures = [decoded(file) for file in FILES]
    assert len(pictures) > 6
    processor, model = reference_processor(folder), reference_model(folder)
    with torch.no_grad():
        given = processor(images=pictures, input_data_format="channels_last", return_tensors="pt")
        expected = model.get_image_features(**given).pooler_output.numpy()
    for dtype, least in (("f32", 0.999999), ("auto", 0.9999)):
        ours = Opened(PLUGIN, folder, dtype=dtype).model
        found = ours.forward(ours.prepare([Unit(parts=(Pixels(one),)) for one in pictures]))
        got = np.stack([one.dense for one in found])
        cosine = (got * expected).sum(1)
        cosine /= np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
        assert cosine.min() > least, (dtype, cosine)
