"""What a person reads at the start: what is served, where, and one line to try it with."""

from __future__ import annotations

import json
from collections.abc import Sequence

from omnivec import __version__
from omnivec.core.exposure import ANY, address
from omnivec.core.nouns import Card
from omnivec.core.settings import Settings

VERBS = {"encode": "embeds", "score": "reranks", "extract": "classifies"}


def opening(settings: Settings) -> str:
    """Before the models are loaded: the address already answers /live."""
    facts = ["API key needed" if settings.api_keys else "no key needed"]
    if settings.profile is not None:
        facts.append(f"profile {settings.profile}")
    if settings.offline:
        facts.append("offline")
    here = address(settings)
    where = f"on {here}"
    if settings.host in ANY:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host or "*"
        where = f"listening on {host}:{settings.port}; here {here}"
    docs = f"docs at {here}/docs" + (" (a key is the password)" if settings.api_keys else "")
    return f"omnivec {__version__} {where} ({', '.join(facts)}), {docs}"


def ready(
    cards: Sequence[Card], settings: Settings, seconds: float, *, exported: bool = False
) -> str:
    """Once they are: each model in a line, and a curl that works when pasted.

    `exported`: OMNIVEC_API_KEY is set already where the curl will be pasted. Why a model could
    not be loaded the log has said.
    """
    served = [card for card in cards if card.state in ("loaded", "available")]
    if not served:
        told = "no model could be loaded; /ready answers 503"
        away = any(card.cause == "NETWORK" for card in cards)
        return f"{told} until one is; the network is tried again" if away else told
    shown = [card for card in cards if card.state != "available"]
    waiting = len(cards) - len(shown)
    lines = [f"ready in {seconds:.1f} s", *(f"  {line(card)}" for card in shown)]
    if waiting:
        more = "more " if shown else ""
        lines.append(f"  {waiting} {more}when asked for; GET /v1/models lists them")
    lines += ["", "Try it:"]
    if settings.api_keys and not exported:
        lines.append("  export OMNIVEC_API_KEY=...  # one of your keys")
    best = min(served, key=lambda card: card.state != "loaded")
    return "\n".join([*lines, f"  {curl(best, settings)}"])


def line(card: Card) -> str:
    if card.state == "failed":
        return f"{card.name}: not served, see above"
    facts = [f"{card.runtime} on {card.device}", card.dtype]
    if card.dims:
        facts.append(f"{card.dims} dimensions")
    if card.max_tokens:
        facts.append(f"up to {card.max_tokens} tokens")
    facts.append(" and ".join(VERBS[task] for task in card.tasks))
    return f"{card.name}: {', '.join(facts)}"


def curl(card: Card, settings: Settings) -> str:
    body: dict[str, object] = {"model": card.name}
    accept = ""
    if card.kinds and "dense" not in card.kinds:  # which OpenAI's words have no place for
        path = f"/v1/encode/{card.name}"
        body = {"items": [{"text": "Hello, world"}]}
        accept = " -H 'Accept: application/json'"
    elif "encode" in card.tasks or not card.tasks:
        path = "/v1/embeddings"
        body |= {"input": "Hello, world"}
    elif "score" in card.tasks:
        path = "/v1/rerank"
        body |= {"query": "What is the capital of France?", "documents": ["Paris", "Berlin"]}
    else:
        path = f"/v1/extract/{card.name}"
        body = {"items": [{"text": "The match ended in a draw."}]}
        if card.zero_shot:
            body["params"] = {"labels": ["sports", "politics"]}
        accept = " -H 'Accept: application/json'"
    key = ' -H "Authorization: Bearer $OMNIVEC_API_KEY"' if settings.api_keys else ""
    return (
        f"curl {address(settings)}{path}{key} -H 'Content-Type: application/json'{accept}"
        f" -d '{json.dumps(body)}'"
    )
