"""The Voyage SDK against a running omnivec. See ../shared/checks.py."""

from __future__ import annotations

import checks
import voyageai
from checks import DOCUMENTS, KEY, MODEL, QUERY, TEXTS, plain_vectors, same_vectors

client = voyageai.Client(api_key=KEY, base_url=checks.GUARDED + "/v1", timeout=60)


def check_rerank_reads_data():
    for model in (MODEL, checks.RERANKER):
        reply = client.rerank(QUERY, DOCUMENTS, model=model, top_k=2)
        pairs = [(result.index, result.relevance_score) for result in reply.results]
        checks.same_scores(pairs, checks.plain_scores(model), top=2)
        assert [result.document for result in reply.results] == [
            DOCUMENTS[index] for index, _ in pairs
        ]
        assert reply.total_tokens > 0


def check_rerank_everything():
    reply = client.rerank(QUERY, DOCUMENTS, model=MODEL)
    pairs = [(result.index, result.relevance_score) for result in reply.results]
    checks.same_scores(pairs, checks.plain_scores(), top=4)


def check_embed_in_its_default_base64():
    reply = client.embed(TEXTS, model=MODEL)
    same_vectors(reply.embeddings, plain_vectors(TEXTS))
    assert reply.total_tokens > 0


def check_embed_with_a_role():
    """MiniLM has no prompts, so the role changes nothing, and is no error."""
    for role in ("query", "document"):
        reply = client.embed(TEXTS, model=MODEL, input_type=role, truncation=True)
        same_vectors(reply.embeddings, plain_vectors(TEXTS))


def check_embed_output_dimension():
    reply = client.embed(TEXTS, model=MODEL, output_dimension=256)
    wanted = [checks.shortened(vector, 256) for vector in plain_vectors(TEXTS)]
    same_vectors(reply.embeddings, wanted)


async def check_the_async_client():
    parallel = voyageai.AsyncClient(api_key=KEY, base_url=checks.GUARDED + "/v1", timeout=60)
    reply = await parallel.embed(TEXTS, model=MODEL)
    same_vectors(reply.embeddings, plain_vectors(TEXTS))


def check_refusals():
    stranger = voyageai.Client(api_key="sk-wrong", base_url=checks.GUARDED + "/v1")
    assert checks.caught(lambda: stranger.embed(TEXTS, model=MODEL)).http_status == 401
    for act in (
        lambda: client.rerank(QUERY, DOCUMENTS, model="no/such-model"),
        lambda: client.embed(TEXTS, model="no/such-model"),
    ):
        assert checks.caught(act).http_status == 404


if __name__ == "__main__":
    checks.main(globals())
