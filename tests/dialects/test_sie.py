"""SIE's wire format, on the fixed engine of dialogue.py."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from dialogue import CARD, JSON, ask, decode, read, vector

from msgpacked import unpack_array
from omnivec.core import errors
from omnivec.core.errors import BadRequest, Fault
from omnivec.core.nouns import (
    Blob,
    Call,
    Dtype,
    Encode,
    Extract,
    Image,
    Item,
    Relevance,
    Result,
    Score,
    Sparse,
    Text,
    Vectors,
)
from omnivec.core.quantise import DTYPES, quantise
from omnivec.dialects import _msgpack, sie

ENCODE, SCORE = f"/v1/encode/{CARD.name}", f"/v1/score/{CARD.name}"
EXTRACT = f"/v1/extract/{CARD.name}"
PACKED = {"content-type": "application/msgpack", "accept": "application/msgpack"}
BODY: dict[str, Any] = {"items": [{"text": "hello there"}, {"id": "b", "text": "world"}]}


def unpack(reply: Any) -> Any:
    assert reply.headers["content-type"] == "application/msgpack"
    return msgspec.msgpack.decode(reply.body)


def test_the_task() -> None:
    options = {
        "is_query": True,
        "normalize": False,
        "dimensions": 64,
        "max_seq_length": 16,
        "overflow_policy": "error",
        "profile": "default",
        "unknown": [1],
    }
    params = {"instruction": "Find it:", "output_dtype": "int8", "options": options}
    assert decode(ENCODE, {**BODY, "params": params}) == Encode(
        items=(
            Item((Text("hello there"),), "Find it:"),
            Item((Text("world"),), "Find it:", "b"),
        ),
        model=CARD.name,
        role="query",
        dims=64,
        normalize=False,
        overflow="refuse",
        max_tokens=16,
        dtype="int8",
        kinds=(),
        profile="default",
        yields=True,
        prefixes=True,
    )


@pytest.mark.parametrize(
    ("options", "adapter"),
    [
        ({"lora_id": "law"}, "law"),
        ({"lora": "law"}, "law"),
        ({"lora_id": "law", "lora": "tax"}, "law"),
        ({"lora_id": None, "lora": ""}, None),
        ({}, None),
    ],
)
def test_an_adapter_under_both_of_its_names(options: Any, adapter: str | None) -> None:
    task = decode(ENCODE, {**BODY, "params": {"options": options}})
    assert isinstance(task, Encode)
    assert task.adapter == adapter
    query = {"text": "hello"}
    scored = decode(SCORE, {**BODY, "query": query, "options": options})
    assert isinstance(scored, Score)
    assert scored.adapter == adapter


def test_an_adapter_that_is_no_name() -> None:
    with pytest.raises(Fault) as caught:
        decode(ENCODE, {**BODY, "params": {"options": {"lora_id": ["law"]}}})
    assert caught.value.message == "`params.options.lora_id` must be a string."


@pytest.mark.parametrize(
    ("params", "role"),
    [
        ({"is_query": True}, "query"),
        ({"options": {"is_query": True}}, "query"),
        ({"options": {"is_query": False}}, "document"),
        ({"is_query": True, "options": {"is_query": False}}, "document"),
        ({"options": {"is_query": None}}, None),
        (None, None),
    ],
)
def test_whether_it_is_a_query_is_read_in_both_places(params: Any, role: str | None) -> None:
    task = decode(ENCODE, {**BODY, "params": params})
    assert isinstance(task, Encode)
    assert task.role == role


@pytest.mark.parametrize("accept", ["application/msgpack", "application/x-msgpack", "*/*", None])
def test_msgpack_is_the_default(accept: str | None) -> None:
    headers = {"content-type": "application/json"} | ({"accept": accept} if accept else {})
    reply = unpack(ask("POST", ENCODE, BODY, headers))
    assert reply["model"] == CARD.name
    assert [item.get("id") for item in reply["items"]] == [None, "b"]
    assert "id" not in reply["items"][0]
    dense = reply["items"][0]["dense"]
    assert (dense["dims"], dense["dtype"]) == (CARD.dims, "float32")
    values = unpack_array(dense["values"])
    np.testing.assert_array_equal(values, vector("hello there", CARD.dims or 0))
    assert reply["timing"]["total_ms"] == pytest.approx(12.5)
    assert reply["usage"] == {"input_tokens": 3}


def test_both_wire_forms_say_the_same() -> None:
    packed = ask("POST", ENCODE, _msgpack.write(BODY), PACKED)
    plain = read(ask("POST", ENCODE, BODY))
    found = unpack(packed)
    for item in found["items"]:
        item["dense"]["values"] = unpack_array(item["dense"]["values"]).tolist()
    assert found == plain


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: str) -> None:
    body = {**BODY, "params": {"output_dtype": dtype}}
    reply = unpack(ask("POST", ENCODE, _msgpack.write(body), PACKED))
    dense = reply["items"][0]["dense"]
    assert dense["dims"] == CARD.dims
    assert dense["dtype"] == ("binary" if dtype == "ubinary" else dtype)
    expected = quantise(vector("hello there", CARD.dims or 0), dtype)  # type: ignore[arg-type]
    found = unpack_array(dense["values"])
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert read(ask("POST", ENCODE, body))["items"][0]["dense"]["values"] == expected.tolist()


def test_scores_are_sorted_and_named() -> None:
    body = {
        "query": {"id": "q", "text": "deep learning"},
        "items": [{"text": "weather"}, {"id": "d", "text": "deep learning"}, {"text": "deep"}],
    }
    assert decode(SCORE, body) == Score(
        query=Item((Text("deep learning"),), id="q"),
        items=(
            Item((Text("weather"),)),
            Item((Text("deep learning"),), id="d"),
            Item((Text("deep"),)),
        ),
        model=CARD.name,
    )
    reply = read(ask("POST", SCORE, body))
    assert reply["query_id"] == "q"
    assert reply["scores"] == [
        {"item_id": "d", "score": 1.0, "rank": 0},
        {"item_id": "item-2", "score": 0.5, "rank": 1},
        {"item_id": "item-0", "score": 0.0, "rank": 2},
    ]


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, ()),
        ({"score_mode": None, "score_weights": None}, ()),
        ({"score_mode": "dense"}, (("dense", 1.0),)),
        ({"score_mode": "sparse"}, (("sparse", 1.0),)),
        ({"score_mode": "colbert", "score_weights": {"dense": 9}}, (("multivector", 1.0),)),
        ({"score_mode": "hybrid"}, (("dense", 0.4), ("sparse", 0.2), ("multivector", 0.4))),
        (
            {"score_mode": "hybrid", "score_weights": {"colbert": 1, "dense": 0.5}},
            (("dense", 0.5), ("sparse", 0.2), ("multivector", 1.0)),
        ),
        ({"score_weights": {"sparse": 2, "dense": 0}}, (("sparse", 2.0), ("multivector", 0.4))),
        ({"score_weights": {"sparse": 0, "colbert": 0}}, (("dense", 0.4),)),
    ],
    ids=str,
)
def test_a_score_mode_becomes_weights(options: dict[str, Any], weights: Any) -> None:
    task = score_task(options)
    assert task.weights == weights
    assert task.raw == bool(weights)  # the score that the mode's formula gives
    assert not score_task({**options, "raw_scores": False}).raw


@pytest.mark.parametrize("scoring", ["cosine", "dot", "maxsim", "cross-encoder"])
@pytest.mark.parametrize("told", [None, True, False])
def test_what_is_compared_is_told_without_an_end(scoring: str, told: bool | None) -> None:
    """As SIE's models do: the cosine, the product, the sum over the query's tokens."""
    options = {} if told is None else {"raw_scores": told}
    body = {"query": {"text": "a"}, "items": [{"text": word} for word in "bcd"], "options": options}
    call = Call("POST", SCORE, msgspec.json.encode(body), {"id": CARD.name}, headers=JSON)
    task = sie.decode_score(call)
    found = (Relevance(0.0, -0.5), Relevance(0.96, 24.0), Relevance(0.0, -0.25))
    card = msgspec.structs.replace(CARD, scoring=scoring)
    scores = read(sie.encode_score(call, task, Result(card, found)))["scores"]
    assert [one["item_id"] for one in scores] == ["item-1", "item-2", "item-0"]
    raw = told or (told is None and scoring != "cross-encoder")
    assert [one["score"] for one in scores] == ([24.0, -0.25, -0.5] if raw else [0.96, 0.0, 0.0])


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 1.0),
        ({"score_mode": "dense"}, 1.0),
        ({"score_mode": "hybrid"}, 1.0),
        ({"score_weights": {"dense": 1, "sparse": 1, "colbert": 1}}, 3.0),
        ({"score_weights": {"dense": 1}, "raw_scores": False}, 1.0),
    ],
    ids=str,
)
def test_a_hybrid_score_is_the_weighted_sum(options: dict[str, Any], factor: float) -> None:
    body = {"query": {"text": "hello"}, **BODY}
    scores = read(ask("POST", SCORE, {**body, "options": options}))["scores"]
    raws = options.get("raw_scores", bool(options))
    means = read(ask("POST", SCORE, {**body, "options": {"raw_scores": raws}}))["scores"]
    told = [one["score"] for one in means]
    assert [one["score"] for one in scores] == pytest.approx([factor * one for one in told])
    assert any(told)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"score_mode": "cosine"}, "options.score_mode"),
        ({"score_mode": 1}, "options.score_mode"),
        (
            {"score_weights": dict.fromkeys(("dense", "sparse", "colbert"), 0)},
            "options.score_weights",
        ),
        ({"score_weights": {"dense": -1}}, "options.score_weights"),
        ({"score_weights": {"dense": 1, "multi": 1}}, "options.score_weights"),
        ({"score_weights": [0.4, 0.2, 0.4]}, "options.score_weights"),
    ],
    ids=str,
)
def test_a_score_mode_that_is_none(options: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as fault:
        score_task(options)
    assert fault.value.param == param


def score_task(options: dict[str, Any]) -> Score:
    body = {"query": {"text": "q"}, "items": [{"text": "a"}], "options": options}
    task = decode(SCORE, body)
    assert isinstance(task, Score)
    return task


def test_an_instruction_goes_with_the_query() -> None:
    task = decode(SCORE, {"query": {"text": "a"}, "items": [{"text": "b"}], "instruction": "Rank"})
    assert isinstance(task, Score)
    assert (task.query.instruction, task.items[0].instruction) == ("Rank", None)


@pytest.mark.parametrize("place", ["params", "options"])
def test_a_threshold_is_read_in_both_places(place: str) -> None:
    params = {"labels": ["person"], "threshold": 0.3}
    if place == "options":
        params = {"labels": ["person"], "options": {"threshold": 0.3}}
    task = decode(EXTRACT, {**BODY, "params": params})
    assert isinstance(task, Extract)
    assert (task.labels, task.threshold) == (("person",), 0.3)


def test_what_is_asked_of_a_classifier() -> None:
    options = {
        "multi_label": True,
        "hypothesis_template": "On {}.",
        "top_k": 3,
        "max_seq_length": 16,
        "overflow_policy": "error",
        "labels": ["unread", "beside params.labels"],
        "unknown": [1],
    }
    params = {"labels": ["x", "y"], "instruction": "Find", "output_schema": {"a": 1}}
    assert decode(EXTRACT, {**BODY, "params": {**params, "options": options}}) == Extract(
        items=(Item((Text("hello there"),), "Find"), Item((Text("world"),), "Find", "b")),
        model=CARD.name,
        labels=("x", "y"),
        multi_label=True,
        template="On {}.",
        top=3,
        overflow="refuse",
        max_tokens=16,
    )
    task = decode(EXTRACT, {**BODY, "params": {"options": {"labels": ["x"]}}})
    assert isinstance(task, Extract)
    assert task.labels == ("x",)
    assert decode(EXTRACT, BODY) == Extract(
        items=(Item((Text("hello there"),)), Item((Text("world"),), id="b")), model=CARD.name
    )


@pytest.mark.parametrize("headers", [JSON, PACKED], ids=["json", "msgpack"])
def test_classes_come_beside_empty_lists(headers: dict[str, str]) -> None:
    body = {**BODY, "params": {"labels": ["wild", "hello"], "threshold": 0.5}}
    raw = msgspec.json.encode(body) if headers is JSON else _msgpack.write(body)
    reply = ask("POST", EXTRACT, raw, headers)
    found = read(reply) if headers is JSON else unpack(reply)
    empty = {"entities": [], "relations": [], "objects": [], "data": {}}
    wild = [{"label": "wild", "score": 0.75}, {"label": "hello", "score": 0.5}]
    assert found == {
        "model": CARD.name,
        "items": [
            {"id": "item-0", "classifications": [{"label": "hello", "score": 1.0}], **empty},
            {"id": "b", "classifications": wild, **empty},
        ],
        "usage": {"input_tokens": 3},
    }
    assert reply.headers["x-sie-units-input-tokens"] == "3"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"threshold": 1.5}, "params.threshold"),
        ({"threshold": float("nan")}, "params.threshold"),
        ({"options": {"threshold": -1}}, "params.options.threshold"),
        ({"options": {"threshold": float("nan")}}, "params.options.threshold"),
        ({"labels": "secret"}, "params.labels"),
        ({"labels": [1]}, "params.labels[0]"),
        ({"options": {"labels": "secret"}}, "params.options.labels"),
        ({"options": {"multi_label": "secret"}}, "params.options.multi_label"),
        ({"options": {"hypothesis_template": ["secret"]}}, "params.options.hypothesis_template"),
        ({"options": {"top_k": 0}}, "params.options.top_k"),
    ],
)
def test_a_wrong_wish_of_a_classifier(params: dict[str, Any], param: str) -> None:
    reply = ask("POST", EXTRACT, _msgpack.write({**BODY, "params": params}), PACKED)
    assert (reply.status, read(reply)["detail"]["param"]) == (400, param)
    assert b"secret" not in reply.body


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("labels", "params.labels"),
        ("labels[2]", "params.labels[2]"),
        ("template", "params.options.hypothesis_template"),
    ],
)
def test_the_engines_names_of_fields(param: str, told: str) -> None:
    reply = sie.PLUGIN.fault(errors.BadRequest("x", param=param))
    assert read(reply)["detail"]["param"] == told


@pytest.mark.parametrize("name", [CARD.name, f"{CARD.name}:default", "minilm"])
def test_names_with_slashes_and_a_profile(name: str) -> None:
    """Which profiles there are is the engine's to know; the name comes back as it was."""
    assert decode(f"/v1/encode/{name}", BODY).model == name
    assert read(ask("POST", f"/v1/encode/{name}", BODY))["model"] == name


