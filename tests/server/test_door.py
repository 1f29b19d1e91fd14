from __future__ import annotations

import asyncio
import json
import logging

import msgspec
import pytest
from serving import CARD, OPENAI, TinyEngine, Wire, embeddings, models

from omnivec.core.errors import Overloaded, TooLong, UnknownModel, Unsupported
from omnivec.core.nouns import Call, Clip, Limits, Reply
from omnivec.core.plugins import discover
from omnivec.core.seams import Endpoint
from omnivec.core.settings import Settings
from omnivec.server.door import Door, placed
from omnivec.server.metrics import Metrics

INPUTS = Wire("synesis", embeddings(recognises=lambda fields: "inputs" in fields))


async def page(_call: Call) -> Reply:
    return Reply(b'"a page"')


def door(*dialects, engine=None, **settings) -> Door:
    named = {dialect.name: dialect for dialect in dialects or (OPENAI,)}
    return Door(named, engine or TinyEngine(), settings=Settings(**settings), metrics=Metrics())


def ask(at: Door, body: object = None, path: str = "/v1/embeddings", **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body or {"input": "hi"}).encode()
    found = {"host": "localhost", **{name.replace("_", "-"): v for name, v in headers.items()}}
    return asyncio.run(at.answer(Call("POST", path, raw, headers=found)))


def get(at: Door, path: str, method: str = "GET", **headers: str) -> Reply:
    return asyncio.run(at.answer(Call(method, path, headers={"host": "localhost", **headers})))


def test_a_call_is_decoded_run_and_encoded():
    reply = ask(door(), {"input": ["a", "bb"]})
    assert reply.status == 200
    vectors = [entry["embedding"] for entry in json.loads(reply.body)["data"]]
    assert vectors == [[1, 1, 0, 0], [2, 1, 0, 0]]


def test_a_page_of_another_site_is_not_served():
    at = door()
    assert ask(at, origin="https://evil.example").status == 403
    assert ask(at, origin="https://evil.example", authorization="Bearer any").status == 200
    assert ask(at, origin="http://127.0.0.1:3000").status == 200
    assert ask(at).status == 200


def test_times_are_told_in_milliseconds():
    headers = ask(door()).headers
    assert headers["x-tokenization-time"] == "1.00"
    assert headers["x-queue-time"] == "2.00"
    assert headers["x-inference-time"] == "3.00"
    assert float(headers["x-total-time"]) >= 0
    assert "x-omnivec-ignored" not in headers


def test_what_was_ignored_or_cut_is_told():
    headers = ask(door(), {"input": ["ignored", "long"]}).headers
    assert headers["x-omnivec-ignored"] == "instruction"
    assert headers["x-omnivec-truncated"] == "1/2"


def test_what_a_dialect_cannot_tell_the_engine_stands_before_what_that_ignored():
    at = door(*discover("dialects").values(), dialect="sie")
    body = {"items": [{"text": "ignored"}], "params": {"options": {"pooling": "cls"}}}
    headers = ask(at, body, f"/v1/encode/{CARD.name}").headers
    assert headers["x-omnivec-ignored"] == "pooling, instruction"


def test_a_dialects_prefixes_are_one_path_to_it():
    at = door(Wire("openai", embeddings(), models("/v1/models/{id:path}"), prefixes=("", "/api")))
    assert json.loads(ask(at, path="/api/v1/embeddings/").body)["path"] == "/v1/embeddings/"
    reply = get(at, "/api/v1/models/BAAI/bge-m3")
    assert json.loads(reply.body)["params"] == {"id": "BAAI/bge-m3"}


@pytest.mark.parametrize("order", [(OPENAI, INPUTS), (INPUTS, OPENAI)])
def test_a_shared_path_is_told_apart_by_the_body(order):
    at = door(*order)
    # the second dialect reads nothing but `input`, so its own fault shows that it was asked
    assert "synesis" in json.loads(ask(at, {"inputs": ["a"]}).body)
    assert "data" in json.loads(ask(at, {"input": "a"}).body)
    assert "openai" in json.loads(ask(at, {"neither": 1}).body)


