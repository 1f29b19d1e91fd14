"""SIE's SDK, sync and async, against a running omnivec. See ../shared/checks.py.

Its wheel asks for Python 3.12; nothing in it needs that, so it is installed for any.
"""

from __future__ import annotations

import asyncio

import checks
import numpy as np
from checks import BEST, DOCUMENTS, FOX, KEY, MODEL, QUERY, TEXTS, plain_scores, plain_vectors
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.client.errors import RequestError

client = SIEClient(checks.GUARDED, api_key=KEY)
ITEMS = [{"id": f"doc-{i}", "text": text} for i, text in enumerate(TEXTS)]
SCORED = [{"id": str(i), "text": text} for i, text in enumerate(DOCUMENTS)]


def refused(call) -> RequestError:
    try:
        call()
    except RequestError as error:
        return error
    raise AssertionError("not refused")


def check_one_item_is_a_float32_row():
    result = client.encode(MODEL, {"text": FOX})
    assert result["dense"].dtype == np.float32
    np.testing.assert_allclose(result["dense"], plain_vectors([FOX])[0], atol=1e-6)
    assert "id" not in result
    assert result["model"] == MODEL
    assert result["timing"]["total_ms"] > 0


def check_a_batch_keeps_order_and_ids():
    results = client.encode(MODEL, ITEMS)
    assert [one["id"] for one in results] == [item["id"] for item in ITEMS]
    rows = np.stack([one["dense"] for one in results])
    np.testing.assert_allclose(rows, plain_vectors(TEXTS), atol=1e-6)


def check_every_dtype():
    whole = client.encode(MODEL, {"text": FOX})["dense"]
    made = {
        dtype: client.encode(MODEL, {"text": FOX}, output_dtype=dtype)["dense"]
        for dtype in ("float32", "float16", "int8", "uint8", "binary", "ubinary")
    }
    assert {name: row.dtype.name for name, row in made.items()} == {
        "float32": "float32",
        "float16": "float16",
        "int8": "int8",
        "uint8": "uint8",
        "binary": "uint8",
        "ubinary": "uint8",
    }
    np.testing.assert_array_equal(made["binary"], np.packbits(whole > 0))
    peak = np.abs(whole).max()
    np.testing.assert_allclose(made["int8"] * peak / 127, whole, atol=peak / 120)
    span = whole.max() - whole.min()
    np.testing.assert_allclose(made["uint8"] * span / 255 + whole.min(), whole, atol=span / 250)


def check_options():
    short = client.encode(MODEL, {"text": FOX}, options={"dimensions": 64, "normalize": True})
    assert short["dense"].shape == (64,)
    np.testing.assert_allclose(np.linalg.norm(short["dense"]), 1, atol=1e-5)
    as_query = client.encode(MODEL, {"text": FOX}, is_query=True)  # this model has no prompts
    np.testing.assert_allclose(as_query["dense"], plain_vectors([FOX])[0], atol=1e-6)


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


def check_models():
    models = {one["name"]: one for one in client.list_models()}
    assert {MODEL, checks.RERANKER} <= set(models)
    found = client.get_model(MODEL)
    assert found["dims"] == {"dense": 384}
    assert found["loaded"] is True
    assert models[checks.RERANKER]["outputs"] == ["score"]


def check_refusals():
    missing = refused(lambda: client.encode("nobody/nothing", {"text": FOX}))
    assert (missing.code, missing.status_code) == ("MODEL_NOT_FOUND", 404)
    sparse = refused(lambda: client.encode(MODEL, {"text": FOX}, output_types=["sparse"]))
    assert (sparse.code, sparse.status_code) == ("INVALID_INPUT", 400)
    nothing = refused(lambda: client.extract(MODEL, {"text": FOX}, labels=["animal"]))
    assert nothing.code == "INVALID_INPUT"
    stranger = SIEClient(checks.GUARDED, api_key="wrong")
    assert refused(lambda: stranger.encode(MODEL, {"text": FOX})).status_code == 401


def check_without_a_key():
    result = SIEClient(checks.OPEN).encode(MODEL, {"text": FOX})
    np.testing.assert_allclose(result["dense"], plain_vectors([FOX])[0], atol=1e-6)


def check_the_async_client():
    async def ask():
        async with SIEAsyncClient(checks.GUARDED, api_key=KEY) as other:
            one, scored, models = await asyncio.gather(
                other.encode(MODEL, ITEMS),
                other.score(MODEL, {"text": QUERY}, SCORED),
                other.list_models(),
            )
            many = await asyncio.gather(*(other.encode(MODEL, item) for item in ITEMS * 8))
            return one, scored, models, many

    batch, scored, models, many = asyncio.run(ask())
    wanted = plain_vectors(TEXTS)
    np.testing.assert_allclose(np.stack([row["dense"] for row in batch]), wanted, atol=1e-6)
    assert {int(one["item_id"]) for one in scored["scores"][:2]} == BEST
    assert MODEL in [one["name"] for one in models]
    for number, row in enumerate(many):
        assert row["id"] == ITEMS[number % len(ITEMS)]["id"]
        np.testing.assert_allclose(row["dense"], wanted[number % len(ITEMS)], atol=1e-5)


if __name__ == "__main__":
    checks.main(globals())
