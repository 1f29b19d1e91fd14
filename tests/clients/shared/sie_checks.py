"""What every version of SIE's SDK must see, sync and async; its calls.py runs all of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
import time
import urllib.request

import checks
import numpy as np
from checks import BEST, DOCUMENTS, FOX, KEY, MODEL, QUERY, TEXTS, plain_scores, plain_vectors
from PIL import Image
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.client.errors import RequestError
from sie_sdk.scoring import maxsim

client = SIEClient(checks.GUARDED, api_key=KEY)
ITEMS = [{"id": f"doc-{i}", "text": text} for i, text in enumerate(TEXTS)]
SCORED = [{"id": str(i), "text": text} for i, text in enumerate(DOCUMENTS)]
KINDS = ["dense", "sparse", "multivector"]
DTYPES = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
FRAMES = 3


def refused(call) -> RequestError:
    try:
        call()
    except RequestError as error:
        return error
    raise AssertionError("not refused")


def own_async():
    return SIEAsyncClient(checks.GUARDED, api_key=KEY)


# ── waiting for a model: first, for its server has just been started ─────────────────────


async def check_it_asks_again_while_a_model_loads():
    """The server says 503 with Retry-After; both clients wait, ask again, and are answered."""
    said, log = io.StringIO(), logging.getLogger("sie_sdk")
    handler = logging.StreamHandler(said)
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    await asyncio.to_thread(wait_for_door)
    try:
        async with SIEAsyncClient(checks.COLD) as other:
            ours, theirs = await asyncio.gather(
                other.encode("fake", {"text": FOX}),
                asyncio.to_thread(SIEClient(checks.COLD).encode, "fake", {"text": FOX}),
            )
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    np.testing.assert_array_equal(ours["dense"], theirs["dense"])
    assert said.getvalue().count("retrying in") >= 2, said.getvalue()
    assert "oading" in said.getvalue()


def wait_for_door():
    """Until the server that has just been started takes connections."""
    until = time.monotonic() + 30
    while True:
        try:
            return urllib.request.urlopen(checks.COLD + "/healthz", timeout=5).close()
        except OSError:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.05)


# ── encode ───────────────────────────────────────────────────────────────────────────────


def check_one_item_is_a_float32_row():
    result = client.encode(MODEL, {"text": FOX})
    assert result["dense"].dtype == np.float32
    np.testing.assert_allclose(result["dense"], plain_vectors([FOX])[0], atol=1e-6)
    assert "id" not in result
    assert result["timing"]["total_ms"] > 0


def check_a_batch_keeps_order_and_ids():
    results = client.encode(MODEL, ITEMS)
    assert [one["id"] for one in results] == [item["id"] for item in ITEMS]
    rows = np.stack([one["dense"] for one in results])
    np.testing.assert_allclose(rows, plain_vectors(TEXTS), atol=1e-6)


def check_every_dtype():
    whole = client.encode(MODEL, {"text": FOX})["dense"]
    made = {
        dtype: client.encode(MODEL, {"text": FOX}, output_dtype=dtype)["dense"] for dtype in DTYPES
    }
    assert {name: row.dtype.name for name, row in made.items()} == {
        "float32": "float32",
        "float16": "float16",
        "int8": "int8",
        "uint8": "uint8",
        "binary": "uint8",
        "ubinary": "uint8",
    }
    np.testing.assert_allclose(made["float16"], whole, atol=1e-3)
    np.testing.assert_array_equal(made["binary"], np.packbits(whole > 0))
    np.testing.assert_array_equal(made["ubinary"], made["binary"])
    peak = np.abs(whole).max()
    np.testing.assert_allclose(made["int8"] * peak / 127, whole, atol=peak / 120)
    span = whole.max() - whole.min()
    np.testing.assert_allclose(made["uint8"] * span / 255 + whole.min(), whole, atol=span / 250)


def check_sparse_vectors():
    first, second = client.encode(checks.BM25, ITEMS[:2], output_types=["sparse"])
    for item, result in zip(ITEMS, (first, second), strict=False):
        assert result["id"] == item["id"]
        assert "dense" not in result
        indices, values = result["sparse"]["indices"], result["sparse"]["values"]
        assert (indices.dtype, values.dtype) == (np.int32, np.float32)
        assert len(indices) == len(values) == len(set(indices.tolist())) > 0
        assert (values > 0).all()
    asked = client.encode(checks.BM25, ITEMS[0], output_types=["sparse"], is_query=True)["sparse"]
    assert set(asked["indices"].tolist()) == set(first["sparse"]["indices"].tolist())
    assert set(asked["values"].tolist()) == {1.0}  # a query's words weigh the same


def check_three_types_in_one_pass():
    results = client.encode(checks.THREEFOLD, ITEMS, output_types=KINDS)
    dense = np.stack([one["dense"] for one in results])
    wanted = plain_vectors(TEXTS, model=checks.THREEFOLD)
    np.testing.assert_allclose(dense, wanted, atol=1e-5)
    for result in results:
        assert result["sparse"]["indices"].dtype == np.int32
        assert (result["sparse"]["values"] > 0).all()
        rows = result["multivector"]
        assert (rows.dtype, rows.ndim, rows.shape[1]) == (np.float32, 2, dense.shape[1])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert any(len(one["sparse"]["indices"]) for one in results)
    alone = client.encode(checks.THREEFOLD, ITEMS[0], output_types=["multivector"])
    assert set(alone) & set(KINDS) == {"multivector"}
    np.testing.assert_allclose(alone["multivector"], results[0]["multivector"], atol=1e-5)


def check_every_dtype_of_rows():
    def rows(**told):
        return client.encode(checks.THREEFOLD, ITEMS[0], output_types=["multivector"], **told)

    whole = rows()["multivector"]
    made = {dtype: rows(output_dtype=dtype)["multivector"] for dtype in DTYPES}
    np.testing.assert_allclose(made["float16"], whole, atol=1e-3)
    np.testing.assert_array_equal(made["binary"], np.packbits(whole > 0, axis=-1))
    peak = np.abs(whole).max(axis=-1, keepdims=True)
    np.testing.assert_allclose(made["int8"] * peak / 127, whole, atol=1 / 120)
    assert made["uint8"].shape == whole.shape


def check_the_sdks_own_maxsim_agrees():
    query = client.encode(
        checks.THREEFOLD, {"text": QUERY}, output_types=["multivector"], is_query=True
    )["multivector"]
    found = client.encode(checks.THREEFOLD, SCORED, output_types=["multivector"])
    scores = maxsim(query, [one["multivector"] for one in found])
    wanted = [float((query @ one["multivector"].T).max(1).sum()) for one in found]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)


def check_options():
    short = client.encode(MODEL, {"text": FOX}, options={"dimensions": 64, "normalize": True})
    assert short["dense"].shape == (64,)
    np.testing.assert_allclose(np.linalg.norm(short["dense"]), 1, atol=1e-5)
    as_query = client.encode(MODEL, {"text": FOX}, is_query=True)  # this model has no prompts
    np.testing.assert_allclose(as_query["dense"], plain_vectors([FOX])[0], atol=1e-6)
    elsewhere = client.encode(MODEL, {"text": FOX}, gpu="l4")  # a machine there is none of
    np.testing.assert_array_equal(elsewhere["dense"], as_query["dense"])


def check_what_items_may_hold_beside_the_text():
    item = {"id": "x", "text": FOX, "metadata": {"page": 3}, "more": [1]}
    result = client.encode(f"{MODEL}:default", item)
    assert result["id"] == "x"
    np.testing.assert_allclose(result["dense"], plain_vectors([FOX])[0], atol=1e-6)


# ── score, models, refusals ──────────────────────────────────────────────────────────────


def check_scores():
    result = client.score(MODEL, {"id": "q", "text": QUERY}, SCORED)
    assert result["query_id"] == "q"
    entries = result["scores"]
    assert [one["rank"] for one in entries] == list(range(len(DOCUMENTS)))
    assert {int(one["item_id"]) for one in entries[:2]} == BEST
    wanted = plain_scores()
    for one in entries:
        assert abs(one["score"] - wanted[int(one["item_id"])]) < 1e-6


def check_a_cross_encoder_scores():
    result = client.score(checks.RERANKER, {"text": QUERY}, SCORED)
    wanted = plain_scores(checks.RERANKER)
    for one in result["scores"]:
        assert abs(one["score"] - wanted[int(one["item_id"])]) < 1e-6


def check_items_without_ids_are_named():
    result = client.score(MODEL, {"text": QUERY}, [{"text": text} for text in DOCUMENTS])
    assert {one["item_id"] for one in result["scores"][:2]} == {f"item-{i}" for i in BEST}


def check_classes():
    item = {"id": "x", "text": FOX}
    result = client.extract(checks.CLASSIFIER, item, labels=checks.LABELS)
    assert result["id"] == "x"
    assert [result[kind] for kind in ("entities", "relations", "objects")] == [[], [], []]
    checks.same_classes([(one["label"], one["score"]) for one in result["classifications"]])
    assert abs(sum(one["score"] for one in result["classifications"]) - 1) < 1e-5
    several = client.extract(checks.CLASSIFIER, ITEMS, labels=checks.LABELS)
    assert [one["id"] for one in several] == [item["id"] for item in ITEMS]


def check_models():
    models = {one["name"]: one for one in client.list_models()}
    assert {MODEL, checks.RERANKER, checks.BM25, checks.THREEFOLD} <= set(models)
    found = client.get_model(MODEL)
    assert found["dims"] == {"dense": checks.DIMS}
    assert found["loaded"] is True
    assert found["inputs"] == ["text"]
    assert models[checks.BM25]["outputs"][0] == "sparse"
    assert models[checks.RERANKER]["outputs"] == ["score"]


def check_refusals():
    missing = refused(lambda: client.encode("nobody/nothing", {"text": FOX}))
    assert (missing.code, missing.status_code) == ("MODEL_NOT_FOUND", 404)
    unknown = refused(lambda: client.get_model("nobody/nothing"))
    assert (unknown.code, unknown.status_code) == ("MODEL_NOT_FOUND", 404)
    sparse = refused(lambda: client.encode(MODEL, {"text": FOX}, output_types=["sparse"]))
    assert (sparse.code, sparse.status_code) == ("INVALID_INPUT", 400)
    nothing = refused(lambda: client.extract(MODEL, {"text": FOX}, labels=["animal"]))
    assert nothing.code == "INVALID_INPUT"
    dtype = refused(lambda: client.encode(MODEL, {"text": FOX}, output_dtype="int4"))
    assert "float16" in str(dtype)
    stranger = SIEClient(checks.GUARDED, api_key="wrong")
    assert refused(lambda: stranger.encode(MODEL, {"text": FOX})).status_code == 401


def check_images_are_refused_by_name():
    image = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(image, "png")
    for given in (image.getvalue(), Image.new("RGB", (8, 8))):
        error = refused(lambda given=given: client.encode(MODEL, {"images": [given]}))
        assert (error.code, error.status_code) == ("INVALID_INPUT", 400)
        assert "mages" in str(error)


def check_without_a_key():
    result = SIEClient(checks.OPEN).encode(MODEL, {"text": FOX})
    np.testing.assert_allclose(result["dense"], plain_vectors([FOX])[0], atol=1e-6)


# ── async ────────────────────────────────────────────────────────────────────────────────


async def check_the_async_client():
    async with own_async() as other:
        batch, scored, models, found = await asyncio.gather(
            other.encode(MODEL, ITEMS),
            other.score(MODEL, {"text": QUERY}, SCORED),
            other.list_models(),
            other.get_model(MODEL),
        )
        classes = await other.extract(checks.CLASSIFIER, {"text": FOX}, labels=checks.LABELS)
        many = await asyncio.gather(*(other.encode(MODEL, item) for item in ITEMS * 8))
    wanted = plain_vectors(TEXTS)
    np.testing.assert_allclose(np.stack([row["dense"] for row in batch]), wanted, atol=1e-6)
    assert {int(one["item_id"]) for one in scored["scores"][:2]} == BEST
    assert found in models
    checks.same_classes([(one["label"], one["score"]) for one in classes["classifications"]])
    for number, row in enumerate(many):
        assert row["id"] == ITEMS[number % len(ITEMS)]["id"]
        np.testing.assert_allclose(row["dense"], wanted[number % len(ITEMS)], atol=1e-5)


async def check_async_types_and_dtypes():
    async with own_async() as other:
        for dtype in DTYPES:
            item, told = {"text": FOX}, {"output_dtype": dtype, "output_types": KINDS}
            ours = await other.encode(checks.THREEFOLD, item, **told)
            wanted = client.encode(checks.THREEFOLD, item, **told)
            for kind in ("dense", "multivector"):
                assert ours[kind].dtype == wanted[kind].dtype
                np.testing.assert_allclose(ours[kind], wanted[kind], atol=1e-5)
            np.testing.assert_array_equal(ours["sparse"]["indices"], wanted["sparse"]["indices"])


async def check_async_refusals():
    async with own_async() as other:
        names = ("nobody/nothing", checks.RERANKER)
        asked = [other.encode(name, {"text": FOX}) for name in names]
        errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in errors] == [RequestError] * 2
    assert [error.status_code for error in errors] == [404, 400]


# ── watching ─────────────────────────────────────────────────────────────────────────────


def judge_frames(frames):
    assert len(frames) == FRAMES
    for frame in frames:
        assert MODEL in frame["loaded_models"]
        assert {one["name"] for one in frame["models"]} >= {MODEL, checks.BM25}
        assert frame["server"]["uptime_seconds"] >= 0
        assert isinstance(frame["gpus"], list)
    apart = frames[-1]["timestamp"] - frames[0]["timestamp"]
    assert apart >= 0.1 * (FRAMES - 1), f"{FRAMES} frames in {apart:.3f} s"


def check_watch():
    for told in ({}, {"mode": "worker"}):
        stream = client.watch(**told)
        judge_frames(list(itertools.islice(stream, FRAMES)))
        stream.close()


async def check_async_watch():
    frames = []
    async with own_async() as other, contextlib.aclosing(other.watch()) as stream:
        async for frame in stream:
            frames.append(frame)
            if len(frames) == FRAMES:
                break
    judge_frames(frames)
