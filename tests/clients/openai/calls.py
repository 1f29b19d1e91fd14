"""openai-python against a running omnivec. See ../shared/checks.py."""

from __future__ import annotations

import asyncio
import base64
import struct

import checks
import openai
from checks import FOX, KEY, MODEL, TEXTS, plain_vectors, raised, same_vectors, shortened

client = openai.OpenAI(base_url=checks.GUARDED + "/v1", api_key=KEY)


def vectors(reply):
    assert [item.index for item in reply.data] == list(range(len(reply.data)))
    return [item.embedding for item in reply.data]


def check_one_text_in_the_default_encoding():
    reply = client.embeddings.create(model=MODEL, input=FOX)
    same_vectors(vectors(reply), plain_vectors([FOX]))
    assert len(reply.data[0].embedding) == checks.DIMS
    assert reply.object == "list"
    assert reply.data[0].object == "embedding"
    assert reply.model == MODEL
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 8


def check_a_batch_keeps_its_order():
    same_vectors(vectors(client.embeddings.create(model=MODEL, input=TEXTS)), plain_vectors(TEXTS))


def check_a_full_batch_of_2048():
    texts = [f"n{number % 64}" for number in range(2048)]
    found = vectors(client.embeddings.create(model=MODEL, input=texts))
    same_vectors(found[:64], plain_vectors(texts[:64]))
    same_vectors(found[-64:], found[:64])


def check_encoding_format_float():
    reply = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    same_vectors(vectors(reply), plain_vectors(TEXTS))


def check_encoding_format_base64_is_little_endian_float32():
    reply = client.embeddings.create(model=MODEL, input=FOX, encoding_format="base64")
    packed = reply.data[0].embedding
    assert isinstance(packed, str), type(packed)
    unpacked = struct.unpack(f"<{checks.DIMS}f", base64.b64decode(packed, validate=True))
    same_vectors([unpacked], plain_vectors([FOX]))


def check_dimensions_cut_and_scale():
    reply = client.embeddings.create(model=MODEL, input=TEXTS, dimensions=128, user="u-1")
    same_vectors(vectors(reply), [shortened(vector, 128) for vector in plain_vectors(TEXTS)])


def check_token_ids_are_cl100k():
    reply = client.embeddings.create(model=MODEL, input=[[15339, 1917], [9906]])
    same_vectors(vectors(reply), plain_vectors(["hello world", "Hello"]))
    alone = client.embeddings.create(model=MODEL, input=[15339, 1917])
    same_vectors(vectors(alone), plain_vectors(["hello world"]))


def check_an_empty_text_is_answered():
    same_vectors(vectors(client.embeddings.create(model=MODEL, input="")), plain_vectors([""]))


def check_extra_fields_are_ignored():
    reply = client.embeddings.create(
        model=MODEL, input=FOX, extra_body={"drop_params": True, "user": None, "whatever": [1]}
    )
    same_vectors(vectors(reply), plain_vectors([FOX]))


def refused(error, code, param=None):
    """The envelope: a message, and the code that the seed's table names."""
    assert error.code == code, error.body
    assert error.param == param, error.body
    assert error.body["message"], error.body
    assert error.type, error.body


def check_unknown_model_is_404():
    error = raised(
        openai.NotFoundError,
        lambda: client.embeddings.create(model="no/such-model", input=FOX),
    )
    refused(error, "MODEL_NOT_FOUND", "model")
    assert "no/such-model" not in error.body["message"]


def check_dimensions_out_of_range_are_422():
    for dims in (0, -1, checks.DIMS + 1):
        error = raised(
            openai.UnprocessableEntityError,
            lambda dims=dims: client.embeddings.create(model=MODEL, input=FOX, dimensions=dims),
        )
        refused(error, "INVALID_REQUEST", "dimensions")


def check_a_batch_over_2048_is_400():
    error = raised(
        openai.BadRequestError,
        lambda: client.embeddings.create(model=MODEL, input=["a"] * 2049),
    )
    refused(error, "INVALID_REQUEST", "input")


def check_a_text_over_the_window_is_cut_and_told():
    reply = client.embeddings.with_raw_response.create(model=MODEL, input=["a " * 600, "b"])
    assert reply.headers["x-omnivec-truncated"] == "1/2"
    assert reply.parse().usage.model_extra["truncated"] == 1


def check_a_text_over_the_window_is_400_when_cutting_was_refused():
    error = raised(
        openai.BadRequestError,
        lambda: client.embeddings.create(
            model=MODEL, input=["b", "a " * 600], extra_body={"truncate": False}
        ),
    )
    refused(error, "INVALID_REQUEST", "input[1]")


def check_an_empty_batch_is_400():
    error = raised(openai.BadRequestError, lambda: client.embeddings.create(model=MODEL, input=[]))
    refused(error, "INVALID_REQUEST", "input")


def check_a_wrong_key_is_401():
    stranger = openai.OpenAI(base_url=checks.GUARDED + "/v1", api_key="sk-wrong")
    for act in (lambda: stranger.embeddings.create(model=MODEL, input=FOX), stranger.models.list):
        assert raised(openai.AuthenticationError, act).body["message"]


def check_any_key_passes_where_none_is_set():
    anyone = openai.OpenAI(base_url=checks.OPEN + "/v1", api_key="whatever")
    reply = anyone.embeddings.create(model=MODEL, input=FOX)
    same_vectors(vectors(reply), plain_vectors([FOX]))


def check_every_base_url_answers():
    for base in ("", "/v1", "/api/v1", "/openai/v1", "/v1/"):
        elsewhere = openai.OpenAI(base_url=checks.GUARDED + base, api_key=KEY)
        reply = elsewhere.embeddings.create(model=MODEL, input=FOX)
        same_vectors(vectors(reply), plain_vectors([FOX]))


def check_models_list():
    models = {model.id: model for model in client.models.list()}
    assert {MODEL, checks.RERANKER} <= set(models), models
    assert models[MODEL].object == "model"
    assert models[MODEL].created > 1_500_000_000
    assert models[MODEL].owned_by


def check_models_retrieve_with_a_percent_encoded_id():
    reply = client.models.with_raw_response.retrieve(MODEL)
    assert "%2F" in str(reply.http_request.url), reply.http_request.url
    model = reply.parse()
    assert (model.id, model.object) == (MODEL, "model")


def check_models_retrieve_unknown_is_404():
    refused(
        raised(openai.NotFoundError, lambda: client.models.retrieve("no/such-model")),
        "MODEL_NOT_FOUND",
        "model",
    )


def check_a_request_id_comes_back():
    reply = client.embeddings.create(model=MODEL, input=FOX)
    assert reply._request_id


async def check_the_async_client_in_parallel():
    async with openai.AsyncOpenAI(base_url=checks.GUARDED + "/v1", api_key=KEY) as parallel:
        replies = await asyncio.gather(
            *(parallel.embeddings.create(model=MODEL, input=text) for text in TEXTS * 4)
        )
        same_vectors([vectors(reply)[0] for reply in replies], plain_vectors(TEXTS) * 4)
        assert MODEL in [model.id async for model in parallel.models.list()]


if __name__ == "__main__":
    checks.main(globals())
