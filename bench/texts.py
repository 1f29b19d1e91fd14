"""What is sent: windows cut from real passages, the same for every server and every run.

Each body is another text, so that nobody is paid for having seen it before.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.places import MODELS, XQUAD

LANGUAGES = ("en", "de", "zh")
SHORT = 2  # letters of pieces that are no words
NAME = "m"  # what every server is told to call its model


def words() -> list[str]:
    """The English passages in a row; without them, words of the default model's vocabulary."""
    corpus = XQUAD / "beir-en" / "corpus.jsonl"
    if corpus.exists():
        return " ".join(_field(corpus)).split()
    from bench.models import default_model

    pieces = (default_model() / "vocab.txt").read_text(encoding="utf-8").split()
    plain = [piece for piece in pieces if piece.isalpha() and len(piece) > SHORT]
    return random.Random(0).choices(plain, k=30_000)


def windows(size: int, count: int, seed: int = 0) -> list[str]:
    """`count` texts of `size` words; beyond the corpus's length it is repeated."""
    source = words()
    while len(source) < 2 * size:
        source = source + source
    chosen = random.Random(f"{size}-{count}-{seed}")
    starts = (chosen.randrange(len(source) - size) for _ in range(count))
    return [" ".join(source[at : at + size]) for at in starts]


def corpus() -> list[str]:
    """Every passage and question of XQuAD in three languages, shuffled; [] without the data."""
    folders = [XQUAD / f"beir-{language}" for language in LANGUAGES]
    if not all(folder.exists() for folder in folders):
        return []
    texts = [
        text
        for folder in folders
        for name in ("corpus.jsonl", "queries.jsonl")
        for text in _field(folder / name)
    ]
    random.Random(0).shuffle(texts)
    return texts


def _field(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def sample() -> list[str]:
    """The texts whose vectors are compared: short, middle, long, and in three languages."""
    return [*windows(12, 12, 1), *windows(100, 8, 1), *corpus()[:24], *windows(400, 4, 1)]


def tokens(of: list[str]) -> float:
    """The mean number of the default model's tokens of these texts."""
    from tokenizers import Tokenizer

    from bench.models import default_model

    coder = Tokenizer.from_file(str(default_model() / "tokenizer.json"))
    coder.no_truncation()
    coder.no_padding()
    return sum(len(one.ids) for one in coder.encode_batch(of)) / len(of)


def embed_body(texts: list[str]) -> bytes:
    """Of pictures too, as data URIs; the field that says so is Infinity's."""
    told: dict[str, Any] = {"model": NAME, "input": texts[0] if len(texts) == 1 else texts}
    if texts[0].startswith("data:"):
        told["modality"] = "image"
    return json.dumps(told, ensure_ascii=False).encode()


def rerank_body(query: str, documents: list[str]) -> bytes:
    told = {"model": NAME, "query": query, "documents": documents, "return_documents": False}
    return json.dumps(told, ensure_ascii=False).encode()


def write(name: str, bodies: Iterable[bytes]) -> Path:
    """One body a line."""
    path = MODELS / "bodies" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(bodies) + b"\n")
    return path
