"""infinity-client, whose paths are at the root, against a running omnivec. See
../shared/checks.py."""

from __future__ import annotations

import checks
from checks import DOCUMENTS, KEY, MODEL, QUERY, TEXTS, plain_vectors, same_scores, same_vectors
from infinity_client import AuthenticatedClient, Client
from infinity_client.api.default import classify, embeddings, health, models, rerank
from infinity_client.models import ClassifyInput, OpenAIEmbeddingInputText, RerankInput

client = AuthenticatedClient(base_url=checks.GUARDED, token=KEY, timeout=60)


def ranked(**fields):
    body = RerankInput(query=QUERY, documents=DOCUMENTS, **fields)
    return rerank.sync(client=client, body=body)


def pairs(reply):
    return [(result.index, result.relevance_score) for result in reply.results]


def check_rerank():
    for model in (MODEL, checks.RERANKER):
        reply = ranked(model=model)
        same_scores(pairs(reply), checks.plain_scores(model), top=4)
        assert reply.object_.value == "rerank"
        assert reply.usage.total_tokens > 0


def check_rerank_returns_documents_as_strings():
    reply = ranked(model=MODEL, return_documents=True, top_n=2)
    same_scores(pairs(reply), checks.plain_scores(), top=2)
    assert [result.document for result in reply.results] == [
        DOCUMENTS[index] for index, _ in pairs(reply)
    ]


def check_rerank_with_its_default_model_name():
    same_scores(pairs(ranked()), checks.plain_scores(None), top=4)


def check_embeddings():
    """The client sends `dimensions: 0` when nobody set any, and means "all"."""
    body = OpenAIEmbeddingInputText(input_=TEXTS, model=MODEL)
    reply = embeddings.sync(client=client, body=body)
    same_vectors([item.embedding for item in reply.data], plain_vectors(TEXTS))


def check_classify():
    body = ClassifyInput(input_=TEXTS, model=checks.EMOTIONS)
    reply = classify.sync(client=client, body=body)
    assert reply.object_.value == "classify"
    assert len(reply.data) == len(TEXTS)
    for found in reply.data:
        assert len(found) == 3
        assert abs(sum(one.score for one in found) - 1) < 1e-5
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def check_models():
    reply = models.sync(client=client)
    assert {MODEL, checks.RERANKER} <= {model.id for model in reply.data}
    (model,) = (model for model in reply.data if model.id == MODEL)
    assert model.owned_by.value == "infinity"
    assert "embed" in model.capabilities


def check_health_and_metrics():
    told = health.sync(client=client)
    assert told["unix"] > 1.7e9
    printed = client.get_httpx_client().get("/metrics").text
    assert "http_request_duration_seconds" in printed


def check_where_no_key_is_set():
    body = OpenAIEmbeddingInputText(input_=TEXTS, model=MODEL)
    reply = embeddings.sync(client=Client(base_url=checks.OPEN, timeout=60), body=body)
    same_vectors([item.embedding for item in reply.data], plain_vectors(TEXTS))


if __name__ == "__main__":
    checks.main(globals())
