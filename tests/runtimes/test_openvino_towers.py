"""Both towers' graphs against transformers, on tiny random checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import scaled
from omnivec.core.steps import Head, Scale
from omnivec.runtimes._openvino.feeds import spread
from omnivec.runtimes.openvino import PLUGIN
from omnivec.runtimes.torch import PLUGIN as TORCH
from towers import KINDS, PATCH, SIDE, SIZE, build_towers, reference_model

RUNTIMES = {"openvino": PLUGIN, "torch": TORCH}
SCALE = Scale(1 / 255, (0.481, 0.458, 0.408), (0.269, 0.261, 0.276))
TEXT, IMAGE = Head("tower"), Head("tower", (SCALE,))
SQUARE = ("clip", "siglip", "chinese_clip")
SHAPES = np.array([[4, 4], [2, 5], [1, 1], [1, 16], [3, 5], [4, 1]])

runtimes = pytest.mark.parametrize("runtime", RUNTIMES)


def opened(folder, graph, runtime="openvino", dtype="f32"):
    head = TEXT if graph == "text" else IMAGE
    return RUNTIMES[runtime].open(Checkpoint("tiny", folder), graph, head, "cpu", dtype)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    made = {}

    def build(kind, **told):
        key = (kind, *map(str, told.items()))
        if key not in made:
            folder = build_towers(kind, tmp_path_factory.mktemp(kind), **told)
            made[key] = folder, reference_model(folder)
        return made[key]

    return build


def words(kind, model, lengths=(30, 12, 3)):
    """Rows that end, but for SigLIP's, with the end token; then padding."""
    config = model.config.text_config
    width = 64 if "siglip" in kind else max(lengths)
    ids = np.random.default_rng(1).integers(5, config.vocab_size - 2, (len(lengths), width))
    mask = (np.arange(width)[None] < np.array(lengths)[:, None]).astype(np.int64)
    if "siglip" in kind:
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    ids[mask == 0] = config.pad_token_id
    if kind == "clip":
        ids[np.arange(len(lengths)), np.array(lengths) - 1] = config.vocab_size - 1
    return {"input_ids": ids, "attention_mask": mask}


def pixels(*shape):
    return np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)


def square(count):
    return {"pixel_values": pixels(count, SIZE, SIZE, 3)}


def patches():
    count = SHAPES.prod(1).max()
    return {
        "pixel_values": pixels(len(SHAPES), count, PATCH * PATCH * 3),
        "spatial_shapes": SHAPES,
    }


def text_features(model, arrays):
    import torch

    told = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.no_grad():
        return model.get_text_features(**told).pooler_output.numpy()


def image_features(model, arrays):
    import torch

    values = arrays["pixel_values"]
    if "spatial_shapes" not in arrays:
        told = {"pixel_values": scaled(SCALE, values).transpose(0, 3, 1, 2)}
    else:
        shapes, (rows, count, width) = arrays["spatial_shapes"], values.shape
        mask = np.arange(count)[None] < shapes.prod(1)[:, None]
        scaled_ = scaled(SCALE, values.reshape(rows, count, -1, 3)).reshape(rows, count, width)
        told = {
            "pixel_values": scaled_ * mask[..., None].astype(np.float32),
            "pixel_attention_mask": mask.astype(np.int64),
            "spatial_shapes": shapes,
        }
    with torch.no_grad():
        given = {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in told.items()}
        return model.get_image_features(**given).pooler_output.numpy()


def close(got, expected):
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@runtimes
@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_those_of_transformers(built, kind, runtime):
    folder, model = built(kind)
    arrays = words(kind, model)
    close(opened(folder, "text", runtime).run(arrays)["output"], text_features(model, arrays))


@runtimes
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_transformers(built, kind, runtime):
    folder, model = built(kind)
    arrays = square(5) if kind in SQUARE else patches()
    close(opened(folder, "image", runtime).run(arrays)["output"], image_features(model, arrays))


@pytest.mark.parametrize(("dtype", "least"), [("bf16", 0.9999), ("int8", 0.999)])
@pytest.mark.parametrize("kind", KINDS)
def test_rounded_they_point_the_same_way(built, kind, dtype, least):
    folder, model = built(kind)
    for graph, arrays, features in (
        ("text", words(kind, model), text_features),
        ("image", square(5) if kind in SQUARE else patches(), image_features),
    ):
        a, b = opened(folder, graph, dtype=dtype).run(arrays)["output"], features(model, arrays)
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() > least


