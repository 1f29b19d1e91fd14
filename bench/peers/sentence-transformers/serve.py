"""The thinnest server around sentence-transformers: one encode at a time, in a thread.

    python serve.py MODEL PORT [--dtype f32|bf16] [--threads N] [--rerank]

No queue, no batching across requests, no limits: what a person writes in an afternoon.
"""

from __future__ import annotations

import argparse
import base64
import io
import os

os.environ.update(  # noqa: TID251 - a program of its own, not omnivec
    HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false"
)

import anyio
import orjson
import torch
import uvicorn
from PIL import Image
from sentence_transformers import CrossEncoder, SentenceTransformer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def opened(given: str) -> str | Image.Image:
    """A picture where it is a data URI."""
    if not given.startswith("data:"):
        return given
    return Image.open(io.BytesIO(base64.b64decode(given.partition(",")[2])))


def make(told: argparse.Namespace) -> Starlette:
    kind = CrossEncoder if told.rerank else SentenceTransformer
    model = kind(told.model, device="cpu", model_kwargs={"dtype": DTYPES[told.dtype]})
    one = anyio.CapacityLimiter(told.at_once)

    def encode(inputs: list[str]) -> bytes:
        with torch.inference_mode():
            vectors = model.encode(
                list(map(opened, inputs)), batch_size=32, show_progress_bar=False
            )
        data = [
            {"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(vectors)
        ]
        return orjson.dumps({"object": "list", "data": data}, option=orjson.OPT_SERIALIZE_NUMPY)

    def score(query: str, documents: list[str]) -> bytes:
        with torch.inference_mode():
            scores = model.predict([(query, one) for one in documents], show_progress_bar=False)
        ranked = sorted(range(len(documents)), key=lambda at: -scores[at])
        return orjson.dumps(
            {"results": [{"index": at, "relevance_score": float(scores[at])} for at in ranked]}
        )

    async def embeddings(request: Request) -> Response:
        inputs = orjson.loads(await request.body())["input"]
        inputs = [inputs] if isinstance(inputs, str) else inputs
        body = await anyio.to_thread.run_sync(encode, inputs, limiter=one)
        return Response(body, media_type="application/json")

    async def rerank(request: Request) -> Response:
        told = orjson.loads(await request.body())
        body = await anyio.to_thread.run_sync(score, told["query"], told["documents"], limiter=one)
        return Response(body, media_type="application/json")

    return Starlette(
        routes=[
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/rerank", rerank, methods=["POST"]),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("port", type=int)
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--rerank", action="store_true")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    app = make(told)
    uvicorn.run(app, port=told.port, log_level="warning", loop="uvloop", timeout_keep_alive=600)


if __name__ == "__main__":
    main()
