"""Qwen3-VL-Embedding and Qwen3-VL-Reranker against transformers' own model, fed by its chat
template, tokenizer and image processor. Of videos, which it reads with torchvision only, the
patches are cut here one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import BadRequest, TooLong, Unsupported
from omnivec.core.nouns import Film, Pixels, Text, Tokens, Vectors
from omnivec.core.seams import SessionLost
from omnivec.families.qwen3_vl import PLUGIN, moments, share, thin
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from seeing import Opened, build_qwen3_vl, film, picture, unit, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PICTURE, VIDEO = "<|image_pad|>", "<|video_pad|>"
DEFAULT = "Represent the user's input."
RANKING = "Given a search query, retrieve relevant candidates that answer the query."
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
MIXED = (
    unit("a quick brown fox"),
    unit(picture(50, 70)),
    unit("what is that?", picture(90, 40)),
    unit(picture(64, 64), picture(40, 200, 1), "one", " and two"),
    unit(film(6), "a clip"),
    unit(film(2), picture(33, 33), film(4, (40, 64), rate=2.0)),
    unit(),
)


# ── the oracle ───────────────────────────────────────────────────────────────────────────


class Reference:
    """transformers, one item at a time."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForImageTextToText, AutoTokenizer
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        half = [0.5, 0.5, 0.5]
        self.processor = Qwen2VLImageProcessorPil(
            patch_size=16,
            image_mean=half,
            image_std=half,
            size={"shortest_edge": 4 * 32 * 32, "longest_edge": 1800 * 32 * 32},
        )

    def embed(self, one: Any, instruction: str = DEFAULT) -> np.ndarray:
        told = [{"role": "system", "content": [{"type": "text", "text": instruction}]}]
        told.append({"role": "user", "content": content(one.parts)})
        return self.last(told, one.parts)

    def score(self, one: Any, instruction: str = RANKING) -> float:
        user = [
            {"type": "text", "text": f"<Instruct>: {instruction}"},
            {"type": "text", "text": "<Query>:"},
            *content(one.parts),
            {"type": "text", "text": "\n<Document>:"},
            *content(one.other),
        ]
        told = [{"role": "system", "content": [{"type": "text", "text": JUDGE}]}]
        told.append({"role": "user", "content": user})
        state = self.last(told, (*one.parts, *one.other))
        weights = self.model.lm_head.weight.detach().numpy()
        yes, no = self.tokenizer.convert_tokens_to_ids(["yes", "no"])
        return float(state @ (weights[yes] - weights[no]))

    def last(self, told: list[Any], parts: Sequence[Any]) -> np.ndarray:
        text = self.tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
        fed: dict[str, Any] = {}
        pictures = [Image.fromarray(part.rgb) for part in parts if isinstance(part, Pixels)]
        if pictures:
            fed |= self.processor(pictures, return_tensors="pt")
            for grid in fed["image_grid_thw"]:
                text = text.replace(PICTURE, "<|mark|>" * int(grid.prod() // 4), 1)
        films = [part for part in parts if isinstance(part, Film)]
        if films:
            cut = [slow_patches(one) for one in films]
            fed["pixel_values_videos"] = torch.from_numpy(np.concatenate([p for p, _ in cut]))
            fed["video_grid_thw"] = torch.tensor([grid for _, grid in cut])
            for one, (_, grid) in zip(films, cut, strict=True):
                whole = f"<|vision_start|>{VIDEO}<|vision_end|>"
                text = text.replace(whole, timed(one, grid), 1)
        text = text.replace("<|mark|>", PICTURE).replace("<|film|>", VIDEO)
        fed |= self.tokenizer(text, return_tensors="pt")
        fed.pop("token_type_ids", None)
        ids = fed["input_ids"]
        image, video = self.tokenizer.convert_tokens_to_ids([PICTURE, VIDEO])
        fed["mm_token_type_ids"] = (ids == image).int() + 2 * (ids == video).int()
        with torch.inference_mode():
            return self.model.model(**fed).last_hidden_state[0, -1].numpy()


def content(parts: Sequence[Any]) -> list[dict[str, str]]:
    films = [{"type": "video"} for part in parts if isinstance(part, Film)]
    pictures = [{"type": "image"} for part in parts if isinstance(part, Pixels)]
    said = [part.text for part in parts if isinstance(part, Text) and part.text]
    texts = [{"type": "text", "text": text} for text in said]
    return [*films, *pictures, *texts] or [{"type": "text", "text": "NULL"}]


def timed(one: Film, grid: Sequence[int]) -> str:
    from transformers import Qwen3VLProcessor

    times = [round(time * 1000) for time in one.times]
    middles = Qwen3VLProcessor._calculate_timestamps(None, times, 1000, 2)
    sight = "<|vision_start|>" + "<|film|>" * (grid[1] * grid[2] // 4) + "<|vision_end|>"
    return "".join(f"<{middle:.1f} seconds>{sight}" for middle in middles)


def slow_patches(one: Film) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Each patch of 2 x 16 x 16 on its own: tokens in reading order, four patches in each."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    even = len(one.frames) + len(one.frames) % 2
    most = max(min(768 * 1024, 10 * 768 * 1024 / even * 2), int(128 * 1024 * 1.05))
    height, width = one.frames[0].rgb.shape[:2]
    rows, columns = smart_resize(height, width, 32, 128 * 1024, int(most))
    frames = [
        np.asarray(Image.fromarray(frame.rgb).resize((columns, rows), Image.Resampling.BICUBIC))
        for frame in one.frames
    ]
    frames += frames[-1:] * (even - len(frames))
    found = []
    for t in range(0, even, 2):
        for top in range(0, rows, 32):
            for left in range(0, columns, 32):
                for down, right in ((0, 0), (0, 16), (16, 0), (16, 16)):
                    y, x = top + down, left + right
                    patch = np.stack([frames[t + k][y : y + 16, x : x + 16] for k in (0, 1)])
                    found.append(patch.transpose(3, 0, 1, 2).ravel())
    values = (np.stack(found).astype(np.float32) / 255 - 0.5) / 0.5
    return values, (even // 2, rows // 16, columns // 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_qwen3_vl(tmp_path_factory.mktemp("qwen3_vl"))


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Opened:
    return Opened(PLUGIN, folder, "Qwen/Qwen3-VL-Embedding-2B")


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Opened:
    return Opened(PLUGIN, folder, "Qwen/Qwen3-VL-Reranker-2B")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


# ── embeddings ───────────────────────────────────────────────────────────────────────────


def test_the_card_of_an_embedder_says_what_it_takes(embedder: Opened) -> None:
    card = embedder.card
    assert card.tasks == ("encode", "score")
    assert card.modalities == ("text", "image", "video")
    assert (card.dims, card.kinds, card.max_tokens) == (32, ("dense",), 8192)
    assert card.instructions
    assert (card.scoring, card.pooling) == ("cosine", "last")


def test_each_item_is_embedded_as_transformers_does(embedder: Opened, reference: Reference) -> None:
    for one in MIXED:
        (found,) = embedder.run(one)
        assert isinstance(found, Vectors)
        close(found.dense, reference.embed(one))


def test_a_mixed_batch_gives_what_each_item_gives_alone(
    embedder: Opened, reference: Reference
) -> None:
    for one, found in zip(MIXED, embedder.run(*MIXED), strict=True):
        close(found.dense, reference.embed(one))


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (16, 3000), (3000, 16), (1, 200), (1500, 1600), (31, 33)]
)
def test_pictures_of_every_shape_are_resized_as_the_processor_does(
    embedder: Opened, reference: Reference, height: int, width: int
) -> None:
    one = unit(picture(height, width))
    if min(height, width) * 2 <= 32:  # the processor lets such a side be nothing at first
        prepared = embedder.model.prepare([one])[0]
        _, rows, columns = prepared.arrays["image_grid_thw"][0]
        assert rows * columns * 16 * 16 >= 4 * 32 * 32
        assert rows % 2 == columns % 2 == 0
        assert np.isfinite(embedder.run(one)[0].dense).all()
    else:
        close(embedder.run(one)[0].dense, reference.embed(one))


def test_a_picture_that_is_nearly_a_line_is_refused(embedder: Opened) -> None:
    with pytest.raises(BadRequest) as caught:
        embedder.model.prepare([unit("a"), unit(picture(2, 401))])
    assert caught.value.param == "[1]"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("Find pictures of foxes", "Find pictures of foxes."),
        ("  Find pictures of foxes!\n", "Find pictures of foxes!"),
        ("Suche Füchse。", "Suche Füchse。"),
        ("foxes $", "foxes $."),
    ],
)
def test_an_instruction_ends_in_punctuation(
    embedder: Opened, reference: Reference, given: str, told: str
) -> None:
    one = unit("a fox", picture(40, 40), instruction=given)
    close(embedder.run(one)[0].dense, reference.embed(one, told))