def test_a_profile_is_read_in_the_options() -> None:
    options = {"options": {"profile": "mine"}}
    for path, body in (
        (ENCODE, {**BODY, "params": options}),
        (SCORE, {"query": {"text": "a"}, **BODY, **options}),
        (f"/v1/extract/{CARD.name}", {**BODY, "params": options}),
    ):
        task = decode(path, body)
        assert isinstance(task, Encode | Score | Extract)
        assert task.profile == "mine"


def test_an_unknown_profile_of_the_name_is_told_as_the_models() -> None:
    reply = ask("POST", f"{ENCODE}:secret", BODY)
    assert reply.status == 400
    assert read(reply)["detail"]["param"] == "model"
    assert "it has default" in read(reply)["detail"]["message"]
    assert b"secret" not in reply.body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"items": []}, "items"),
        ({"items": None}, "items"),
        ({"items": [{"text": 3}]}, "items[0].text"),
        ({"items": [{}]}, "items[0].text"),
        ({"items": [{"images": [{"data": 3}]}]}, "items[0].images[0]"),
        ({"items": [{"images": ["not base64"]}]}, "items[0].images[0]"),
        ({"items": [{"text": "a"}] * 2049}, "items"),
        ({"params": {"output_types": ["sparse"]}}, "params.output_types"),
        ({"params": {"output_dtype": "secret"}}, "params.output_dtype"),
        ({"params": {"options": {"profile": "secret"}}}, "params.options.profile"),
        ({"params": {"options": {"normalize": "secret"}}}, "params.options.normalize"),
        ({"params": {"options": {"dimensions": 0}}}, "params.options.dimensions"),
        ({"params": {"options": {"dimensions": 9999}}}, "params.options.dimensions"),
        ({"params": {"options": {"overflow_policy": "secret"}}}, "params.options.overflow_policy"),
        ({"params": {"options": {"max_seq_length": 0}}}, "params.options.max_seq_length"),
    ],
)
@pytest.mark.parametrize("headers", [JSON, PACKED], ids=["json", "msgpack"])
def test_a_wrong_field(fields: dict[str, Any], param: str, headers: dict[str, str]) -> None:
    body = {**BODY, **fields}
    raw = msgspec.json.encode(body) if headers is JSON else _msgpack.write(body)
    reply = ask("POST", ENCODE, raw, headers)
    assert reply.status == 400
    assert reply.headers["content-type"] == "application/json"
    assert read(reply)["detail"]["code"] == "INVALID_INPUT"
    assert read(reply)["detail"]["param"] == param
    assert b"secret" not in reply.body


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry"),
    [
        (errors.UnknownModel("x"), 404, "MODEL_NOT_FOUND", None),
        (errors.TooLong("x"), 400, "INPUT_TOO_LONG", None),
        (errors.BadRequest("x"), 400, "INVALID_INPUT", None),
        (errors.Unsupported("x"), 400, "INVALID_INPUT", None),
        (errors.Overloaded("x"), 503, "QUEUE_FULL", "1"),
        (errors.Overloaded("x", retry_after=3), 503, "QUEUE_FULL", "3"),
        (errors.Loading("x", retry_after=5), 503, "MODEL_LOADING", "5"),
        (errors.LoadFailed("x", cause="GATED"), 502, "MODEL_LOAD_FAILED", None),
        (errors.LoadFailed("x", cause="OOM", retry_after=60), 502, "MODEL_LOAD_FAILED", None),
        (errors.LoadFailed("x", cause="DEPENDENCY"), 409, "DEPENDENCY_CONFLICT", None),
        (errors.LoadingAdapter("x", retry_after=1), 503, "LORA_LOADING", "1"),
        (errors.ModelFailed("x"), 500, "INFERENCE_ERROR", None),
        (errors.Fault("x"), 500, "INTERNAL_ERROR", None),
    ],
)
def test_faults(fault: Fault, status: int, code: str, retry: str | None) -> None:
    reply = sie.PLUGIN.fault(fault)
    assert reply.status == status
    assert read(reply)["detail"]["code"] == read(reply)["code"] == code
    assert reply.headers["x-sie-error-code"] == code
    assert reply.headers.get("retry-after") == retry


