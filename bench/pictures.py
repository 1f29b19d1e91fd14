"""Pictures through CLIP ViT-B/32 in one process: ours beside sentence-transformers', on the
same pictures and random weights, and where our time goes.

python -m bench.pictures [REPEATS]
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bench.figures import Spread, ratios
from bench.models import Shape, _write_tokenizer
from bench.places import MODELS
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Pixels, Unit
from omnivec.families.dual_tower import PLUGIN as FAMILY
from omnivec.runtimes.openvino import PLUGIN as RUNTIME

COUNT = 32
SIZE = (480, 640)
QUALITY = 88
THREADS = 2
OURS, THEIRS = ("int8", "bf16", "f32"), ("bf16", "f32")

Run: TypeAlias = Callable[[Sequence[Any]], Any]


class Rates(NamedTuple):
    """Pictures for each second that passed, and for each second of a processor."""

    wall: dict[int, float]
    cpu: dict[int, float]


def checkpoint() -> Path:
    """CLIP ViT-B/32 with random weights, made first where it is not there."""
    made = MODELS / "clip"
    if not (made / "done").exists():
        import torch
        import transformers

        made.mkdir(parents=True, exist_ok=True)
        _write_tokenizer(Shape("", "Bert", {}, 77), made)
        torch.manual_seed(0)
        ids = {"vocab_size": 30522, "pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}
        transformers.CLIPModel(transformers.CLIPConfig(text_config=ids)).save_pretrained(made)
        transformers.CLIPImageProcessorPil().save_pretrained(made)
        (made / "done").touch()
    return made


def jpegs() -> list[bytes]:
    """Waves and noise, about as large as photographs of that size."""
    from PIL import Image

    random = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    files = []
    for at in range(COUNT):
        waves = 60 * (np.sin(columns / (20 + at)) + np.cos(rows / (15 + at))) + 120
        pixels = np.stack([waves, columns * 0.4, rows * 0.5], 2) + random.normal(0, 8, (*SIZE, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
        files.append(file.getvalue())
    return files


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


def shares(model: Any, files: Sequence[bytes]) -> dict[str, float]:
    """Milliseconds of a processor that each part of ours takes for a picture."""
    decoded = [decode(file) for file in files]
    units = [Unit(parts=(Pixels(one),)) for one in decoded]
    features = model.prepare(units)
    steps: dict[str, Callable[[], Any]] = {
        "decode": lambda: [decode(file) for file in files],
        "prepare": lambda: model.prepare(units),
        "inference": lambda: model.forward(features),
    }
    return {name: _milliseconds(step) / len(files) for name, step in steps.items()}


def _milliseconds(step: Callable[[], Any], times: int = 3) -> float:
    taken = []
    for _ in range(times):
        began = time.process_time()
        step()
        taken.append(1e3 * (time.process_time() - began))
    return statistics.median(taken)


def main(repeats: int = 5) -> None:
    folder, files = checkpoint(), jpegs()
    found = measure(dict(runs(folder)), files, repeats)
    best = found["sentence-transformers f32"]  # what it takes unless it is told otherwise
    print("| | pictures/s | of one processor | times sentence-transformers f32 |")
    print("|---|---:|---:|---:|")
    for name, rates in found.items():
        wall, cpu = Spread.of(rates.wall.values()), Spread.of(rates.cpu.values())
        if wall and cpu:
            times = statistics.median(ratios(rates.wall, best.wall))
            print(f"| {name} | {wall.median:.1f} | {cpu.median:.1f} | {times:.2f} |")
    print(
        json.dumps(
            {name: round(one, 2) for name, one in shares(ours(folder, "bf16"), files).items()}
        )
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
