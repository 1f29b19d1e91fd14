"""What a person reads at the start: what is served, where, and one line to try it with."""

from __future__ import annotations

import json
from collections.abc import Sequence

from omnivec import __version__
from omnivec.core.nouns import Card
from omnivec.core.settings import Settings


def opening(settings: Settings) -> str:
    """Before the models are loaded: the address already answers /live."""
    guarded = "API key needed" if settings.api_keys else "no key needed"
    where = address(settings)
    return f"omnivec {__version__} on {where} ({guarded}), docs at {where}/docs"


def ready(cards: Sequence[Card], settings: Settings, seconds: float) -> str:
    """Once they are: each model in a line, and a curl that works when pasted."""
    lines = [f"ready in {seconds:.1f} s", *(f"  {line(card)}" for card in cards)]
    served = [card for card in cards if card.state == "loaded"]
    if served:
        lines += ["", "Try it:", f"  {curl(served[0], settings)}"]
    return "\n".join(lines)


def line(card: Card) -> str:
    if card.state == "failed":
        return f"{card.name}: not served. {card.reason}"
    facts = [f"{card.runtime} on {card.device}", card.dtype]
    if card.dims:
        facts.append(f"{card.dims} dimensions")
    if card.max_tokens:
        facts.append(f"up to {card.max_tokens} tokens")
    facts.append(
        " and ".join({"encode": "embeds", "score": "reranks"}[task] for task in card.tasks)
    )
    return f"{card.name}: {', '.join(facts)}"


def curl(card: Card, settings: Settings) -> str:
    body: dict[str, object] = {"model": card.name}
    if "encode" in card.tasks:
        path = "/v1/embeddings"
        body |= {"input": "Hello, world"}
    else:
        path = "/v1/rerank"
        body |= {"query": "What is the capital of France?", "documents": ["Paris", "Berlin"]}
    key = ' -H "Authorization: Bearer $OMNIVEC_API_KEY"' if settings.api_keys else ""
    return (
        f"curl {address(settings)}{path}{key} -H 'Content-Type: application/json'"
        f" -d '{json.dumps(body)}'"
    )


def address(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
