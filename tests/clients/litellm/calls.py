"""LiteLLM, through every provider whose wire omnivec speaks. See ../shared/checks.py."""

from __future__ import annotations

import checks
import litellm
from checks import (
    BEST,
    DOCUMENTS,
    KEY,
    MODEL,
    QUERY,
    TEXTS,
    plain_scores,
    plain_vectors,
    raised,
    same_scores,
    same_vectors,
    shortened,
)

litellm.suppress_debug_info = True
V1 = checks.GUARDED + "/v1"
# Where each provider's users point it: Infinity and TEI at the root, the others at /v1.
RERANK_BASES = {
    "cohere": checks.GUARDED + "/v1/rerank",
    "infinity": checks.GUARDED,
    "hosted_vllm": V1,
    "jina_ai": checks.GUARDED,
    "voyage": V1 + "/rerank",
}


def embedded(model=f"openai/{MODEL}", api_base=V1, texts=TEXTS, **fields):
    return litellm.embedding(model=model, input=texts, api_base=api_base, api_key=KEY, **fields)


def vectors(reply):
    return [item["embedding"] for item in reply.data]


def ranked(provider, model=MODEL, **fields):
    given = {"api_base": RERANK_BASES[provider], "api_key": KEY, "top_n": 3, **fields}
    return litellm.rerank(model=f"{provider}/{model}", query=QUERY, documents=DOCUMENTS, **given)


def pairs(reply):
    return [(result["index"], result["relevance_score"]) for result in reply.results]


def check_embedding_openai():
    reply = embedded()
    same_vectors(vectors(reply), plain_vectors(TEXTS))
    assert reply.usage.prompt_tokens > 0


def check_embedding_dimensions():
    wanted = [shortened(vector, 128) for vector in plain_vectors(TEXTS)]
    allowed = {"dimensions": 128, "allowed_openai_params": ["dimensions"]}
    same_vectors(vectors(embedded(**allowed)), wanted)
    same_vectors(vectors(embedded(**allowed, encoding_format="float")), wanted)


def check_embedding_through_other_providers():
    for model, base in ((f"hosted_vllm/{MODEL}", V1), (f"infinity/{MODEL}", checks.GUARDED)):
        same_vectors(vectors(embedded(model=model, api_base=base)), plain_vectors(TEXTS))


async def check_aembedding():
    reply = await litellm.aembedding(model=f"openai/{MODEL}", input=TEXTS, api_base=V1, api_key=KEY)
    same_vectors(vectors(reply), plain_vectors(TEXTS))


def check_rerank_cohere():
    reranks("cohere")


def check_rerank_infinity():
    reranks("infinity")


def check_rerank_hosted_vllm():
    reranks("hosted_vllm")


def check_rerank_jina_ai():
    reranks("jina_ai")


def check_rerank_voyage():
    reranks("voyage")


def reranks(provider):
    for model in (MODEL, checks.RERANKER):
        reply = ranked(provider, model)
        same_scores(pairs(reply), plain_scores(model), top=3)
        for result in reply.results:
            document = result.get("document")
            if document is not None:
                assert document["text"] == DOCUMENTS[result["index"]], (provider, result)
    assert {index for index, _ in pairs(ranked(provider))[:2]} == BEST


def check_rerank_huggingface_speaks_tei():
    """TEI's wire names no model, so the server's own reranker answers."""
    reply = litellm.rerank(
        model=f"huggingface/{MODEL}",
        query=QUERY,
        documents=DOCUMENTS,
        api_base=checks.GUARDED,
        api_key=KEY,
        top_n=4,
    )
    same_scores(pairs(reply), plain_scores(None), top=4)


async def check_arerank():
    reply = await litellm.arerank(
        model=f"cohere/{MODEL}",
        query=QUERY,
        documents=DOCUMENTS,
        api_base=RERANK_BASES["cohere"],
        api_key=KEY,
    )
    same_scores(pairs(reply), plain_scores(), top=4)


def check_without_a_key_where_none_is_set():
    reply = litellm.rerank(
        model=f"infinity/{MODEL}",
        query=QUERY,
        documents=DOCUMENTS,
        api_base=checks.OPEN,
        api_key="None",
    )
    same_scores(pairs(reply), plain_scores(), top=4)
    reply = litellm.embedding(
        model=f"hosted_vllm/{MODEL}", input=TEXTS, api_base=checks.OPEN + "/v1"
    )
    same_vectors(vectors(reply), plain_vectors(TEXTS))


def check_refusals():
    # LiteLLM tells the two apart by words in the body, not by the status.
    unknown = checks.caught(lambda: embedded(model="openai/no/such-model"))
    assert isinstance(unknown, litellm.NotFoundError | litellm.BadRequestError), repr(unknown)
    assert "MODEL_NOT_FOUND" in str(unknown)
    raised(
        litellm.AuthenticationError,
        lambda: litellm.embedding(
            model=f"openai/{MODEL}", input=TEXTS, api_base=V1, api_key="sk-wrong"
        ),
    )
    raised(litellm.BadRequestError, lambda: embedded(texts=["a"] * 2049))


if __name__ == "__main__":
    checks.main(globals())
