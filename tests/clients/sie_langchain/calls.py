"""LangChain over SIE's SDK (sie-langchain) against a running omnivec. See ../shared/checks.py."""

from __future__ import annotations

import checks
from checks import (
    DOCUMENTS,
    FOX,
    KEY,
    MODEL,
    QUERY,
    TEXTS,
    plain_scores,
    plain_vectors,
    same_scores,
    same_vectors,
)
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from sie_langchain import SIEEmbeddings, SIEExtractor, SIEReranker, SIESparseEncoder
from sie_sdk.client.errors import RequestError


def embeddings(**told):
    return SIEEmbeddings(base_url=checks.GUARDED, api_key=KEY, model=MODEL, **told)


def documents():
    return [Document(text, metadata={"at": at}) for at, text in enumerate(DOCUMENTS)]


def check_a_query_and_documents():
    same_vectors([embeddings().embed_query(FOX)], plain_vectors([FOX]))
    same_vectors(embeddings().embed_documents(TEXTS), plain_vectors(TEXTS))


async def check_async():
    model = embeddings()
    same_vectors(await model.aembed_documents(TEXTS), plain_vectors(TEXTS))
    same_vectors([await model.aembed_query(FOX)], plain_vectors([FOX]))
    await model.async_client.close()


def check_numbers_of_another_type():
    (found,) = embeddings(output_dtype="int8").embed_documents([FOX])
    (wanted,) = plain_vectors([FOX])
    peak = max(map(abs, wanted))
    assert max(abs(a * peak / 127 - b) for a, b in zip(found, wanted, strict=True)) < peak / 120


def check_a_vector_store_finds_what_belongs_together():
    store = InMemoryVectorStore.from_documents(documents(), embeddings())
    found = store.similarity_search(QUERY, k=2)
    assert {one.metadata["at"] for one in found} == checks.BEST


def check_the_reranker():
    ranked = SIEReranker(base_url=checks.OPEN, model=MODEL, top_k=3)
    found = ranked.compress_documents(documents(), QUERY)
    got = [(one.metadata["at"], one.metadata["relevance_score"]) for one in found]
    same_scores(got, plain_scores(), 3)


async def check_the_reranker_async():
    ranked = SIEReranker(base_url=checks.OPEN, model=checks.RERANKER)
    found = await ranked.acompress_documents(documents(), QUERY)
    got = [(one.metadata["at"], one.metadata["relevance_score"]) for one in found]
    same_scores(got, plain_scores(checks.RERANKER), 4)
    await ranked.async_client.close()


def check_sparse_vectors():
    encoder = SIESparseEncoder(base_url=checks.GUARDED, api_key=KEY, model=checks.BM25)
    (asked,) = encoder.encode_queries([QUERY])
    found = [set(one["indices"]) for one in encoder.encode_documents(DOCUMENTS)]
    shared = [len(set(asked["indices"]) & one) for one in found]
    assert shared.index(max(shared)) == 1, shared  # the one that says "neural networks" too


def check_the_extractor_classifies():
    tool = SIEExtractor(base_url=checks.OPEN, model=checks.CLASSIFIER, labels=checks.LABELS)
    found = tool.invoke(FOX)["classifications"]
    checks.same_classes([(one["label"], one["score"]) for one in found])


def check_the_extractor_says_what_the_model_cannot():
    tool = SIEExtractor(base_url=checks.OPEN, model=MODEL, labels=["animal"])
    assert checks.raised(RequestError, lambda: tool.invoke(FOX)).code == "INVALID_INPUT"


if __name__ == "__main__":
    checks.main(globals())