@pytest.mark.parametrize("body", [{"neither": 1}, {"dimension": 64}])
def test_an_object_with_nothing_that_is_needed_is_spoken_of_by_the_default_dialect(body):
    at = door(OPENAI, INPUTS, dialect="synesis")
    assert "synesis" in json.loads(ask(at, body).body)
    assert "data" in json.loads(ask(at, {"input": "a", **body}).body)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
def test_synesis_answers_an_empty_object_where_it_is_the_default_dialect(path):
    at = door(*discover("dialects").values(), dialect="synesis")
    reply = ask(at, b"{}", path)
    assert reply.status == 422
    assert "detail" in json.loads(reply.body)
    assert "error" in json.loads(ask(door(*discover("dialects").values()), b"{}", path).body)


@pytest.mark.parametrize(
    ("items", "param", "told"),
    [
        ("input", "[3]", "input[3]"),
        ("input", "[3].image", "input[3].image"),
        (("a", "b"), "[1]", "b"),
        (("a", "b"), "query", "query"),
        ("", "[3]", "[3]"),
        ("input", None, None),
    ],
)
def test_an_item_at_fault_has_the_name_that_the_request_gave_it(items, param, told):
    fault = TooLong("Too long.", param=param, retry_after=1)
    found = placed(fault, items)
    assert (type(found), found.param, found.message) == (TooLong, told, "Too long.")
    assert found.retry_after == 1
    assert fault.param == param


def test_a_dialect_is_told_the_fields_own_path():
    engine = Refusing()
    engine.fault = TooLong("Too long.", param="[1]")
    at = door(Wire("openai", embeddings(items="input")), engine=engine)
    assert json.loads(ask(at).body)["param"] == "input[1]"


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b'{"a":' * 100_000, b'"x"'])
def test_a_body_that_is_nobodys_is_spoken_of_by_the_default_dialect(body):
    for speaker in ("openai", "synesis"):
        reply = ask(door(OPENAI, INPUTS, dialect=speaker), body)
        assert reply.status == 400
        assert speaker in json.loads(reply.body)


def test_a_path_where_every_dialect_recognises_its_own_refuses_the_rest():
    at = door(OPENAI, Wire("tei", embeddings("/rerank", recognises=lambda f: "texts" in f)))
    reply = ask(at, {"documents": []}, "/rerank")
    assert reply.status == 400
    assert "tei" in json.loads(reply.body)


def test_two_dialects_that_claim_one_path_are_refused_at_the_start():
    with pytest.raises(RuntimeError, match="claimed by 'openai' and 'other'"):
        door(OPENAI, Wire("other", embeddings()))


def test_a_page_cannot_take_a_dialects_path():
    with pytest.raises(RuntimeError, match="two routes"):
        door().add_page("/v1/models", page)


def test_an_unknown_path_and_a_wrong_method_are_spoken_of_by_the_default_dialect():
    at = door(INPUTS, OPENAI)
    reply = get(at, "/nowhere")
    assert (reply.status, json.loads(reply.body)["code"]) == (404, "not_found")
    assert "openai" in json.loads(reply.body)
    reply = get(at, "/v1/embeddings", "DELETE")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert "openai" in json.loads(reply.body)
    assert "synesis" in json.loads(get(door(INPUTS, OPENAI, dialect="synesis"), "/no").body)


class Refusing(TinyEngine):
    async def run(self, task):
        raise self.fault


@pytest.mark.parametrize(
    "fault", [Overloaded("The queue is full.", retry_after=1), Unsupported("No.", param="dims")]
)
def test_an_engines_fault_is_the_dialects_to_tell(fault):
    engine = Refusing()
    engine.fault = fault
    reply = ask(door(engine=engine))
    assert reply.status == fault.status
    assert json.loads(reply.body)["code"] == fault.code


def test_any_other_exception_is_logged_and_told_by_its_id_alone(caplog):
    with caplog.at_level(logging.ERROR):
        reply = ask(door(), {"input": "bug"}, x_request_id="mine-7")
    assert reply.status == 500
    said = json.loads(reply.body)
    assert said["code"] == "model_failed"
    assert "mine-7" in said["openai"]
    assert "secret" not in reply.body.decode()
    assert "mine-7" in caplog.text
    assert "a secret of the machine" in caplog.text


