"""Embeddings of conversations, as vLLM takes them beside OpenAI's input: a vector for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault
from omnivec.core.nouns import Call, Part, Reply, Task, Text
from omnivec.core.seams import Endpoint
from omnivec.dialects import _openai, _wire
from omnivec.dialects._multimodal import Content, parts_of


class ChatMessage(msgspec.Struct, kw_only=True):
    """One turn of a conversation."""

    role: Annotated[str | None, Meta(examples=["user"])] = None
    content: Annotated[Content, Meta(description="A text, or an array of parts.")] = None


class ChatEmbeddingRequest(_openai.Request, kw_only=True):
    """A conversation to turn into a vector, or several, each into its own. What the system says
    is the instruction; the rest is embedded, in its order."""

    messages: Annotated[
        list[ChatMessage | list[ChatMessage]],
        Meta(examples=[[{"role": "user", "content": "A photo of a cat"}]]),
    ]


def is_chat(fields: Mapping[str, msgspec.Raw]) -> bool:
    return "messages" in fields and "input" not in fields


def decode_embeddings(call: Call) -> Task:
    request = _openai.read(call, ChatEmbeddingRequest)
    most = call.limits.items
    found = [
        _conversation(messages, field, most) for messages, field in _conversations(request, most)
    ]
    task = _openai.encode_task(call, request, lambda: [parts for parts, _ in found])
    items = tuple(
        msgspec.structs.replace(item, instruction=item.instruction or told)
        for item, (_, told) in zip(task.items, found, strict=True)
    )
    return msgspec.structs.replace(task, items=items)


def _conversations(request: ChatEmbeddingRequest, most: int) -> list[tuple[list[ChatMessage], str]]:
    """Each with its path: one of messages, or a list of several. Raises BadRequest."""
    _wire.check_count(len(request.messages), most, "messages")
    single = [one for one in request.messages if isinstance(one, ChatMessage)]
    if len(single) == len(request.messages):
        return [(single, "messages")]
    several = [one for one in request.messages if isinstance(one, list)]
    if single:
        raise BadRequest(
            "`messages` must be messages, or arrays of messages, not both.", param="messages"
        )
    return [(one, f"messages[{i}]") for i, one in enumerate(several)]


def _conversation(
    messages: list[ChatMessage], field: str, most: int
) -> tuple[tuple[Part, ...], str | None]:
    """What is embedded, and the instruction. Raises BadRequest."""
    _wire.check_count(len(messages), most, field)
    said: list[Part] = []
    told: list[str] = []
    for i, message in enumerate(messages):
        parts = parts_of(message.content, f"{field}[{i}].content", most)
        texts = [part.text for part in parts if isinstance(part, Text)]
        if message.role == "system" and len(texts) == len(parts):
            told += texts
        else:
            said += parts
    return tuple(said) or (Text(""),), _wire.given("\n".join(told))


class Vllm:
    name = "vllm"
    prefixes = ("/v1", "", "/api/v1", "/openai/v1")
    endpoints = (
        Endpoint(
            method="POST",
            path="/embeddings",
            decode=decode_embeddings,
            encode=_openai.encode_embeddings,
            summary="Turn conversations of texts and images into vectors (vLLM).",
            request=ChatEmbeddingRequest,
            response=_openai.EmbeddingList,
            example={
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "A photo of a cat"}]}
                ]
            },
            recognises=is_chat,
            counted="embeddings",
            items="messages",
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        return _openai.refuse(fault)


PLUGIN = Vllm()
