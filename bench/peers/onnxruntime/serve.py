"""The thinnest server around ONNX Runtime: tokenizers, one run at a time, in a thread.

    python serve.py GRAPH TOKENIZER LONGEST PORT [--threads N]

Texts of a request are sorted by length and run 32 at a time, as sentence-transformers does.
"""

from __future__ import annotations

import argparse

import anyio
import numpy as np
import onnxruntime
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tokenizers import Tokenizer

BATCH = 32


class Encoder:
    def __init__(self, told: argparse.Namespace) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = told.threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.enable_mem_pattern = False  # lengths vary
        self._session = onnxruntime.InferenceSession(
            told.graph, options, providers=["CPUExecutionProvider"]
        )
        self._names = {one.name for one in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(told.tokenizer)
        self._tokenizer.enable_truncation(told.longest)
        self._tokenizer.no_padding()

    def encode(self, texts: list[str]) -> bytes:
        coded = self._tokenizer.encode_batch(texts)
        order = sorted(range(len(coded)), key=lambda at: -len(coded[at].ids))
        rows: list[np.ndarray] = [np.empty(0)] * len(coded)
        for begin in range(0, len(order), BATCH):
            part = order[begin : begin + BATCH]
            for at, vector in zip(part, self._run([coded[at].ids for at in part]), strict=True):
                rows[at] = vector
        data = [
            {"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)
        ]
        return orjson.dumps({"object": "list", "data": data}, option=orjson.OPT_SERIALIZE_NUMPY)

    def _run(self, rows: list[list[int]]) -> np.ndarray:
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        named = {name: arrays[name] for name in self._names}
        return self._session.run(None, named)[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("graph")
    parser.add_argument("tokenizer")
    parser.add_argument("longest", type=int)
    parser.add_argument("port", type=int)
    parser.add_argument("--threads", type=int, default=2)
    told = parser.parse_args()
    encoder = Encoder(told)
    one = anyio.CapacityLimiter(1)

    async def embeddings(request: Request) -> Response:
        texts = orjson.loads(await request.body())["input"]
        texts = [texts] if isinstance(texts, str) else texts
        body = await anyio.to_thread.run_sync(encoder.encode, texts, limiter=one)
        return Response(body, media_type="application/json")

    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
    uvicorn.run(app, port=told.port, log_level="warning", loop="uvloop", timeout_keep_alive=600)


if __name__ == "__main__":
    main()