def test_a_sane_request_id_is_kept_and_any_other_replaced():
    at = door()
    assert ask(at, x_request_id="abc-1.2/3").headers["x-request-id"] == "abc-1.2/3"
    made = [
        ask(at, x_request_id=given).headers["x-request-id"]
        for given in ("", "x" * 129, "caf\xe9", "a\tb", "a\x00b")
    ]
    assert len(set(made)) == len(made)
    assert not {"", "x" * 129, "caf\xe9", "a\tb", "a\x00b"} & set(made)


def test_with_keys_everything_but_the_open_paths_needs_one():
    at = door(api_keys=("k",))

    async def page(_call: Call) -> Reply:
        return Reply(b"open")

    at.add_page("/live", page)
    at.add_page("/metrics", page)
    assert get(at, "/live").status == 200
    assert get(at, "/live/").status == 200
    for path in ("/metrics", "/v1/models", "/nowhere", "//live", "/live/../metrics"):
        reply = get(at, path)
        assert (path, reply.status) == (path, 401)
        assert reply.headers["www-authenticate"] == "Bearer"
    assert get(at, "/metrics", authorization="Bearer k").status == 200
    assert get(at, "/nowhere", authorization="Bearer k").status == 404


def test_the_body_is_not_fetched_before_the_key_was_checked():
    async def main() -> tuple[int, int]:
        fetched = []

        async def read() -> bytes:
            fetched.append(1)
            return b'{"input": "a"}'

        at = door(api_keys=("k",))
        headers = {"host": "localhost"}
        refused = await at.answer(Call("POST", "/v1/embeddings", headers=headers), read)
        assert not fetched
        headers["x-api-key"] = "k"
        answered = await at.answer(Call("POST", "/v1/embeddings", headers=headers), read)
        assert fetched
        return refused.status, answered.status

    assert asyncio.run(main()) == (401, 200)


def test_a_foreign_host_is_refused_on_loopback_without_keys():
    reply = get(door(), "/v1/models", host="rebound.example")
    assert reply.status == 400
    assert get(door(api_keys=("k",)), "/v1/models", host="rebound.example").status == 401


def test_the_doors_numbers_move():
    at = door()
    ask(at, {"input": ["a", "long"]})
    ask(at, {"input": "bug"})
    ask(at, {"input": "a", "model": "unknown"})
    work = at.metrics.work[CARD.name, "embeddings"]
    assert (work.requests, work.items, work.tokens, work.truncated) == (1, 2, 6, 1)
    codes = {code: count for (_, _, code), count in at.metrics.errors.items()}
    assert codes == {"model_failed": 1, "model_not_found": 1}
    assert at.metrics.traffic["/v1/embeddings", "POST"].statuses == [0, 0, 1, 0, 1, 1]
    assert at.metrics.in_flight == 0


def test_a_server_without_dialects_is_refused():
    with pytest.raises(RuntimeError, match="dialect"):
        Door({}, TinyEngine(), settings=Settings(), metrics=Metrics())


REAL = discover("dialects")


@pytest.mark.parametrize(
    ("body", "status", "first"),
    [
        ({"input": ["text " * 20] * 1000}, 200, "object"),
        ({"inputs": [{"text": "text " * 20}] * 1000}, 200, "embeddings"),
        ({"input": [1] * 70_000}, 400, "error"),
        ({"inputs": [{}] * 70_000}, 422, "detail"),
        ({"input": "text " * 20_000}, 200, "object"),
        (b'{"input": "' + b"a" * 70_000, 400, "error"),
        (b"\xff" * 70_000, 400, "error"),
    ],
    ids=str,
)
def test_a_large_body_is_read_by_its_own_dialect(body: object, status: int, first: str):
    reply = ask(door(*REAL.values()), body, content_type="application/json")
    assert reply.status == status
    assert next(iter(json.loads(reply.body))) == first


def test_a_large_body_of_another_type_is_refused():
    reply = ask(door(*REAL.values()), {"input": "a" * 70_000}, content_type="text/plain")
    assert reply.status == 415


SIZES = pytest.mark.parametrize("size", [10, 2**20])
FORM = "multipart/form-data; boundary=x"


@SIZES
@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/encode/tiny/model", "/v2/embed"])
def test_a_form_where_none_is_read_is_told_where_they_are(path: str, size: int):
    at = door(*REAL.values())
    reply = ask(at, b"--x" + b"\xff" * size, path, content_type=FORM)
    assert reply.status == (400 if "encode" in path else 415)  # SIE's clients know no 415
    assert b"Forms are read where embeddings are asked for, at /v1/embeddings;" in reply.body
    json.loads(reply.body)


