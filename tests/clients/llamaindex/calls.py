"""LlamaIndex's OpenAILikeEmbedding against a running omnivec. See ../shared/checks.py."""

from __future__ import annotations

import checks
import openai
from checks import FOX, KEY, MODEL, TEXTS, plain_vectors, raised, same_vectors, shortened
from llama_index.embeddings.openai_like import OpenAILikeEmbedding


def embedding(**fields):
    given = {"model_name": MODEL, "api_base": checks.GUARDED + "/v1", "api_key": KEY, **fields}
    return OpenAILikeEmbedding(**given)


def check_a_text_and_a_query():
    model = embedding()
    same_vectors([model.get_text_embedding(FOX)], plain_vectors([FOX]))
    same_vectors([model.get_query_embedding(FOX)], plain_vectors([FOX]))


def check_a_batch_in_several_requests():
    texts = [f"text number {number}" for number in range(23)] + TEXTS
    same_vectors(embedding().get_text_embedding_batch(texts), plain_vectors(texts))


def check_newlines_become_spaces_before_they_are_sent():
    same_vectors([embedding().get_text_embedding("one\ntwo")], plain_vectors(["one two"]))


def check_dimensions():
    vectors = embedding(dimensions=96).get_text_embedding_batch(TEXTS)
    same_vectors(vectors, [shortened(vector, 96) for vector in plain_vectors(TEXTS)])


async def check_async():
    model = embedding(num_workers=4)
    same_vectors([await model.aget_text_embedding(FOX)], plain_vectors([FOX]))
    same_vectors([await model.aget_query_embedding(FOX)], plain_vectors([FOX]))
    same_vectors(await model.aget_text_embedding_batch(TEXTS * 5), plain_vectors(TEXTS * 5))


def check_the_default_key_passes_where_none_is_set():
    anyone = OpenAILikeEmbedding(model_name=MODEL, api_base=checks.OPEN + "/v1")
    same_vectors([anyone.get_text_embedding(FOX)], plain_vectors([FOX]))


def check_refusals():
    stranger = embedding(api_key="sk-wrong", max_retries=0)
    raised(openai.AuthenticationError, lambda: stranger.get_text_embedding(FOX))
    unknown = embedding(model_name="no/such-model", max_retries=0)
    raised(openai.NotFoundError, lambda: unknown.get_text_embedding(FOX))


if __name__ == "__main__":
    checks.main(globals())
