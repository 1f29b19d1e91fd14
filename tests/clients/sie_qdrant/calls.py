"""Qdrant over SIE's SDK (sie-qdrant) against a running omnivec. See ../shared/checks.py.

The store is Qdrant's own in memory: no server of it is needed.
"""

from __future__ import annotations

import checks
from checks import DOCUMENTS, FOX, MODEL, QUERY, TEXTS, plain_vectors, same_vectors
from qdrant_client import QdrantClient, models
from sie_qdrant import SIENamedVectorizer, SIEVectorizer

# it has no place for a key, so all of it asks the server without one
WHERE = {"base_url": checks.OPEN}


def check_vectors():
    vectorizer = SIEVectorizer(model=MODEL, **WHERE)
    same_vectors(vectorizer.embed_documents(TEXTS), plain_vectors(TEXTS))
    same_vectors([vectorizer.embed_query(FOX)], plain_vectors([FOX]))


def check_dense_search():
    vectorizer = SIEVectorizer(model=MODEL, **WHERE)
    store = QdrantClient(":memory:")
    store.create_collection(
        "texts",
        vectors_config=models.VectorParams(size=checks.DIMS, distance=models.Distance.COSINE),
    )
    vectors = vectorizer.embed_documents(DOCUMENTS)
    points = [models.PointStruct(id=at, vector=vector) for at, vector in enumerate(vectors)]
    store.upsert("texts", points)
    found = store.query_points("texts", vectorizer.embed_query(QUERY), limit=2).points
    assert {point.id for point in found} == checks.BEST


def check_sparse_search_with_qdrants_own_idf():
    """The weights are those of its own BM25: it multiplies the rarity of a word itself."""
    vectorizer = SIENamedVectorizer(model=checks.BM25, output_types=["sparse"], **WHERE)
    store = QdrantClient(":memory:")
    store.create_collection(
        "texts",
        vectors_config={},
        sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    made = vectorizer.embed_documents(DOCUMENTS)
    points = [
        models.PointStruct(id=at, vector={"sparse": models.SparseVector(**one["sparse"])})
        for at, one in enumerate(made)
    ]
    store.upsert("texts", points)
    asked = models.SparseVector(**vectorizer.embed_query(QUERY)["sparse"])
    (found, *_) = store.query_points("texts", asked, using="sparse", limit=2).points
    assert found.id == 1  # the one that says "neural networks" too


def check_three_types_in_one_call():
    types = ["dense", "sparse", "multivector"]
    vectorizer = SIENamedVectorizer(model=checks.THREEFOLD, output_types=types, **WHERE)
    found = vectorizer.embed_documents(TEXTS[:2])
    assert [set(one) for one in found] == [set(types)] * 2
    wanted = plain_vectors(TEXTS[:2], model=checks.THREEFOLD)
    same_vectors([one["dense"] for one in found], wanted)
    for one in found:
        assert len(one["sparse"]["indices"]) == len(one["sparse"]["values"])
        assert {len(row) for row in one["multivector"]} == {len(wanted[0])}


if __name__ == "__main__":
    checks.main(globals())
