"""LlamaIndex over SIE's SDK (sie-llamaindex) against a running omnivec. See ../shared/checks.py."""

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
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from sie_llamaindex import (
    SIEEmbedding,
    SIENodePostprocessor,
    SIESparseEmbeddingFunction,
    create_sie_extractor_tool,
)
from sie_sdk.client.errors import RequestError

# it has no place for a key, so all of it asks the server without one
WHERE = {"base_url": checks.OPEN}


def embedding(**told):
    return SIEEmbedding(model_name=MODEL, **WHERE, **told)


def check_a_text_a_query_and_a_batch():
    model = embedding(embed_batch_size=3)
    same_vectors([model.get_text_embedding(FOX)], plain_vectors([FOX]))
    same_vectors([model.get_query_embedding(FOX)], plain_vectors([FOX]))
    same_vectors(model.get_text_embedding_batch(TEXTS), plain_vectors(TEXTS))


async def check_async():
    model = embedding()
    same_vectors([await model.aget_text_embedding(FOX)], plain_vectors([FOX]))
    same_vectors([await model.aget_query_embedding(FOX)], plain_vectors([FOX]))
    await model.async_client.close()


def check_an_index_finds_what_belongs_together():
    documents = [Document(text=text, metadata={"at": at}) for at, text in enumerate(DOCUMENTS)]
    index = VectorStoreIndex.from_documents(documents, embed_model=embedding())
    found = index.as_retriever(similarity_top_k=2).retrieve(QUERY)
    assert {one.node.metadata["at"] for one in found} == checks.BEST


def check_the_reranker():
    for model in (MODEL, checks.RERANKER):
        ranked = SIENodePostprocessor(model=model, top_n=3, **WHERE)
        nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
        found = ranked.postprocess_nodes(nodes, QueryBundle(QUERY))
        got = [(DOCUMENTS.index(one.node.text), one.score) for one in found]
        same_scores(got, plain_scores(model), 3)


def check_sparse_vectors():
    encoder = SIESparseEmbeddingFunction(model_name=checks.BM25, **WHERE)
    (asked,), _ = encoder.encode_queries([QUERY])
    indices, values = encoder.encode_documents(DOCUMENTS)
    assert [len(one) for one in indices] == [len(one) for one in values]
    shared = [len(set(asked) & set(one)) for one in indices]
    assert shared.index(max(shared)) == 1, shared  # the one that says "neural networks" too


def check_the_extractor_classifies():
    tool = create_sie_extractor_tool(model=checks.CLASSIFIER, labels=checks.LABELS, **WHERE)
    found = tool.fn(FOX)["classifications"]
    checks.same_classes([(one["label"], one["score"]) for one in found])


def check_the_extractor_says_what_the_model_cannot():
    tool = create_sie_extractor_tool(model=MODEL, labels=["animal"], **WHERE)
    error = checks.raised(RequestError, lambda: tool.fn(FOX))
    assert error.code == "INVALID_INPUT"


if __name__ == "__main__":
    checks.main(globals())
