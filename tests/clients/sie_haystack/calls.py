"""Haystack over SIE's SDK (sie-haystack) against a running omnivec. See ../shared/checks.py."""

from __future__ import annotations

import checks
from checks import (
    DOCUMENTS,
    FOX,
    MODEL,
    QUERY,
    TEXTS,
    plain_scores,
    plain_vectors,
    same_scores,
    same_vectors,
)
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from sie_haystack import (
    SIEDocumentEmbedder,
    SIEExtractor,
    SIEMultivectorDocumentEmbedder,
    SIEMultivectorTextEmbedder,
    SIERanker,
    SIESparseDocumentEmbedder,
    SIESparseTextEmbedder,
    SIETextEmbedder,
)
from sie_sdk.client.errors import RequestError

# its components have no place for a key, so all of them ask the server without one
WHERE = {"base_url": checks.OPEN}


def documents(texts):
    return [Document(content=text, meta={"at": at}) for at, text in enumerate(texts)]


def check_a_text():
    found = SIETextEmbedder(model=MODEL, **WHERE).run(text=FOX)
    same_vectors([found["embedding"]], plain_vectors([FOX]))


def check_documents():
    found = SIEDocumentEmbedder(model=MODEL, **WHERE).run(documents=documents(TEXTS))["documents"]
    same_vectors([one.embedding for one in found], plain_vectors(TEXTS))


def check_documents_with_what_is_known_of_them():
    embedder = SIEDocumentEmbedder(model=MODEL, meta_fields_to_embed=["at"], **WHERE)
    found = embedder.run(documents=documents([FOX]))["documents"]
    same_vectors([found[0].embedding], plain_vectors([f"0 {FOX}"]))


def check_a_pipeline_finds_what_belongs_together():
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    embedded = SIEDocumentEmbedder(model=MODEL, **WHERE).run(documents=documents(DOCUMENTS))
    store.write_documents(embedded["documents"])
    line = Pipeline()
    line.add_component("text", SIETextEmbedder(model=MODEL, **WHERE))
    line.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=3))
    line.add_component("ranker", SIERanker(model=MODEL, top_k=2, **WHERE))
    line.connect("text.embedding", "retriever.query_embedding")
    line.connect("retriever.documents", "ranker.documents")
    found = line.run({"text": {"text": QUERY}, "ranker": {"query": QUERY}})
    assert {one.meta["at"] for one in found["ranker"]["documents"]} == checks.BEST


def check_the_ranker():
    for model in (MODEL, checks.RERANKER):
        ranker = SIERanker(model=model, **WHERE)
        found = ranker.run(query=QUERY, documents=documents(DOCUMENTS))["documents"]
        got = [(one.meta["at"], one.meta["score"]) for one in found]
        same_scores(got, plain_scores(model), 4)


def check_sparse_vectors():
    asked = SIESparseTextEmbedder(model=checks.BM25, **WHERE).run(text=QUERY)["sparse_embedding"]
    embedder = SIESparseDocumentEmbedder(model=checks.BM25, **WHERE)
    found = embedder.run(documents=documents(DOCUMENTS))["documents"]
    words = [set(one.meta["_sparse_embedding"]["indices"]) for one in found]
    shared = [len(set(asked["indices"]) & one) for one in words]
    assert shared.index(max(shared)) == 1, shared  # the one that says "neural networks" too


def check_a_vector_for_each_token():
    model = {"model": checks.THREEFOLD, **WHERE}
    rows = SIEMultivectorTextEmbedder(**model).run(text=FOX)["multivector_embedding"]
    found = SIEMultivectorDocumentEmbedder(**model).run(documents=documents([FOX]))["documents"]
    width = len(plain_vectors([FOX], model=checks.THREEFOLD)[0])
    for vectors in (rows, found[0].meta["_multivector_embedding"]):
        assert len(vectors) > 1
        assert {len(row) for row in vectors} == {width}


def check_the_extractor_classifies():
    extractor = SIEExtractor(model=checks.CLASSIFIER, labels=checks.LABELS, **WHERE)
    found = extractor.run(text=FOX)["classifications"]
    checks.same_classes([(one.label, one.score) for one in found])


def check_the_extractor_says_what_the_model_cannot():
    extractor = SIEExtractor(model=MODEL, labels=["animal"], **WHERE)
    error = checks.raised(RequestError, lambda: extractor.run(text=FOX))
    assert error.code == "INVALID_INPUT"


if __name__ == "__main__":
    checks.main(globals())