@SIZES
@pytest.mark.parametrize(
    ("path", "kind", "told"),
    [
        ("/v1/embeddings", "image/jpeg", b"as a form: `curl -F file=@cat.jpg`"),
        ("/v1/embeddings", "Application/Octet-Stream", b"as a form: `curl -F file=@cat.jpg`"),
        ("/v1/embeddings", "application/x-www-form-urlencoded", b"Send the body as JSON"),
        ("/v1/embeddings", "text/plain; charset=utf-8", b"Send the body as JSON"),
        ("/v1/rerank", "image/jpeg", b"Send the body as JSON"),
    ],
)
def test_a_bare_file_is_another_content_type(path: str, kind: str, told: bytes, size: int):
    at = door(*REAL.values())
    reply = ask(at, b"\xff\xd8" + b"\0" * size, path, content_type=kind)
    assert reply.status == 415
    assert told in reply.body


def own(path: str) -> Endpoint:
    return msgspec.structs.replace(models(path), own=True, encode=lambda *_: Reply(b'"its own"'))


@pytest.mark.parametrize(
    ("speaker", "listed", "health"),
    [("openai", "data", "a page"), ("intel", "its own", "its own")],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_path_of_its_own_is_answered_under_the_dialects_profile(speaker, listed, health, turned):
    both = [Wire("openai", embeddings(), models(), models("/models")),
            Wire("intel", own("/models"), own("/health"))]  # fmt: skip
    at = door(*(reversed(both) if turned else both), dialect=speaker)
    at.add_page("/health", page)
    for path, told in (("/models", listed), ("/health", health), ("/v1/models", "data")):
        reply = get(at, path)
        assert reply.status == 200
        assert told in json.loads(reply.body)
    templates = [route.template for route in at.routes]
    assert len(templates) == len(set(templates))


def test_intels_paths_beside_the_others():
    dialects = discover("dialects").values()
    intel, openai = door(*dialects, dialect="intel"), door(*dialects)
    assert "current_model" in json.loads(get(intel, "/models").body)
    assert json.loads(get(intel, "/health").body) == {"status": "healthy"}
    assert "data" in json.loads(get(intel, "/v1/models").body)
    assert "data" in json.loads(get(openai, "/models").body)
    assert get(openai, "/health").status == 404  # here no page has it
    for at in (intel, openai):
        assert get(at, "/model/current").status == 200
        typed = ask(at, {"input": {"type": "text", "text": ["hi"]}}, "/embeddings")
        assert json.loads(typed.body)["embedding"] == [[2, 1, 0, 0]]
        assert "data" in json.loads(ask(at, {"input": ["hi"]}, "/embeddings").body)
        assert json.loads(ask(at, {"input": {"type": "text"}}, "/embeddings").body)["detail"]
    assert "detail" in json.loads(ask(intel, {"text": "hi"}, "/embeddings").body)
    assert "error" in json.loads(ask(openai, {"text": "hi"}, "/embeddings").body)


@pytest.mark.parametrize(("speaker", "field"), [("sie", "detail"), ("openai", "error")])
def test_that_there_is_no_such_model_is_told_in_the_profiles_words(speaker, field):
    engine = Refusing()
    engine.fault = UnknownModel("No such model here.", param="model")
    dialects = discover("dialects").values()
    for path in ("/v1/models/none", "/v1/models/org/none"):
        reply = get(door(*dialects, dialect=speaker, engine=engine), path)
        assert reply.status == 404
        assert json.loads(reply.body)[field]["code"] == "MODEL_NOT_FOUND"
    found = [get(door(*dialects, dialect=one), "/v1/models/any").body for one in ("sie", "openai")]
    assert found[0] == found[1]


def test_what_a_request_leaves_open_of_a_video_comes_from_the_settings():
    at = door(video_start=1.5, video_duration=-1, video_frames=8, max_items=7, default_dims=2)
    assert at.limits == Limits(7, 2, Clip(start=1.5, duration=None, frames=8))
    assert door(video_duration=0).limits.clip.duration == 0
    assert door().limits == Limits()
