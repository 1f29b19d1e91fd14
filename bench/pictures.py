"""Pictures through CLIP ViT-B/32 in one process: ours beside sentence-transformers', on the
same pictures and random weights, and where our time goes.

python -m bench.pictures [REPEATS]
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bench import models, photos
from bench.figures import Spread, ratios
from bench.processes import processor, tree
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Pixels, Unit
from omnivec.families.dual_tower import PLUGIN as FAMILY
from omnivec.media import data_uri
from omnivec.media.image_decoder import Decoder
from omnivec.runtimes.openvino import PLUGIN as RUNTIME

COUNT = 32
THREADS = 2
DTYPE = "bf16"  # of the shares
SECONDS = 1.0
OURS, THEIRS = ("int8", "bf16", "f32"), ("bf16", "f32")

Run: TypeAlias = Callable[[Sequence[Any]], Any]


class Rates(NamedTuple):
    """Pictures for each second that passed, and for each second of a processor."""

    wall: dict[int, float]
    cpu: dict[int, float]


def decode(file: bytes) -> Any:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def ours(folder: Path, dtype: str) -> Any:
    found = Checkpoint("clip", folder)
    graphs = FAMILY.graphs(found).items()
    return FAMILY.ready(
        found, {name: RUNTIME.open(found, name, head, "cpu", dtype) for name, head in graphs}
    )


def embed(model: Any, pictures: Sequence[Any]) -> list[Any]:
    """As the server does: as many batches at once as there are streams."""
    parts = [pictures[at :: model.streams] for at in range(model.streams)]
    done: list[Any] = [None] * len(parts)

    def work(at: int) -> None:
        units = [Unit(parts=(Pixels(one),)) for one in parts[at]]
        done[at] = model.forward(model.prepare(units))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(parts))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return done


def theirs(folder: Path, dtype: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    return SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": kind}
    )


def runs(folder: Path) -> Iterator[tuple[str, Run]]:
    """Each by its name; they take decoded pictures."""
    from PIL import Image

    for dtype in OURS:
        model = ours(folder, dtype)
        yield f"omnivec {dtype}", lambda every, model=model: embed(model, every)
    for dtype in THEIRS:
        peer = theirs(folder, dtype)
        yield (
            f"sentence-transformers {dtype}",
            lambda every, peer=peer: peer.encode(
                [Image.fromarray(one) for one in every], batch_size=COUNT, show_progress_bar=False
            ),
        )


def measure(every: Mapping[str, Run], files: Sequence[bytes], repeats: int) -> dict[str, Rates]:
    """One after the other in each repeat, from files and from decoded pictures."""
    decoded = [decode(file) for file in files]
    ways: dict[str, Callable[[], Any]] = {}
    for name, run in every.items():
        ways[name] = lambda run=run: run(decoded)
        ways[f"{name}, from JPEG"] = lambda run=run: run([decode(file) for file in files])
        run(decoded)
    found = {name: Rates({}, {}) for name in ways}
    for repeat in range(repeats):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            found[name].wall[repeat] = len(files) / (time.perf_counter() - wall)
            found[name].cpu[repeat] = len(files) / (time.process_time() - cpu)
    return found


def measure_shares(repeats: int) -> Iterator[dict[str, Any]]:
    """Samples: milliseconds of processor time that each part of the way from a data URI to a
    vector takes for one picture, the process that decodes included."""
    files, every = photos.files(COUNT), photos.uris(COUNT)
    model, decoder = ours(models.folder("clip"), DTYPE), Decoder()
    try:
        decoded = [decoder.decode(file, _admit) for file in files]
        units = [Unit(parts=(one,)) for one in decoded]
        features = model.prepare(units)
        steps: dict[str, Callable[[], Any]] = {
            "base64": lambda: [data_uri.read(one, "image/") for one in every],
            "decode": lambda: [decoder.decode(file, _admit) for file in files],
            "prepare": lambda: model.prepare(units),
            "inference": lambda: model.forward(features),
        }
        for repeat in range(repeats):
            about = {"suite": "shares", "server": "omnivec", "repeat": repeat}
            for name, step in steps.items():
                yield {**about, "workload": name, "cpu_ms": _milliseconds(step) / len(files)}
    finally:
        decoder.close()
        model.close()


def _admit(pixels: int) -> None:
    """Any number of them."""


def _milliseconds(step: Callable[[], Any]) -> float:
    """Of a second or so of it, since a child's time is told in hundredths."""
    step()
    times, began, spent = 0, time.monotonic(), _processor()
    while time.monotonic() - began < SECONDS:
        step()
        times += 1
    return 1e3 * (_processor() - spent) / times


def _processor() -> float:
    """Seconds of processor time of this process and its children."""
    children = tree(os.getpid())[1:]
    return time.process_time() + sum(map(processor, children))


def main(repeats: int = 5) -> None:
    folder, files = models.folder("clip"), photos.files(COUNT)
    found = measure(dict(runs(folder)), files, repeats)
    best = found["sentence-transformers f32"]  # what it takes unless it is told otherwise
    print("| | pictures/s | of one processor | times sentence-transformers f32 |")
    print("|---|---:|---:|---:|")
    for name, rates in found.items():
        wall, cpu = Spread.of(rates.wall.values()), Spread.of(rates.cpu.values())
        if wall and cpu:
            times = statistics.median(ratios(rates.wall, best.wall))
            print(f"| {name} | {wall.median:.1f} | {cpu.median:.1f} | {times:.2f} |")
    for sample in measure_shares(1):
        print(f"{sample['workload']}: {sample['cpu_ms']:.2f} ms of a processor for each")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
