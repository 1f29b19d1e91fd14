"""Whether a server's answers are right: compared with sentence-transformers in f32.

    python -m bench.answers MODEL OUT.npy

A row is void below a cosine of 0.999. Vectors of random weights lie close together, so each
one must also be nearer to its own reference than to any other text's.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import models, photos, texts
from bench.places import MODELS, ROOT, environment
from bench.processes import Running

FLOOR = 0.999
# A random cross-encoder blows up what bf16 rounds away: torch's own bf16 has 0.998 here.
SCORE_FLOOR = 0.99
NEARER = 1e-6  # a rounding of the cosine is not a stray
ALONE = 3  # every third text is asked for alone, too
PICTURES = 24
OFF = 0.1  # of a score from 0 to 1
QUERY = "Which team had the best defence of the season, and how many points did it give up?"


class Verdict(NamedTuple):
    """`cosine`: the lowest one; of scores, their correlation. `strays`: vectors that are
    nearer to another text's reference than to their own."""

    cosine: float
    strays: int
    compared: int
    floor: float = FLOOR

    @property
    def right(self) -> bool:
        return self.cosine >= self.floor and self.strays == 0


def texts_of(model: str) -> list[str]:
    """Or pictures, as data URIs."""
    if model == "reranker":
        return texts.windows(100, 50, 3)
    if model == "clip":
        return photos.uris(PICTURES)
    return texts.sample() if model == "default" else texts.sample()[:24]


def reference(model: str) -> np.ndarray:
    """f32[N, D], or f32[N] scores; computed once for these texts, in a process of its own."""
    path = MODELS / "references" / f"{model}-{_digest(texts_of(model))}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bench.answers", model, str(path)]
        subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
    return np.asarray(np.load(path))


def _digest(every: list[str]) -> str:
    return hashlib.sha256(json.dumps(every).encode()).hexdigest()[:12]


def check(server: Running, model: str) -> Verdict:
    """Asks for all texts at once, and for some alone: both must be right."""
    wanted = reference(model)
    if model == "reranker":
        return compare_scores(_scores(server, texts_of(model)), wanted)
    every = texts_of(model)
    together = compare(vectors(server, every), wanted)
    alone = compare(
        np.concatenate([vectors(server, [one]) for one in every[::ALONE]]), wanted[::ALONE]
    )
    return Verdict(
        min(together.cosine, alone.cosine),
        together.strays + alone.strays,
        together.compared + alone.compared,
    )


def vectors(server: Running, of: list[str]) -> np.ndarray:
    answer = json.loads(server.post("/v1/embeddings", texts.embed_body(of)))
    rows = sorted(answer["data"], key=lambda row: row["index"])
    return np.array([row["embedding"] for row in rows], np.float64)


def _scores(server: Running, documents: list[str]) -> np.ndarray:
    answer = json.loads(server.post("/v1/rerank", texts.rerank_body(QUERY, documents)))
    rows = sorted(answer["results"], key=lambda row: row["index"])
    return np.array([row["relevance_score"] for row in rows], np.float64)


def compare(got: np.ndarray, wanted: np.ndarray) -> Verdict:
    """Both f[N, D]. Another number or length of vectors than wanted has a cosine of 0."""
    if got.shape != wanted.shape or not np.isfinite(got).all():
        return Verdict(0.0, len(wanted), len(wanted))
    every = _unit(got) @ _unit(wanted).T
    own = np.diagonal(every)
    # texts that occur twice have the same reference
    strays = int((every.max(1) - own > NEARER).sum())
    return Verdict(float(own.min()), strays, len(wanted))


def compare_scores(got: np.ndarray, wanted: np.ndarray) -> Verdict:
    """Both f[N]: their correlation, and whether they lie on one scale."""
    if got.shape != wanted.shape or not np.isfinite(got).all():
        return Verdict(0.0, len(wanted), len(wanted))
    off = int((np.abs(got - wanted) > OFF).sum())
    if not got.std():
        return Verdict(0.0, off, len(wanted), SCORE_FLOOR)
    correlation = float(np.corrcoef(got, wanted)[0, 1])
    return Verdict(correlation, off, len(wanted), SCORE_FLOOR)


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def write(model: str, out: str) -> None:
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    told: dict[str, Any] = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}}
    folder, every = str(models.folder(model)), texts_of(model)
    if model == "reranker":
        scores = CrossEncoder(folder, **told).predict([(QUERY, text) for text in every])
        np.save(Path(out), np.asarray(scores, np.float32))
        return
    inputs = [_picture(one) for one in every] if model == "clip" else every
    encoded = SentenceTransformer(folder, **told).encode(inputs, batch_size=8)
    np.save(Path(out), np.asarray(encoded, np.float32))


def _picture(uri: str) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


if __name__ == "__main__":
    write(*sys.argv[1:])
