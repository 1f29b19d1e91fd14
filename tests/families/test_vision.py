"""Pictures as transformers' own processors prepare them, bit for bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import scaled
from omnivec.core.nouns import Pixels
from omnivec.families._vision import read
from towers import KINDS, PATCH, SIDE, SIZE, build_towers, reference_processor

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (
    *((1, 1), (1, 2), (2, 1), (5, 3), (31, 33), (32, 32), (32, 47), (64, 32), (33, 500), (500, 33)),
    *((480, 640), (641, 479), (768, 1024), (7, 1000), (1000, 7), (32, 33), (31, 31), (97, 89)),
)


def picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * width)
    smooth = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))[..., None]
    return (smooth + random.integers(0, 16, (height, width, 3))).astype(np.uint8)


def ours(folder: Path, pictures: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    checkpoint = Checkpoint("tiny", folder)
    recipe = read(checkpoint, checkpoint.part("image").config)
    found = []
    for one in pictures:
        row = recipe.take(Pixels(one))
        pixels = row["pixel_values"]
        assert pixels.dtype == np.uint8
        bright = scaled(recipe.scale, pixels.reshape(*pixels.shape[:-1], -1, 3))
        if "spatial_shapes" in row:
            found.append({**row, "pixel_values": bright.reshape(pixels.shape)})
        else:
            found.append({"pixel_values": bright.reshape(pixels.shape).transpose(2, 0, 1)})
    return found


def check(folder: Path, pictures: list[np.ndarray]) -> None:
    processor = reference_processor(folder)
    for one, mine in zip(pictures, ours(folder, pictures), strict=True):
        theirs = processor(images=[one], input_data_format="channels_last", return_tensors="np")
        expected = theirs["pixel_values"][0]
        if "spatial_shapes" in mine:
            np.testing.assert_array_equal(mine["spatial_shapes"], theirs["spatial_shapes"][0])
            assert len(mine["pixel_values"]) == theirs["pixel_attention_mask"][0].sum()
            expected = expected[: len(mine["pixel_values"])]
        assert expected.dtype == np.float32
        np.testing.assert_array_equal(mine["pixel_values"], expected, err_msg=str(one.shape))


@pytest.mark.parametrize("kind", KINDS)
def test_every_size(tmp_path: Path, kind: str) -> None:
    check(build_towers(kind, tmp_path), [picture(*size) for size in SIZES])


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("clip", {"size": {"shortest_edge": 45}}),
        ("clip", {"size": {"shortest_edge": 20}}),  # black around it
        ("clip", {"size": {"height": 40, "width": 36}}),
        ("clip", {"resample": 2}),
        ("clip", {"resample": 1, "do_normalize": False}),
        ("clip", {"do_rescale": False}),
        ("clip", {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}),
        ("clip", {"do_center_crop": False, "size": {"height": SIZE, "width": SIZE}}),
        ("siglip", {"resample": 2, "image_mean": [0.1, 0.2, 0.3]}),
        ("siglip2", {"max_num_patches": 9}),
        ("siglip2", {"max_num_patches": 1, "resample": 3}),
        ("siglip2", {"max_num_patches": 400}),
    ],
    ids=str,
)
def test_what_its_file_says_is_done(tmp_path: Path, kind: str, told: dict[str, Any]) -> None:
    check(build_towers(kind, tmp_path, processor=told), [picture(*size) for size in SIZES])


def test_a_picture_that_is_not_resized_is_cropped(tmp_path: Path) -> None:
    folder = build_towers("clip", tmp_path, processor={"do_resize": False})
    check(folder, [picture(*size) for size in SIZES])


def edit(folder: Path, **changes: Any) -> Path:
    path = folder / "preprocessor_config.json"
    told = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in told.items() if value is not ...}))
    return folder


def test_the_files_of_older_releases(tmp_path: Path) -> None:
    """As openai/clip-vit-base-patch32 has it: sizes as numbers, and no word of rescaling."""
    folder = build_towers("clip", tmp_path)
    pictures = [picture(480, 640)]
    expected = ours(folder, pictures)
    edit(folder, size=SIZE, crop_size=SIZE, do_rescale=..., rescale_factor=..., do_convert_rgb=...)
    np.testing.assert_array_equal(
        ours(folder, pictures)[0]["pixel_values"], expected[0]["pixel_values"]
    )
    check(folder, pictures)


@pytest.mark.parametrize("kind", KINDS)
def test_the_one_file_of_newer_releases(tmp_path: Path, kind: str) -> None:
    folder = build_towers(kind, tmp_path)
    pictures = [picture(480, 640)]
    expected = ours(folder, pictures)
    told = (folder / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").unlink()
    whole = {"image_processor": json.loads(told), "processor_class": "CLIPProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(whole))
    for name, array in ours(folder, pictures)[0].items():
        np.testing.assert_array_equal(array, expected[0][name])


@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
def test_without_a_file_it_is_the_family_s_own_way(tmp_path: Path, kind: str) -> None:
    folder = build_towers(kind, tmp_path)
    pictures = [picture(480, 640)]
    expected = ours(folder, pictures)
    (folder / "preprocessor_config.json").unlink()
    np.testing.assert_array_equal(
        ours(folder, pictures)[0]["pixel_values"], expected[0]["pixel_values"]
    )


def test_a_picture_much_wider_than_high_costs_no_memory(tmp_path: Path) -> None:
    """Resized whole it would be 3.2 million pixels wide, of which the middle 32 are wanted."""
    folder = build_towers("clip", tmp_path)
    wide = np.tile(picture(1, 1000), (1, 100, 1))
    (row,) = ours(folder, [wide])
    assert row["pixel_values"].shape == (3, SIZE, SIZE)
    (tall,) = ours(folder, [wide.transpose(1, 0, 2)])
    np.testing.assert_allclose(tall["pixel_values"].swapaxes(1, 2), row["pixel_values"])
    theirs = reference_processor(folder)(
        images=[wide[:, :9000]], input_data_format="channels_last", return_tensors="np"
    )
    (mine,) = ours(folder, [wide[:, :9000]])
    step = 2 / 255 / 0.26
    np.testing.assert_allclose(mine["pixel_values"], theirs["pixel_values"][0], atol=step)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop_size": {"height": 24, "width": 24}}, "32 x 32"),
        ({"do_center_crop": False}, "32 x 32"),
        ({"resample": 17}, "not understood"),
        ({"image_mean": [0.5]}, "not understood"),
        ({"crop_size": {"side": 32}}, "not understood"),
        ({"crop_size": "32"}, "not understood"),
    ],
    ids=str,
)
def test_a_file_that_makes_no_pictures_for_the_model(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = edit(build_towers("clip", tmp_path), **changes)
    checkpoint = Checkpoint("tiny", folder)
    with pytest.raises(CheckpointError, match=said):
        read(checkpoint, checkpoint.part("image").config)


def test_patches_lie_row_by_row(tmp_path: Path) -> None:
    folder = build_towers("siglip2", tmp_path)
    checkpoint = Checkpoint("tiny", folder)
    rgb = np.zeros((SIZE, SIZE, 3), np.uint8)
    rgb[PATCH : 2 * PATCH, 2 * PATCH : 3 * PATCH] = 200  # the second row, the third column
    row = read(checkpoint, checkpoint.part("image").config).take(Pixels(rgb))
    assert row["spatial_shapes"].tolist() == [SIDE, SIDE]
    assert (row["pixel_values"] == 200).all(1).nonzero()[0].tolist() == [SIDE + 2]