def test_a_role_brings_the_prompt_that_the_files_have_for_it(
    folder: Path, reference: Reference
) -> None:
    prompts = {"query": "Retrieve images for this query"}
    told = Opened(PLUGIN, folder, overrides={"prompts": prompts})
    one = unit("a fox", role="query")
    close(told.run(one)[0].dense, reference.embed(one, "Retrieve images for this query."))
    close(told.run(unit("a fox", role="document"))[0].dense, reference.embed(one))
    with pytest.raises(Unsupported):
        told.run(unit("a fox", role="nobody"))


def test_a_token_that_the_tokenizer_puts_behind_texts_is_the_last(tmp_path: Path) -> None:
    folder = build_qwen3_vl(tmp_path, after="<|endoftext|>")
    model, oracle = Opened(PLUGIN, folder), Reference(folder)
    for one in MIXED[:3]:
        assert model.model.prepare([one])[0].arrays["input_ids"][-1] == 0
        close(model.run(one)[0].dense, oracle.embed(one))


def test_special_tokens_in_a_text_are_only_words(embedder: Opened) -> None:
    text = "<|im_end|> <|image_pad|><|vision_start|>"
    (prepared,) = embedder.model.prepare([unit(text, picture(40, 40))])
    (plain,) = embedder.model.prepare([unit("", picture(40, 40))])
    for number in range(7):
        count = np.count_nonzero(prepared.arrays["input_ids"] == number)
        assert count == np.count_nonzero(plain.arrays["input_ids"] == number)
    assert np.isfinite(embedder.run(unit(text, picture(40, 40)))[0].dense).all()


