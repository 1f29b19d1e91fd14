"""Sparse vectors from SIE's wire through the engine and a learned sparse encoder, and back."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest

from checkpoints import SENTENCES
from omnivec.core.errors import Fault, Unsupported
from omnivec.core.nouns import Call, Describe, Encode, Item, Task, Text
from omnivec.core.seams import Endpoint
from omnivec.core.settings import Settings
from omnivec.dialects.sie import PLUGIN as SIE
from omnivec.hosts.assemble import local_engine

DOCUMENTS = [{"id": f"d{i}", "text": text} for i, text in enumerate(SENTENCES)]
SPARSE = {"output_types": ["sparse"]}


def endpoint(verb: str) -> Endpoint:
    return next(one for one in SIE.endpoints if one.path.startswith(f"/v1/{verb}/"))


def answer(folder: Any, *bodies: tuple[str, dict[str, Any]]) -> list[Any]:
    """The replies to bodies for verbs, from one engine that has the model as "tiny"."""

    async def scenario() -> list[Any]:
        engine = local_engine(Settings(models=(f"tiny={folder}",), dtype="f32"))
        await engine.load()
        try:
            return [await _answer(engine, verb, body) for verb, body in bodies]
        finally:
            await engine.close()

    return asyncio.run(scenario())


async def _answer(engine: Any, verb: str, body: dict[str, Any]) -> Any:
    asked = endpoint(verb)
    raw, headers = msgspec.json.encode(body), {"accept": "application/json"}
    headers["content-type"] = "application/json"
    call = Call("POST", asked.path, raw, {"id": "tiny"}, {}, headers)
    task = asked.decode(call)
    try:
        return msgspec.json.decode(asked.encode(call, task, await engine.run(task)).body)
    except Fault as fault:
        return msgspec.json.decode(SIE.fault(fault).body)


def words(item: Any) -> dict[int, float]:
    sparse = item["sparse"]
    assert "dense" not in item
    return dict(zip(sparse["indices"], sparse["values"], strict=True))


@pytest.mark.parametrize("layout", ["chain", "router"])
def test_encode_and_score_agree_with_sentence_transformers(sparse: Any, layout: str) -> None:
    from sentence_transformers import SparseEncoder

    folder = sparse("bert", layout=layout)
    model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    query = model.encode_query(["a quick fox"], convert_to_sparse_tensor=False)
    documents = model.encode_document(list(SENTENCES), convert_to_sparse_tensor=False)

    asked = {**SPARSE, "options": {"is_query": True}}
    told, one, scored = answer(
        folder,
        ("encode", {"items": DOCUMENTS, "params": SPARSE}),
        ("encode", {"items": [{"text": "a quick fox"}], "params": asked}),
        ("score", {"query": {"text": "a quick fox"}, "items": DOCUMENTS}),
    )
    rows = zip([*told["items"], *one["items"]], [*documents, *query], strict=True)
    for item, row in rows:
        ours, theirs = words(item), row.to_sparse()
        assert sorted(ours) == theirs.indices()[0].tolist()
        np.testing.assert_allclose(list(ours.values()), theirs.values(), rtol=0, atol=1e-5)
        assert item["sparse"]["dims"] == len(row)
    dots = model.similarity(query, documents)[0].numpy()
    values = {score["item_id"]: score["score"] for score in scored["scores"]}
    assert [values[document["id"]] for document in DOCUMENTS] == pytest.approx(dots.tolist())


def test_dense_vectors_are_refused_by_name(sparse: Any) -> None:
    asked = {"items": DOCUMENTS, "params": {"output_types": ["dense"]}}
    (refused,) = answer(sparse("bert"), ("encode", asked))
    assert "This model makes sparse vectors only." in str(refused)


def test_what_it_makes_is_on_its_card(sparse: Any) -> None:
    async def scenario(task: Task) -> Any:
        engine = local_engine(Settings(models=(f"tiny={sparse('bert')}",)))
        await engine.load()
        try:
            return await engine.run(task)
        finally:
            await engine.close()

    (card,) = asyncio.run(scenario(Describe())).cards
    assert (card.state, card.runtime, card.kinds) == ("loaded", "openvino", ("sparse",))
    with pytest.raises(Unsupported, match="sparse"):
        asyncio.run(scenario(Encode((Item((Text("a"),)),), "tiny")))
