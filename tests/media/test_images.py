"""Pictures to pixels, in this process: what comes of each format, mode and fault."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

import wire
from omnivec.core.nouns import Array
from omnivec.media.images import PictureError, open_picture, to_rgb
from pictures import (
    MASQUERADES,
    SIZES,
    animation,
    bmp,
    exif,
    photo,
    png,
    saved,
    tiff_of_directories,
)


def decode(data: bytes) -> Array:
    return to_rgb(open_picture(data))


def near(a: Array, b: Array, most: int = 12) -> bool:
    return a.shape == b.shape and int(np.abs(a.astype(int) - b.astype(int)).max()) <= most


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels_themselves(kind: str) -> None:
    found = decode(saved(photo(), kind))
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(photo()))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("WEBP", {"quality": 95}),
        ("GIF", {}),
    ],
)
def test_lossy_formats_give_nearly_the_same(kind: str, options: dict[str, object]) -> None:
    assert near(decode(saved(photo(), kind, **options)), np.asarray(photo()), 40)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    found = decode(animation(kind, 12))
    assert near(found, np.asarray(photo(seed=0)), 60)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_once(kind: str, orientation: int) -> None:
    data = saved(photo(), kind, exif=exif(orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    found = decode(data)
    assert np.array_equal(found, np.asarray(expected))
    assert found.shape == ((30, 40, 3) if orientation < 5 else (40, 30, 3))


def test_real_photos_that_lie_on_their_side_are_upright() -> None:
    files = sorted((wire.DATA / "images" / "exif").glob("*.jpg"))
    assert files
    assert {decode(file.read_bytes()).shape for file in files} == {(1800, 1200, 3)}


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_there_is_not_changes_nothing(orientation: int) -> None:
    data = saved(photo(), "PNG", exif=exif(orientation))
    assert np.array_equal(decode(data), np.asarray(photo()))


def test_broken_metadata_leave_the_picture_good() -> None:
    loop = b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"
    for data in (b"Exif\0\0" + loop, b"Exif\0\0" + b"\xff" * 60_000, b"Exif\0\0II"):
        assert decode(saved(photo(), "JPEG", exif=data)).shape == (30, 40, 3)
    profile = saved(photo(), "PNG", icc_profile=b"this is no profile")
    assert np.array_equal(decode(profile), np.asarray(photo()))


# ── modes ────────────────────────────────────────────────────────────────────────────────


def test_transparent_places_are_white_whatever_colour_is_below() -> None:
    red = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode(saved(red, "PNG")) == 255).all()
    assert (decode(saved(red, "WEBP", lossless=True)) == 255).all()
    half = decode(saved(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG"))
    assert near(half, np.full((4, 4, 3), (255, 127, 127), np.uint8), 1)


def test_an_emoji_lies_on_white() -> None:
    file = min((wire.DATA / "images" / "emoji").glob("*.png"))
    source = np.asarray(Image.open(file).convert("RGBA"), float)
    alpha = source[..., 3:] / 255
    expected = source[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(decode(file.read_bytes()) - expected).max() <= 1


def test_a_palette_with_a_transparent_colour() -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 1), 1)
    found = decode(saved(picture, "PNG", transparency=0))
    assert found[1, 1].tolist() == [0, 0, 255]
    assert found[0, 0].tolist() == [255, 255, 255]
    assert decode(saved(picture, "PNG"))[0, 0].tolist() == [255, 0, 0]


def test_grey_with_alpha_bilevel_and_a_transparent_grey() -> None:
    assert (decode(saved(Image.new("LA", (3, 2), (0, 0)), "PNG")) == 255).all()
    assert (decode(saved(Image.new("1", (3, 2), 1), "PNG")) == 255).all()
    assert (decode(saved(Image.new("L", (3, 2), 7), "PNG", transparency=7)) == 255).all()


def test_cmyk() -> None:
    found = decode(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert near(found, np.full((8, 8, 3), (255, 0, 0), np.uint8), 8)
    assert decode(saved(photo().convert("CMYK"), "TIFF")).shape == (30, 40, 3)


def test_lab_is_converted() -> None:
    channels = [Image.new("L", (4, 4), 128)] * 3
    found = decode(saved(Image.merge("LAB", channels), "TIFF"))
    assert near(found, np.full((4, 4, 3), 119, np.uint8), 4)  # L* 50


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (40000, 156), (65535, 255), (257, 1)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut_off(kind: str, value: int, grey: int) -> None:
    picture = Image.fromarray(np.full((2, 3), value, np.uint16))
    assert (decode(saved(picture, kind)) == grey).all()


@pytest.mark.parametrize(
    ("numbers", "greys"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 65535.0, 257.0], [0, 255, 1]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 1.0, 0.0], [0, 255, 0]),
        ([float("inf"), 0.0, 0.0], [255, 0, 0]),
    ],
)
def test_floats(numbers: list[float], greys: list[int]) -> None:
    picture = Image.fromarray(np.array([numbers], np.float32))
    assert decode(saved(picture, "TIFF"))[0, :, 0].tolist() == greys


def test_whole_numbers_of_32_bits() -> None:
    for numbers, greys in (([0, 100, 255], [0, 100, 255]), ([-5, 0, 5], [0, 128, 255])):
        picture = Image.fromarray(np.array([numbers], np.int32))
        assert decode(saved(picture, "TIFF"))[0, :, 0].tolist() == greys


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (3, 1), (1, 200)])
def test_tiny_pictures_are_pictures(size: tuple[int, int]) -> None:
    assert decode(saved(photo(*size), "PNG")).shape == (size[1], size[0], 3)


def test_a_tiff_of_very_many_pages_is_its_first() -> None:
    assert decode(tiff_of_directories(100_000)).shape == (8, 8, 3)


# ── what is refused ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("build", [png, bmp])
def test_what_would_be_too_large_is_not_even_begun(
    build: Callable[[int, int], bytes], size: tuple[int, int]
) -> None:
    with pytest.raises(PictureError):
        open_picture(build(*size))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("eighth", range(8))
def test_what_is_cut_short_is_refused(kind: str, eighth: int) -> None:
    data = saved(photo(200, 150), kind)
    with pytest.raises(PictureError):
        decode(data[: len(data) * eighth // 8])


@pytest.mark.parametrize("name", sorted(MASQUERADES))
def test_what_is_no_picture_is_refused(name: str) -> None:
    with pytest.raises(PictureError):
        decode(MASQUERADES[name])
