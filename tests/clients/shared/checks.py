"""What every Python client's checks share. Standard library only: it runs in each client's
own environment, and speaks HTTP for itself so that it can tell what the client should see.

    python calls.py GUARDED OPEN        two base URLs: with the key below, and without any
    python calls.py GUARDED OPEN COLD   and that of a server whose only model is still loading
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import sys
import time
import traceback
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GUARDED, OPEN = sys.argv[1:3]
COLD = sys.argv[3] if sys.argv[3:] else ""
KEY = "sk-omnivec-client-checks"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DIMS = 384
RERANKER = "tiny/cross-encoder"
CLASSIFIER = "tiny/nli"
EMOTIONS = "tiny/emotions"  # a classifier with labels of its own
LABELS = ["animal", "finance", "music"]
THREEFOLD = "BAAI/bge-m3"  # random weights, 32 numbers a vector
BM25 = "omnivec/bm25"
TOLERANCE = 1e-6

FOX = "The quick brown fox jumps over the lazy dog."
TEXTS = [
    FOX,
    "Déjà vu: naïve façade, 12 €.",
    "快速的棕色狐狸跳过懒狗。",
    "emoji 🦊🐶 and\ttabs, <|endoftext|> in the middle",
    "a longer one " * 40,
]
QUERY = "How do neural networks learn?"
DOCUMENTS = [
    "The stock market experienced a downturn in the third quarter.",
    "Neural networks adjust their weights through backpropagation.",
    "Photosynthesis converts sunlight into chemical energy.",
    "Deep learning uses gradient descent to minimize a loss.",
]
BEST = {1, 3}  # the two documents that any encoder must put first


def post(path: str, body: Any, key: str | None = KEY) -> tuple[int, Any]:
    """Status and decoded JSON of a plain POST to the guarded server."""
    headers = {"content-type": "application/json", "accept": "application/json"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(GUARDED + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def plain_vectors(texts: Sequence[str], **fields: Any) -> list[list[float]]:
    """The float reply of /v1/embeddings: what each client's vectors must equal."""
    body = {"model": MODEL, "input": list(texts), "encoding_format": "float", **fields}
    status, reply = post("/v1/embeddings", body)
    assert status == 200, reply
    return [item["embedding"] for item in reply["data"]]


def plain_scores(model: str | None = MODEL) -> dict[int, float]:
    """Relevance of each of DOCUMENTS, by index, as /v1/rerank answers it. `model` None is a
    request that names none."""
    body = {"model": model, "query": QUERY, "documents": DOCUMENTS}
    status, reply = post("/v1/rerank", body)
    assert status == 200, reply
    return {item["index"]: item["relevance_score"] for item in reply["results"]}


def same_vectors(got: Sequence[Sequence[float]], want: Sequence[Sequence[float]]) -> None:
    assert len(got) == len(want), f"{len(got)} vectors, expected {len(want)}"
    for row, (left, right) in enumerate(zip(got, want, strict=True)):
        assert len(left) == len(right), f"[{row}]: {len(left)} numbers, not {len(right)}"
        apart = max(abs(a - b) for a, b in zip(left, right, strict=True))
        assert apart <= TOLERANCE, f"[{row}]: {apart:.2e} apart"


def same_scores(got: Sequence[tuple[int, float]], want: dict[int, float], top: int) -> None:
    """`got`: (index, score) as the client returned them, best first."""
    best = sorted(want, key=lambda index: -want[index])[:top]
    assert [index for index, _ in got] == best, f"{got} against {want}"
    for index, score in got:
        assert abs(score - want[index]) <= TOLERANCE, f"[{index}]: {score} is not {want[index]}"


def same_classes(got: Sequence[tuple[str, float]]) -> None:
    """`got`: what an NLI model makes of FOX and LABELS, best first."""
    status, reply = post(
        f"/v1/extract/{CLASSIFIER}", {"items": [{"text": FOX}], "params": {"labels": LABELS}}
    )
    assert status == 200, reply
    wanted = [(one["label"], one["score"]) for one in reply["items"][0]["classifications"]]
    assert {label for label, _ in wanted} == set(LABELS)
    assert [label for label, _ in got] == [label for label, _ in wanted]
    for (_, left), (_, right) in zip(got, wanted, strict=True):
        assert abs(left - right) <= TOLERANCE


def shortened(vector: Sequence[float], dims: int) -> list[float]:
    """The first `dims` numbers, scaled back to length one."""
    length = math.sqrt(sum(number * number for number in vector[:dims]))
    return [number / length for number in vector[:dims]]


def caught(act: Callable[[], Any]) -> Exception:
    """The exception that `act` must raise."""
    try:
        value = act()
    except Exception as error:  # noqa: BLE001 - the caller judges its class
        return error
    raise AssertionError(f"nothing was raised; the answer was {value!r:.200}")


def raised(kind: type[Exception], act: Callable[[], Any]) -> Any:
    """The exception of that very class that `act` must raise."""
    error = caught(act)
    assert type(error) is kind, f"{kind.__name__} expected, not {error!r:.300}"
    return error


def main(names: dict[str, Any]) -> None:
    """Run the caller's `check_*` functions, print a line for each and a summary, and exit
    with 1 when one failed."""
    failed = 0
    checks = list(_checks(names))
    for name, check in checks:
        began = time.perf_counter()
        trouble = _run(check)
        failed += trouble is not None
        print(f"{'FAIL' if trouble else 'ok':4} {name} ({time.perf_counter() - began:.2f} s)")
        if trouble:
            print(trouble)
    print(f"{len(checks) - failed} passed, {failed} failed", flush=True)
    sys.exit(failed > 0 or not checks)


def _checks(names: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    return ((name, value) for name, value in names.items() if name.startswith("check_"))


def _run(check: Callable[[], Any]) -> str | None:
    """The traceback of a check that failed."""
    try:
        outcome = check()
        if inspect.isawaitable(outcome):
            asyncio.run(_awaited(outcome))
    except Exception:  # noqa: BLE001 - whatever a client raises is a failed check, not an end
        return traceback.format_exc()
    return None


async def _awaited(outcome: Any) -> Any:
    return await outcome