IMAGE = b"\x89PNG"
MEDIA = [
    ("audio", {"data": IMAGE}),
    ("video", {"data": IMAGE}),
    ("document", {"data": IMAGE, "format": "pdf"}),
]


@pytest.mark.parametrize("text", [{}, {"text": "beside"}])
@pytest.mark.parametrize(("name", "value"), MEDIA)
def test_what_no_model_here_reads_is_refused_by_name(name: str, value: Any, text: Any) -> None:
    body = {"items": [{**text, name: value}]}
    reply = ask("POST", ENCODE, _msgpack.write(body), PACKED)
    assert reply.status == 400
    assert read(reply)["detail"]["param"] == f"items[0].{name}"
    assert name in read(reply)["detail"]["message"]
    plain = msgspec.json.encode(body)  # bytes as base64
    assert read(ask("POST", ENCODE, plain, JSON))["detail"] == read(reply)["detail"]
    scored = {"query": body["items"][0], "items": [{"text": "a"}]}
    assert read(ask("POST", SCORE, scored))["detail"]["param"] == f"query.{name}"


@pytest.mark.parametrize("given", [IMAGE, {"data": IMAGE, "format": "jpeg"}])
def test_pictures_are_bytes_or_base64_whatever_they_say_they_are(given: Any) -> None:
    body = {"items": [{"images": [given], "id": "a"}, {"text": "b", "images": [given, given]}]}
    picture = Image(Blob(IMAGE))
    for raw, headers in ((_msgpack.write(body), PACKED), (msgspec.json.encode(body), JSON)):
        call = Call("POST", ENCODE, raw, {"id": CARD.name}, headers=headers)
        task = sie.decode_encode(call)
        assert isinstance(task, Encode)
        assert [item.parts for item in task.items] == [
            (picture,),
            (Text("b"), picture, picture),
        ]