@runtimes
@pytest.mark.parametrize("old_end", [True, False])
def test_the_end_of_a_text_is_the_highest_id_or_the_first_end(built, old_end, runtime):
    folder, model = built("clip", old_end=old_end)
    session = opened(folder, "text", runtime)
    arrays = words("clip", model)
    end = len(arrays["input_ids"][0]) - 1
    arrays["input_ids"][0, 4] = model.config.text_config.vocab_size - 1  # ends twice
    arrays["input_ids"][1, 11] = 7  # never ends
    arrays["input_ids"][0, end] = model.config.text_config.vocab_size - 1
    close(session.run(arrays)["output"][[0, 2]], text_features(model, arrays)[[0, 2]])
    alone = {name: array[1:2, :12] for name, array in arrays.items()}
    expected = text_features(model, alone)
    close(session.run(alone)["output"], expected)
    close(session.run(arrays)["output"][1:2], expected)


@runtimes
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_alone_and_in_any_batch(built, kind, runtime):
    folder, model = built(kind)
    for graph, arrays in (
        ("text", words(kind, model)),
        ("image", square(3) if kind in SQUARE else patches()),
    ):
        session = opened(folder, graph, runtime)
        together = session.run(arrays)["output"]
        for row in range(len(together)):
            one = {name: array[row : row + 1] for name, array in arrays.items()}
            close(session.run(one, alone=True)["output"][0], together[row])


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("clip", {"hidden_act": "gelu"}),
        ("clip", {"patch_size": 7}),
        ("siglip", {"patch_size": 9}),
        ("siglip", {"hidden_act": "gelu"}),
        ("chinese_clip", {"num_attention_heads": 4}),
    ],
    ids=str,
)
def test_other_configurations(built, kind, told):
    folder, model = built(kind, image=told)
    arrays = square(2)
    close(opened(folder, "image").run(arrays)["output"], image_features(model, arrays))


@runtimes
def test_what_is_no_batch_is_refused(built, runtime):
    folder, _ = built("clip")
    session = opened(folder, "image", runtime)
    for wrong in (
        pixels(0, SIZE, SIZE, 3),
        pixels(1, SIZE + 1, SIZE, 3),
        pixels(1, 3, SIZE, SIZE),
        pixels(1, SIZE, SIZE, 3).astype(np.float32),
    ):
        with pytest.raises(ValueError, match="pictures are uint8"):
            session.run({"pixel_values": wrong})


@runtimes
def test_patches_that_are_not_there_are_refused(built, runtime):
    folder, _ = built("siglip2")
    session = opened(folder, "image", runtime)
    arrays = patches()
    for shapes in ([[4, 5]] * len(SHAPES), [[0, 4]] * len(SHAPES), [[1, 1]]):
        with pytest.raises(ValueError, match="more than it has"):
            session.run({**arrays, "spatial_shapes": np.array(shapes)})
    with pytest.raises(ValueError, match="patches are uint8"):
        session.run({**arrays, "pixel_values": arrays["pixel_values"][..., :-1]})


def test_positions_are_resized_as_a_picture_of_them():
    """Against Pillow, which has the same filter. torch's own is wrong where a picture is one
    patch wide and has another height than the square (2.13)."""
    from PIL import Image

    square = np.random.default_rng(3).standard_normal((SIDE, SIDE)).astype(np.float32)
    for rows, columns in ((1, 16), (16, 1), (2, 1), (3, 5), (7, 2), (1, 1), (4, 4)):
        wanted = Image.fromarray(square).resize((columns, rows), Image.Resampling.BILINEAR)
        got = spread(rows, columns, SIDE) @ square.reshape(-1)
        np.testing.assert_allclose(got.reshape(rows, columns), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "graph", "told", "said"),
    [
        ("siglip", "image", {"image": {"num_channels": 1}}, "channels"),
        ("siglip", "image", {"image": {"vision_use_head": False}}, "head"),
        ("clip", "text", {"text": {"hidden_act": "laplace"}}, "laplace"),
    ],
)
def test_what_the_graphs_have_not_is_said(built, kind, graph, told, said):
    folder, _ = built(kind, **told)
    with pytest.raises(CheckpointError, match=said):
        opened(folder, graph)
