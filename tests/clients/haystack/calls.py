"""Haystack's OpenAI embedders against a running omnivec. See ../shared/checks.py."""

from __future__ import annotations

import checks
import openai
from checks import FOX, KEY, MODEL, TEXTS, plain_vectors, raised, same_vectors, shortened
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret

SERVER = {"model": MODEL, "api_base_url": checks.GUARDED + "/v1", "api_key": Secret.from_token(KEY)}


def check_a_text():
    found = OpenAITextEmbedder(**SERVER).run(text=FOX)
    same_vectors([found["embedding"]], plain_vectors([FOX]))
    assert found["meta"]["model"] == MODEL
    assert found["meta"]["usage"]["prompt_tokens"] > 8


def check_dimensions():
    found = OpenAITextEmbedder(**SERVER, dimensions=128).run(text=FOX)
    same_vectors([found["embedding"]], [shortened(plain_vectors([FOX])[0], 128)])


def check_documents():
    embedder = OpenAIDocumentEmbedder(**SERVER, batch_size=2, progress_bar=False)
    found = embedder.run(documents=[Document(content=text) for text in TEXTS])
    assert [document.content for document in found["documents"]] == TEXTS
    same_vectors([document.embedding for document in found["documents"]], plain_vectors(TEXTS))


async def check_async():
    embedder = OpenAITextEmbedder(**SERVER)
    found = await embedder.run_async(text=FOX)
    same_vectors([found["embedding"]], plain_vectors([FOX]))


def check_any_key_passes_where_none_is_set():
    anyone = {**SERVER, "api_base_url": checks.OPEN, "api_key": Secret.from_token("x")}
    same_vectors([OpenAITextEmbedder(**anyone).run(text=FOX)["embedding"]], plain_vectors([FOX]))


def check_unknown_model_is_404():
    embedder = OpenAITextEmbedder(**{**SERVER, "model": "no/such-model"})
    raised(openai.NotFoundError, lambda: embedder.run(text=FOX))


if __name__ == "__main__":
    checks.main(globals())