# ── videos ───────────────────────────────────────────────────────────────────────────────


def test_a_dense_film_is_thinned_to_a_frame_a_second() -> None:
    long = film(40, (4, 4), rate=4.0)  # ten seconds
    assert thin(long).times == tuple(long.times[round(place)] for place in np.linspace(0, 39, 10))
    assert len(thin(film(100, (4, 4), rate=0.5)).frames) == 64
    assert len(thin(film(30, (4, 4), rate=30.0)).frames) == 4


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 64])
def test_a_film_of_a_frame_a_second_is_kept(frames: int) -> None:
    one = film(frames, (4, 4))
    kept = thin(one)
    assert len(kept.frames) == (frames if frames <= 4 else frames // 2 * 2)
    assert kept.times[0] == one.times[0]
    assert kept.times[-1] == one.times[-1]


def test_the_time_of_a_step_is_the_middle_of_its_frames() -> None:
    assert moments((0.0, 1.0, 2.0, 3.0, 9.0), 2) == [0.5, 2.5, 9.0]
    assert moments((1.5,), 2) == [1.5]


def test_frames_share_the_pixels_of_their_video() -> None:
    assert share(2).most == share(20).most == 768 * 1024
    assert share(64).most == share(63).most == 245760
    assert share(2).least == 128 * 1024


def test_a_film_without_frames_is_refused(embedder: Opened) -> None:
    with pytest.raises(BadRequest) as caught:
        embedder.model.prepare([unit(Film(frames=(), times=()))])
    assert caught.value.param == "[0]"


# ── lengths ──────────────────────────────────────────────────────────────────────────────


def test_a_long_text_is_cut_at_its_end_and_nothing_else_is(embedder: Opened) -> None:
    seen = picture(64, 64)
    whole, short, cut = embedder.model.prepare(
        [
            unit(seen, "fox " * 90),
            unit(seen, "", max_tokens=60),
            unit(seen, "fox " * 90, max_tokens=60),
        ]
    )
    ids = cut.arrays["input_ids"]
    assert cut.cut
    assert not short.cut
    assert len(ids) == cut.tokens == 60
    end = len(embedder.model.prepare([unit()])[0].arrays["input_ids"])
    assert end < 60
    tail = short.arrays["input_ids"][-12:]
    np.testing.assert_array_equal(ids[-12:], tail)
    np.testing.assert_array_equal(ids[:40], whole.arrays["input_ids"][:40])


def test_what_is_too_long_is_refused_where_it_is_asked_for(embedder: Opened) -> None:
    with pytest.raises(TooLong) as caught:
        embedder.model.prepare([unit("fox " * 90, max_tokens=60, overflow="refuse")])
    assert caught.value.param == "[0]"


def test_pictures_are_never_cut(embedder: Opened) -> None:
    with pytest.raises(TooLong) as caught:
        embedder.model.prepare([unit("a"), unit(picture(900, 900), "fox " * 9, max_tokens=60)])
    assert caught.value.param == "[1]"
    many = unit(*[picture(1500, 1500)] * 6, max_tokens=10**6)
    with pytest.raises(TooLong):
        embedder.model.prepare([many])


def test_a_longer_window_can_be_told(folder: Path) -> None:
    assert Opened(PLUGIN, folder, overrides={"max_tokens": 12000}).card.max_tokens == 12000
    checkpoint = Checkpoint("tiny", folder, overrides={"max_tokens": 100_000})
    assert PLUGIN.card(checkpoint).max_tokens == 16384


def test_only_what_it_can_read_is_taken(embedder: Opened) -> None:
    with pytest.raises(Unsupported):
        embedder.model.prepare([unit(Tokens((1, 2)))])
    with pytest.raises(BadRequest):
        embedder.model.prepare([unit("half \ud800")])


# ── scores ───────────────────────────────────────────────────────────────────────────────

PAIRS = (
    unit("a fox", other=("The quick brown fox",)),
    unit("a fox", other=(picture(50, 70),)),
    unit(picture(60, 60), "like this", other=(picture(50, 70), "a fox")),
    unit("a clip", other=(film(3),)),
    unit(film(2), other=("text", picture(40, 40))),
    unit("", other=()),
)


def test_the_card_of_a_reranker_says_what_it_takes(reranker: Opened) -> None:
    card = reranker.card
    assert (card.tasks, card.scoring, card.max_tokens) == (("score",), "cross-encoder", 10240)
    assert card.modalities == ("text", "image", "video")
    assert (card.dims, card.kinds) == (None, ())


def test_each_pair_is_scored_as_transformers_does(reranker: Opened, reference: Reference) -> None:
    together = reranker.run(*PAIRS)
    for one, found in zip(PAIRS, together, strict=True):
        logit = reference.score(one)
        (alone,) = reranker.run(one)
        close([found.raw, alone.raw], [logit, logit])
        close([found.value, alone.value], [1 / (1 + np.exp(-logit))] * 2)


def test_a_query_is_seen_the_same_by_every_pair(reranker: Opened) -> None:
    seen, moving = picture(50, 70), film(3)
    pairs = [unit(seen, moving, other=(text,)) for text in ("a fox", "a dog")]
    pairs.append(unit(picture(50, 70, 1), moving, other=(seen,)))
    together = reranker.run(*pairs)
    for found, one in zip(together, pairs, strict=True):
        close(found.raw, reranker.run(one)[0].raw)
    assert len({round(found.raw, 3) for found in together}) == 3


def test_an_instruction_of_a_score_stands_as_it_is(reranker: Opened, reference: Reference) -> None:
    one = unit("a fox", other=("a dog",), instruction="Judge kindly")
    close(reranker.run(one)[0].raw, reference.score(one, "Judge kindly"))


def test_of_a_long_pair_the_document_is_cut_first(reranker: Opened) -> None:
    whole, cut = reranker.model.prepare(
        [
            unit("fox " * 20, other=("dog " * 50,)),
            unit("fox " * 20, other=("dog " * 50,), max_tokens=250),
        ]
    )
    ids, full = cut.arrays["input_ids"], whole.arrays["input_ids"]
    assert len(ids) == 250
    assert len(full) > 250
    tail = 12  # of the prompt
    np.testing.assert_array_equal(ids[-tail:], full[-tail:])
    np.testing.assert_array_equal(ids[: 250 - 60], full[: 250 - 60])


def test_a_fault_names_the_query_or_its_document(reranker: Opened) -> None:
    line = picture(1, 300)
    for one, param in ((unit(line, other=("a",)), "query"), (unit("a", other=(line,)), "[0]")):
        with pytest.raises(BadRequest) as caught:
            reranker.model.prepare([one])
        assert caught.value.param == param
    with pytest.raises(Unsupported):
        reranker.model.prepare([unit("a")])


# ── texts alone ──────────────────────────────────────────────────────────────────────────

TEXTS = (
    unit("a quick brown fox"),
    unit("jumps ", "over " * 30, "the dog", instruction="Find dogs"),
    unit(),
    unit("fox " * 90, max_tokens=60),
    unit("<|im_end|> <|image_pad|>"),
)


def texts_alone(folder: Path, name: str) -> Any:
    """A model of which only the language model is open, on a graph of our own."""
    checkpoint = Checkpoint(name, folder)
    head = PLUGIN.graphs(checkpoint)["text"]
    return PLUGIN.ready(checkpoint, {"text": OPENVINO.open(checkpoint, "text", head, "cpu", "f32")})


@pytest.mark.parametrize("after", [None, "<|endoftext|>"])
def test_the_language_model_alone_embeds_texts_as_the_whole_does(
    tmp_path: Path, after: str | None
) -> None:
    folder = build_qwen3_vl(tmp_path, after=after)
    whole, alone = Opened(PLUGIN, folder), texts_alone(folder, "tiny")
    prepared = alone.prepare(TEXTS)
    for expected, one, own in zip(
        whole.run(*TEXTS), alone.forward(prepared), prepared, strict=True
    ):
        close(one.dense, expected.dense)
        close(alone.forward([own])[0].dense, expected.dense)
    alone.close()


@pytest.mark.parametrize("tied", [True, False])
def test_the_language_model_alone_scores_texts_as_the_whole_does(
    tmp_path: Path, tied: bool
) -> None:
    folder = build_qwen3_vl(tmp_path, tied=tied)
    whole, alone = Opened(PLUGIN, folder, "reranker"), texts_alone(folder, "reranker")
    pairs = [
        unit("a fox", other=("The quick brown fox",)),
        unit("", other=("dog " * 80,), instruction="Judge kindly"),
        unit("fox " * 20, other=("dog " * 50,), max_tokens=250),
        unit("a fox", other=()),
    ]
    found = alone.forward(alone.prepare(pairs))
    for expected, one in zip(whole.run(*pairs), found, strict=True):
        close([one.raw, one.value], [expected.raw, expected.value])
    close(found[0].raw, Reference(folder).score(pairs[0]))
    alone.close()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_text(folder: Path, side: str) -> None:
    alone = texts_alone(folder, "tiny")
    features = alone.prepare(TEXTS)
    width = max(one.tokens for one in features) + 3
    ids = np.zeros((len(features), width), np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(features):
        places = slice(width - one.tokens, width) if side == "left" else slice(0, one.tokens)
        ids[row, places], mask[row, places] = one.arrays["input_ids"], 1
    session = alone._graphs._sessions["text"]
    found = session.run({"input_ids": ids, "attention_mask": mask})["output"]
    for row, one in zip(found, alone.forward(features), strict=True):
        close(row, one.dense)
    alone.close()


def test_texts_and_pictures_have_graphs_of_their_own(folder: Path, reference: Reference) -> None:
    both = Opened(PLUGIN, folder, spare=OPENVINO)
    features = both.model.prepare(MIXED)
    assert [one.group for one in features] == ["text", *["main"] * 5, "text"]
    for one, own in zip(MIXED, features, strict=True):
        close(both.model.forward([own])[0].dense, reference.embed(one))
    seen = [at for at, one in enumerate(features) if one.group == "main"]
    together = both.model.forward([features[at] for at in seen])
    for at, found in zip(seen, together, strict=True):
        close(found.dense, reference.embed(MIXED[at]))
    both.model.close()
    with pytest.raises(SessionLost):
        both.model.forward(features[:1])


def test_a_pair_with_one_picture_is_no_text(folder: Path, reference: Reference) -> None:
    both = Opened(PLUGIN, folder, "reranker", spare=OPENVINO)
    features = both.model.prepare(PAIRS)
    assert [one.group for one in features] == ["text", *["main"] * 4, "text"]
    for one, own in zip(PAIRS, features, strict=True):
        close(both.model.forward([own])[0].raw, reference.score(one))


def test_the_language_model_alone_is_shown_nothing(folder: Path) -> None:
    alone = texts_alone(folder, "tiny")
    for seen in (picture(40, 40), film(2)):
        with pytest.raises(Unsupported) as caught:
            alone.prepare([unit("a"), unit("b", seen)])
        assert caught.value.param == "[1]"


# ── files ────────────────────────────────────────────────────────────────────────────────


def _modules(folder: Path, *kinds: str) -> None:
    listed = [
        {"idx": at, "path": f"{at}_{kind}" if at else "", "type": f"sentence_transformers.{kind}"}
        for at, kind in enumerate(kinds)
    ]
    write_json(folder, modules=listed)


def test_modules_say_which_of_the_two_it_is(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    _modules(copy, "Transformer", "Pooling", "Normalize")
    assert PLUGIN.card(Checkpoint("a-reranker", copy)).tasks == ("encode", "score")
    _modules(copy, "Transformer", "LogitScore")
    assert PLUGIN.card(Checkpoint("an-embedder", copy)).tasks == ("score",)
    (copy / "1_LogitScore").mkdir()
    write_json(copy / "1_LogitScore", config={"true_token_id": 3, "false_token_id": 9})
    (_, _, contrast) = PLUGIN.graphs(Checkpoint("tiny", copy))["main"].steps
    assert (contrast.plus, contrast.minus) == (3, 9)
    _modules(copy, "Transformer", "Dense")
    with pytest.raises(CheckpointError, match="Dense"):
        PLUGIN.card(Checkpoint("tiny", copy))


def test_rows_of_an_untied_head_are_its_own(tmp_path: Path) -> None:
    folder = build_qwen3_vl(tmp_path, tied=False)
    model, oracle = Opened(PLUGIN, folder, "reranker"), Reference(folder)
    close(model.run(PAIRS[0])[0].raw, oracle.score(PAIRS[0]))


def test_no_graph_of_our_own_is_tried(folder: Path) -> None:
    checkpoint = Checkpoint("reranker", folder)
    head = PLUGIN.graphs(checkpoint)["main"]
    assert OPENVINO.can(checkpoint, "main", head, "cpu")
