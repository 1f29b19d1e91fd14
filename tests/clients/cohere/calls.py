"""The Cohere SDK, v1 and v2 clients, against a running omnivec. See ../shared/checks.py."""

from __future__ import annotations

import checks
import cohere
from checks import BEST, DOCUMENTS, KEY, MODEL, QUERY, plain_scores, raised, same_scores

v1 = cohere.Client(api_key=KEY, base_url=checks.GUARDED)
v2 = cohere.ClientV2(api_key=KEY, base_url=checks.GUARDED)


def pairs(reply):
    return [(result.index, result.relevance_score) for result in reply.results]


def check_v2_ranks():
    reply = v2.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
    same_scores(pairs(reply), plain_scores(), top=4)
    assert {index for index, _ in pairs(reply)[:2]} == BEST


def check_v2_top_n_and_its_other_fields():
    reply = v2.rerank(
        model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2, max_tokens_per_doc=128
    )
    same_scores(pairs(reply), plain_scores(), top=2)
    assert reply.id
    assert reply.meta.billed_units.search_units == 1


def check_v1_ranks_and_returns_documents():
    reply = v1.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=3, return_documents=True)
    same_scores(pairs(reply), plain_scores(), top=3)
    assert [result.document.text for result in reply.results] == [
        DOCUMENTS[index] for index, _ in pairs(reply)
    ]


def check_v1_documents_as_objects():
    documents = [{"text": text, "title": "ignored"} for text in DOCUMENTS]
    reply = v1.rerank(model=MODEL, query=QUERY, documents=documents, rank_fields=["text"])
    same_scores(pairs(reply), plain_scores(), top=4)


def check_a_cross_encoder():
    for client in (v1, v2):
        reply = client.rerank(model=checks.RERANKER, query=QUERY, documents=DOCUMENTS)
        same_scores(pairs(reply), plain_scores(checks.RERANKER), top=4)


def check_v1_without_a_model():
    reply = v1.rerank(query=QUERY, documents=DOCUMENTS)
    same_scores(pairs(reply), plain_scores(None), top=4)


def check_the_async_clients():
    async def ranked():
        one = cohere.AsyncClient(api_key=KEY, base_url=checks.GUARDED)
        two = cohere.AsyncClientV2(api_key=KEY, base_url=checks.GUARDED)
        for client in (one, two):
            reply = await client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
            same_scores(pairs(reply), plain_scores(), top=4)

    return ranked()


def check_refusals():
    for client in (v1, v2):
        error = raised(
            cohere.NotFoundError,
            lambda client=client: client.rerank(
                model="no/such-model", query=QUERY, documents=DOCUMENTS
            ),
        )
        assert error.body, error
    stranger = cohere.ClientV2(api_key="sk-wrong", base_url=checks.GUARDED)
    raised(
        cohere.UnauthorizedError,
        lambda: stranger.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS),
    )


def check_any_key_passes_where_none_is_set():
    anyone = cohere.ClientV2(api_key="whatever", base_url=checks.OPEN)
    reply = anyone.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
    same_scores(pairs(reply), plain_scores(), top=4)


if __name__ == "__main__":
    checks.main(globals())
