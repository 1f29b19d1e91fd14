"""One call through a dialect, with a small fixed engine between decode and encode.

    reply = ask("POST", "/v1/embeddings", {"input": "hello"})

`python tests/dialects/dialogue.py` records the replies of tests/golden again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from omnivec.core.errors import (
    AbsentFile,
    BadRequest,
    Fault,
    NotFound,
    UnknownModel,
    Unsupported,
    WrongMedium,
)
from omnivec.core.nouns import (
    Call,
    Card,
    Class,
    Describe,
    Encode,
    Extract,
    Findings,
    Item,
    Limits,
    Manifest,
    Output,
    Relevance,
    Reply,
    Result,
    Score,
    Task,
    Text,
    Timing,
    Usage,
    Vectors,
    Video,
)
from omnivec.core.plugins import discover
from omnivec.core.quantise import quantise
from omnivec.core.seams import Dialect, Endpoint
from omnivec.engine.wishes import settle
from omnivec.server.door import placed

GOLDEN = Path(__file__).parents[1] / "golden"
DIALECTS: dict[str, Dialect] = discover("dialects")
JSON = {"content-type": "application/json", "accept": "application/json"}
WIDTH = 128
CARD = Card(
    name="sentence-transformers/all-MiniLM-L6-v2",
    architecture="bert",
    tasks=("encode", "score"),
    dims=WIDTH,
    kinds=("dense",),
    max_tokens=256,
    prompts={"query": "q: "},
    pooling="mean",
    scoring="cosine",
    aliases=("minilm",),
    runtime="openvino",
    device="cpu",
    dtype="f32",
    state="loaded",
    reason="/home/somebody/secret/path is damaged",
    created=1700000000,
)
NAMES = {CARD.name, "minilm", "bge-m3"}


class Asked(NamedTuple):
    dialect: Dialect
    endpoint: Endpoint
    call: Call


def route(
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str] | None = None,
    speaker: str = "openai",
) -> Asked:
    """As the server does it: what the profile's dialect keeps to itself before all, an exact
    path before a template, who recognises before who not."""
    found = []
    for dialect in DIALECTS.values():
        for endpoint in dialect.endpoints:
            if endpoint.own and dialect.name != speaker:
                continue
            for prefix in dialect.prefixes:
                params = _params(prefix + endpoint.path, path)
                if endpoint.method == method and params is not None:
                    call = Call(method, endpoint.path, body, params, {}, headers or JSON)
                    found.append((Asked(dialect, endpoint, call), len(params)))
    found.sort(key=lambda pair: (pair[1], pair[0].endpoint.recognises is None))
    found.sort(key=lambda pair: not pair[0].endpoint.own)
    for asked, _ in found:
        if asked.endpoint.recognises is None or asked.endpoint.recognises(_fields(body)):
            return asked
    raise NotFound("nothing here")


def _params(template: str, path: str) -> dict[str, str] | None:
    pattern = re.sub(r"\\{(\w+):path\\}", r"(?P<\1>.+)", re.escape(template))
    match = re.fullmatch(pattern, path)
    return match.groupdict() if match else None


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return {}


def decode(path: str, body: Any, limits: Limits | None = None) -> Task:
    """The task that a POST becomes; `body` is bytes or something to write as JSON."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    asked = route("POST", path, raw)
    return asked.endpoint.decode(_limited(asked.call, limits))


def ask(
    method: str,
    path: str,
    body: Any = b"",
    headers: dict[str, str] | None = None,
    limits: Limits | None = None,
    speaker: str = "openai",
) -> Reply:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    asked = route(method, path, raw, headers, speaker)
    call = _limited(asked.call, limits)
    try:
        task = asked.endpoint.decode(call)
        return asked.endpoint.encode(call, task, work(task))
    except Fault as fault:
        return asked.dialect.fault(placed(fault, asked.endpoint.items))


def _limited(call: Call, limits: Limits | None) -> Call:
    return msgspec.structs.replace(call, limits=limits) if limits else call


def read(reply: Reply) -> Any:
    return msgspec.json.decode(reply.body)


# ── the engine ───────────────────────────────────────────────────────────────────────────


def work(task: Task) -> Result:
    if task.model is not None and task.model.partition(":")[0] not in NAMES:
        raise UnknownModel("No such model here.", param="model")
    if isinstance(task, Describe):
        return Result(CARD, cards=(CARD,))
    task = settle(task, CARD)
    _check_images(task)
    outputs, tokens, cut = _outputs(task)
    usage = Usage(tokens=tokens, items=len(task.items), truncated=cut)
    timing = Timing(total=0.0125)
    if not isinstance(task, Encode):
        ranker = msgspec.structs.replace(CARD, scoring="cross-encoder")
        return Result(ranker, outputs, usage=usage, timing=timing)
    dims, dtype = task.dims or WIDTH, task.dtype or "float32"
    return Result(CARD, outputs, usage=usage, timing=timing, dims=dims, dtype=dtype)