EXT = msgspec.msgpack.Ext(78, np.ones(2, np.float32).tobytes())


@pytest.mark.parametrize(
    "item",
    [
        {"multivector": EXT},
        {"multivector": _msgpack.pack_array(np.ones((2, 2), np.float32))},
        {"metadata": {"when": msgspec.msgpack.Ext(-1, b"\x00")}, "more": {b"bytes": [1]}},
        {"images": [], "document": None},
    ],
)
def test_what_is_not_known_of_an_item_is_ignored(item: dict[str, Any]) -> None:
    body = {"items": [{"text": "hello there", **item}], "more": EXT}
    body["params"] = {"threshold": 1, "options": {"more": EXT}}
    reply = unpack(ask("POST", ENCODE, _msgpack.write(body), PACKED))
    (found,) = reply["items"]
    values = unpack_array(found["dense"]["values"])
    np.testing.assert_array_equal(values, vector("hello there", CARD.dims or 0))


def test_another_machine_or_pool_that_is_asked_for_is_no_reason_to_refuse() -> None:
    elsewhere = {"x-sie-machine-profile": "l4", "x-sie-pool": "mine"}
    assert read(ask("POST", ENCODE, BODY, {**JSON, **elsewhere})) == read(ask("POST", ENCODE, BODY))


