"""LangChain's OpenAIEmbeddings against a running omnivec. See ../shared/checks.py.

By default it sends cl100k_base token ids, whatever the model is, so equal vectors here mean
that the server turned ids back into the very text.
"""

from __future__ import annotations

import checks
import openai
from checks import FOX, KEY, MODEL, TEXTS, plain_vectors, raised, same_vectors, shortened
from langchain_openai import OpenAIEmbeddings


def embeddings(**fields):
    given = {"base_url": checks.GUARDED + "/v1", "api_key": KEY, "model": MODEL, **fields}
    return OpenAIEmbeddings(**given)


def sent_by(model, texts):
    """The `input` of each request that the library made for `texts`."""
    sent, create = [], model.client.create
    model.client.create = lambda **body: sent.append(body["input"]) or create(**body)
    model.embed_documents(texts)
    return sent


def check_it_does_send_token_ids():
    sent = sent_by(embeddings(), ["hello world"])
    assert sent == [[[15339, 1917]]], sent


def check_a_query():
    same_vectors([embeddings().embed_query(FOX)], plain_vectors([FOX]))


def check_documents():
    same_vectors(embeddings().embed_documents(TEXTS), plain_vectors(TEXTS))


def check_documents_in_many_requests():
    texts = [f"text number {number}" for number in range(40)]
    model = embeddings(chunk_size=7)
    same_vectors(model.embed_documents(texts), plain_vectors(texts))


def check_an_empty_text_among_others():
    texts = ["", FOX, ""]
    same_vectors(embeddings().embed_documents(texts), plain_vectors(texts))


def check_a_text_that_is_cut_into_several_id_lists():
    """Over 8191 ids LangChain splits, embeds the pieces and averages them itself."""
    (vector,) = embeddings().embed_documents(["word " * 9000])
    assert len(vector) == checks.DIMS
    assert abs(sum(number * number for number in vector) - 1) < 1e-5


def check_dimensions():
    vectors = embeddings(dimensions=64).embed_documents(TEXTS)
    same_vectors(vectors, [shortened(vector, 64) for vector in plain_vectors(TEXTS)])


def check_plain_text_when_asked_for():
    model = embeddings(check_embedding_ctx_length=False)
    same_vectors(model.embed_documents(TEXTS), plain_vectors(TEXTS))


async def check_async():
    model = embeddings()
    same_vectors(await model.aembed_documents(TEXTS), plain_vectors(TEXTS))
    same_vectors([await model.aembed_query(FOX)], plain_vectors([FOX]))


def check_the_older_base_url_spelling():
    older = OpenAIEmbeddings(openai_api_base=checks.OPEN + "/v1", openai_api_key="x", model=MODEL)
    same_vectors([older.embed_query(FOX)], plain_vectors([FOX]))


def check_unknown_model_is_404():
    raised(openai.NotFoundError, lambda: embeddings(model="no/such-model").embed_query(FOX))


if __name__ == "__main__":
    checks.main(globals())