def _outputs(task: Encode | Score | Extract) -> tuple[tuple[Output, ...], int, int]:
    texts = [text for item in task.items for text in _texts(task, item)]
    tokens = sum(len(text.split()) for text in texts)
    cut = sum(len(text.split()) > CARD.max_tokens for text in texts)
    if isinstance(task, Encode):
        if task.dims is not None and task.dims > WIDTH:
            raise Unsupported(f"This model's vectors can have 1 to {WIDTH}.", param="dims")
        if not set(task.kinds) <= set(CARD.kinds):
            raise Unsupported("This model makes dense vectors only.", param="kinds")
        dtype = task.dtype or "float32"
        rows = [quantise(vector(text, task.dims or WIDTH), dtype) for text in texts]
        return tuple(map(Vectors, rows)), tokens, cut
    if isinstance(task, Extract):
        found = [classes(task, text) for text in texts]
        return tuple(map(Findings, found)), tokens, cut
    query = set(_text(task.query).lower().split())
    return tuple(relevance(query, text) for text in texts), tokens, cut


def _check_images(task: Encode | Score | Extract) -> None:
    """As the engine: items by their place, a query by its name."""
    named = [(f"[{i}]", item) for i, item in enumerate(task.items)]
    named += [("query", task.query)] if isinstance(task, Score) else []
    for param, item in named:
        for part in item.parts:
            video = isinstance(part, Video | Manifest)
            if "refused" in str(getattr(part, "source", "")):
                raise WrongMedium(
                    f"This model takes text; it cannot read {'videos' if video else 'images'}.",
                    param=param,
                    medium="video" if video else "image",
                )
            if "absent" in str(getattr(part, "source", "")):
                raise AbsentFile("There is no such file here.", param=param)
            if "broken" in str(getattr(part, "source", "")):
                raise BadRequest("This is not a picture that can be read.", param=param)


def _texts(task: Encode | Score | Extract, item: Item) -> list[str]:
    """One for each output: of a video that is told by its frames, as many as were asked for."""
    part = item.parts[0] if item.parts else None
    if isinstance(task, Encode) and task.each_frame and isinstance(part, Video | Manifest):
        indexes = part.clip.indexes or range(part.clip.frames) if isinstance(part, Video) else "ab"
        return [f"frame {index}" for index in indexes]
    return [_text(item)]


def _text(item: Item) -> str:
    return " ".join(part.text if isinstance(part, Text) else "image" for part in item.parts)


def vector(text: str, dims: int) -> np.ndarray:
    """float32 [dims] of +-1/8, told by the text's bytes: the same digits on every machine,
    and of unit length at 64 dimensions."""
    letters = np.frombuffer((text.encode() or b"-").ljust(8, b"-"), np.uint8)
    mixed = np.resize(letters.astype(np.int64), WIDTH) * np.arange(1, WIDTH + 1)
    return (((mixed >> 2) % 2) / 4 - 0.125).astype(np.float32)[:dims]


def relevance(query: set[str], text: str) -> Relevance:
    share = len(query & set(text.lower().split())) / max(1, len(query))
    return Relevance(value=share, raw=share * 8 - 4)


def classes(task: Extract, text: str) -> tuple[Class, ...]:
    """Each label's share of its letters in the text, best first."""
    there = set(text.lower())
    found = [Class(one, len(there & set(one)) / len(set(one))) for one in task.labels]
    kept = [one for one in found if one.score >= (task.threshold or 0)]
    return tuple(sorted(kept, key=lambda one: -one.score)[: task.top])


# ── recorded exchanges ───────────────────────────────────────────────────────────────────


class Exchange(NamedTuple):
    """`METHOD path`, headers, a blank line, the body; `---`; then the same with a status."""

    path: Path
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    reply: str


def exchanges() -> list[Exchange]:
    return [_exchange(path) for path in sorted(GOLDEN.glob("*/*.http"))]


def _exchange(path: Path) -> Exchange:
    request, _, reply = path.read_text("utf-8").partition("\n---\n")
    head, _, body = request.partition("\n\n")
    first, *lines = head.splitlines()
    method, _, target = first.partition(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Exchange(path, method, target, headers, body.strip().encode(), reply)


def replay(exchange: Exchange) -> str:
    """The reply as it stands in the file. An answer's id is another one each time."""
    speaker = exchange.path.parent.name
    reply = ask(exchange.method, exchange.target, exchange.body, exchange.headers, speaker=speaker)
    lines = [str(reply.status), *(f"{name}: {value}" for name, value in reply.headers.items())]
    body = re.sub(r"(rerank|infinity)-[0-9a-f-]{32,}", r"\1-0", reply.body.decode())
    body = re.sub(r'("id":"infinity-0","created":)\d+', r"\g<1>0", body)
    body = re.sub(r'"id":"[0-9a-f]{32}"', '"id":"0"', body)
    return "\n".join([*lines, "", body]) + "\n"


def record() -> None:
    for exchange in exchanges():
        request = exchange.path.read_text("utf-8").partition("\n---\n")[0]
        exchange.path.write_text(f"{request}\n---\n{replay(exchange)}", "utf-8")


if __name__ == "__main__":
    record()