def test_the_clients_version_comes_back() -> None:
    for sent, answered in (("0.10.1", "0.10.1"), ("0.3", "0.3"), ("x\r\ny", None), ("", None)):
        reply = ask("POST", ENCODE, BODY, {**JSON, "x-sie-sdk-version": sent})
        assert reply.headers.get("x-sie-server-version") == answered
    assert reply.headers["x-sie-units-input-tokens"] == "3"


def test_every_kind_of_vector_is_written() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    sparse = Sparse(np.array([5, 70000], np.int64), np.array([0.5, 0.25], np.float32))
    output = Vectors(np.ones(2, np.float32), sparse, rows)
    call = Call("POST", ENCODE, headers=PACKED)
    task = Encode((Item((Text("a"),)),), CARD.name, kinds=("dense", "sparse", "multivector"))
    card = msgspec.structs.replace(CARD, sparse_dims=250002, token_dims=2)
    reply = unpack(sie.encode_encode(call, task, Result(card, (output,), dims=2)))
    (item,) = reply["items"]
    assert {kind: made["dtype"] for kind, made in item.items()} == dict.fromkeys(
        ("dense", "sparse", "multivector"), "float32"
    )
    indices = unpack_array(item["sparse"]["indices"])
    assert (item["sparse"]["dims"], indices.dtype, indices.tolist()) == (250002, "<i4", [5, 70000])
    assert unpack_array(item["sparse"]["values"]).tolist() == [0.5, 0.25]
    assert (item["multivector"]["token_dims"], item["multivector"]["num_tokens"]) == (2, 3)
    np.testing.assert_array_equal(unpack_array(item["multivector"]["values"]), rows)
    plain = read(
        sie.encode_encode(Call("POST", ENCODE, headers=JSON), task, Result(card, (output,)))
    )
    assert plain["items"][0]["sparse"]["indices"] == [5, 70000]
    assert plain["items"][0]["multivector"]["values"] == rows.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bytes_of_many_rows_per_item(dtype: Dtype) -> None:
    rng = np.random.default_rng(0)
    lengths = (1, 300, 7)
    rows = [quantise(rng.standard_normal((n, 128), np.float32), dtype) for n in lengths]
    items = tuple(Item((Text("a"),), id=str(n)) for n in lengths)
    task = Encode(items, CARD.name, dtype=dtype, kinds=("multivector",))
    card = msgspec.structs.replace(CARD, token_dims=128)
    result = Result(card, tuple(Vectors(multivector=one) for one in rows), dtype=dtype)
    reply = sie.encode_encode(Call("POST", ENCODE, headers=PACKED), task, result)
    written = [
        {
            "id": str(len(one)),
            "multivector": {
                "token_dims": 128,
                "num_tokens": len(one),
                "dtype": "binary" if dtype == "ubinary" else dtype,
                "values": {
                    b"nd": True,
                    b"type": one.dtype.newbyteorder("<").str,
                    b"kind": b"",
                    b"shape": list(one.shape),
                    b"data": one.tobytes(),
                },
            },
        }
        for one in rows
    ]
    assert msgspec.msgpack.encode({**unpack(reply), "items": written}) == reply.body


