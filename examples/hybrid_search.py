"""Dense, sparse and hybrid search side by side: 1,190 questions about 240 passages.

    python examples/hybrid_search.py                        # fetches XQuAD, 600 KB
    python examples/hybrid_search.py --data xquad.en.json   # or reads your copy

Dense vectors come from the built-in default model, sparse ones from the built-in `omnivec/bm25`.
The latter are weighed by how rare a word is; that belongs to whoever holds the corpus (a vector
store, or this script), because only they know it. nDCG@10 is 1 when every question finds its
passage first.

XQuAD (Artetxe, Ruder and Yogatama, arXiv 1910.11856) is under CC BY-SA 4.0.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omnivec import Engine

DENSE, SPARSE = "sentence-transformers/all-MiniLM-L6-v2", "omnivec/bm25"
COMMIT = "7d30520c717524000f0d9d2f9c10a069acd9d285"
URL = f"https://raw.githubusercontent.com/google-deepmind/xquad/{COMMIT}/xquad.en.json"
SMOOTH = 60  # of reciprocal rank fusion, as its authors chose it


def main() -> None:
    options = parse(sys.argv[1:])
    passages, questions, right = read(options.data or fetch(), options.questions)
    say(f"{len(questions)} questions about {len(passages)} passages")
    with Engine(DENSE, SPARSE) as engine:
        dense = dense_scores(engine, passages, questions)
        sparse = sparse_scores(engine, passages, questions)
    table = {
        "dense": dense,
        "sparse": sparse,
        "both, by rank": by_rank(dense) + by_rank(sparse),
        "both, by score": by_score(dense) + by_score(sparse),
    }
    print(f"{'':16} nDCG@10")
    for name, scores in table.items():
        print(f"{name:16} {ndcg(scores, right):7.4f}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Dense, sparse and hybrid search on XQuAD-en.")
    parser.add_argument("--data", type=Path, help="xquad.en.json; fetched when not given")
    parser.add_argument("--questions", type=int, help="only so many of them")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ── the data ─────────────────────────────────────────────────────────────────────────────


def fetch() -> Path:
    kept = Path.home() / ".cache" / "omnivec" / "xquad.en.json"
    if not kept.is_file():
        say(f"fetching {URL}")
        try:
            with urllib.request.urlopen(URL, timeout=60) as reply:
                body = reply.read()
        except OSError as error:
            sys.exit(f"it could not be fetched ({error}); give your copy of it with --data")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(body)
    return kept


def read(path: Path, most: int | None) -> tuple[list[str], list[str], np.ndarray]:
    """Passages, questions, and for each question the number of its passage."""
    articles = json.loads(path.read_text("utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    asked = [(one["question"], at) for at, found in enumerate(paragraphs) for one in found["qas"]]
    some = asked[:: max(1, len(asked) // most)][:most] if most else asked
    questions, right = zip(*some, strict=True)
    return [found["context"] for found in paragraphs], list(questions), np.array(right)


# ── scores: [questions, passages] ────────────────────────────────────────────────────────


def dense_scores(engine: Engine, passages: list[str], questions: list[str]) -> np.ndarray:
    say("dense vectors ...")
    began = time.perf_counter()
    found = engine.embed(passages, model=DENSE)
    asked = engine.embed(questions, model=DENSE, role="query")
    say(f"... in {time.perf_counter() - began:.1f} s")
    return asked @ found.T


def sparse_scores(engine: Engine, passages: list[str], questions: list[str]) -> np.ndarray:
    say("sparse vectors ...")
    began = time.perf_counter()
    found = engine.encode(passages, kinds=["sparse"], model=SPARSE)
    asked = engine.encode(questions, kinds=["sparse"], model=SPARSE, role="query")
    say(f"... in {time.perf_counter() - began:.1f} s")
    places = sorted({int(place) for one in found for place in one.sparse.indices})
    column = {place: at for at, place in enumerate(places)}
    documents = laid_out(found, column)
    holding = np.count_nonzero(documents, axis=0)
    rarity = np.log(1 + (len(passages) - holding + 0.5) / (holding + 0.5))
    return laid_out(asked, column) @ (documents * rarity).T


def laid_out(vectors: Sequence, column: dict[int, int]) -> np.ndarray:
    """[vectors, words]; a word that no passage has can find none and is left out."""
    matrix = np.zeros((len(vectors), len(column)), np.float32)
    for row, one in zip(matrix, vectors, strict=True):
        for place, value in zip(one.sparse.indices, one.sparse.values, strict=True):
            if int(place) in column:
                row[column[int(place)]] = value
    return matrix


def by_rank(scores: np.ndarray) -> np.ndarray:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): the sum of these."""
    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    return 1 / (SMOOTH + 1 + ranks)


def by_score(scores: np.ndarray) -> np.ndarray:
    """Each question's scores from 0 to 1, so that those of two methods can be added."""
    low = scores.min(axis=1, keepdims=True)
    span = scores.max(axis=1, keepdims=True) - low
    return (scores - low) / np.where(span > 0, span, 1)


def ndcg(scores: np.ndarray, right: np.ndarray) -> float:
    """At 10, where one passage answers the question: 1 / log2(2 + its rank), from rank 0."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    hit = best == right[:, None]
    return float(np.where(hit.any(axis=1), 1 / np.log2(2 + hit.argmax(axis=1)), 0).mean())


if __name__ == "__main__":
    main()