def test_half_precision_is_the_only_type_that_changes_sparse_values() -> None:
    sparse = Sparse(np.array([5], np.int32), np.array([0.1], np.float32))
    for dtype, expected in (("float16", np.float16), ("int8", np.float32), ("binary", np.float32)):
        task = Encode((Item((Text("a"),)),), CARD.name, kinds=("sparse",))
        result = Result(CARD, (Vectors(sparse=sparse),), dtype=dtype)  # type: ignore[arg-type]
        reply = unpack(sie.encode_encode(Call("POST", ENCODE, headers=PACKED), task, result))
        values = unpack_array(reply["items"][0]["sparse"]["values"])
        assert values.dtype == expected
        assert reply["items"][0]["sparse"]["dtype"] == np.dtype(expected).name
        assert "dense" not in reply["items"][0]


@pytest.mark.parametrize("path", [ENCODE, SCORE, EXTRACT])
@pytest.mark.parametrize("value", [b"\x80", b"\x90", b"\xa0"], ids=["map", "list", "text"])
def test_a_packed_body_of_a_million_values_is_not_read(path: str, value: bytes) -> None:
    many = b"\xdd" + (1 << 20).to_bytes(4, "big") + value * (1 << 20)
    body = b"\x81" + msgspec.msgpack.encode("items") + many
    reply = ask("POST", path, body, PACKED)
    assert reply.status == 413
    assert read(reply)["detail"]["code"] == "INPUT_TOO_LONG"


def test_a_packed_body_of_many_long_items_is_read() -> None:
    items = [{"id": str(i), "text": f"text {i} " * 20} for i in range(2000)]
    assert (
        len(unpack(ask("POST", ENCODE, _msgpack.write({"items": items}), PACKED))["items"]) == 2000
    )


@pytest.mark.parametrize("options", [{}, {"pooling": None, "unknown": 1}, {"normalize": True}])
def test_what_is_heeded_or_unknown_is_not_told_as_ignored(options: dict[str, Any]) -> None:
    reply = ask("POST", ENCODE, {**BODY, "params": {"options": options}})
    assert "x-omnivec-ignored" not in reply.headers


def test_what_sie_would_follow_and_nothing_here_does_is_told() -> None:
    options = {"pooling": "cls", "query_template": "query: {text}", "muvera": {}}
    told = "pooling, query_template, muvera"
    scored = {"query": {"text": "a"}, **BODY, "options": options}
    for path, body in ((ENCODE, {**BODY, "params": {"options": options}}), (SCORE, scored)):
        for headers in (JSON, {**JSON, "accept": "*/*"}):
            assert ask("POST", path, body, headers).headers["x-omnivec-ignored"] == told
    schema = {"labels": ["a"], "output_schema": {"type": "object"}}
    reply = ask("POST", EXTRACT, {**BODY, "params": schema})
    assert reply.headers["x-omnivec-ignored"] == "output_schema"


@pytest.mark.parametrize("name", ["lora_id", "lora"])
def test_an_adapter_for_an_extraction_is_refused_and_not_left_out(name: str) -> None:
    params = {"labels": ["a"], "options": {name: "secret"}}
    reply = ask("POST", EXTRACT, {**BODY, "params": params})
    assert (reply.status, read(reply)["detail"]["param"]) == (400, "params.options.lora_id")
    assert b"secret" not in reply.body
