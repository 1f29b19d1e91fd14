"""One process for each device, here on processors; and what a batch costs."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from socket import socketpair
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from checkpoints import truncate_weights
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.seams import SessionLost
from omnivec.core.steps import Head, Pool, Scale
from omnivec.runtimes._torch import budget, frames
from omnivec.runtimes._torch.workers import LANES, Workers
from omnivec.runtimes.torch import PLUGIN, _places
from towers import SIZE, build_towers

if TYPE_CHECKING:
    from collections.abc import Iterator

torch.set_num_threads(1)

MEAN = Head("pooled", (Pool(("mean",)),))


def batch(*lengths: int) -> dict[str, np.ndarray]:
    mask = (np.arange(max(lengths))[None] < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(sum(lengths)).integers(5, 100, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def workers(tiny) -> Iterator[Workers]:
    made = Workers(Checkpoint("tiny", tiny("bert")), MEAN, ["cpu", "cpu"], "f32")
    yield made
    made.close()
    assert [worker._process.returncode for worker in made._workers] == [0, 0]


def test_workers_answer_as_one_session_does(workers, tiny) -> None:
    single = PLUGIN.open(Checkpoint("tiny", tiny("bert")), "main", MEAN, "cpu", "f32")
    assert (workers.padding, workers.batch_cost) == (single.padding, single.batch_cost)
    assert (workers.device, workers.streams, workers.memory()) == ("2 x cpu", 2 * LANES, 0)
    batches = [batch(*range(1, rows + 2)) for rows in range(24)]
    with ThreadPoolExecutor(workers.streams) as pool:
        answers = list(pool.map(workers.run, batches))
    for asked, answer in zip(batches, answers, strict=True):
        expected = single.run(asked)["output"]
        np.testing.assert_allclose(answer["output"], expected, atol=1e-5, rtol=0)
        assert answer["output"].flags.writeable


def test_every_output_comes_back_also_an_empty_one(tiny) -> None:
    checkpoint = Checkpoint("tiny", tiny("bert"))
    head = Head("pooled", MEAN.steps, {"each": Head("tokens")})
    workers = Workers(checkpoint, head, ["cpu"], "f32")
    single = PLUGIN.open(checkpoint, "main", head, "cpu", "f32")
    arrays = batch(5, 2)
    for kept in (arrays["attention_mask"], 0 * arrays["attention_mask"]):
        asked = {**arrays, "each_mask": kept}
        answer, expected = workers.run(asked), single.run(asked)
        assert answer["each"].shape == (kept.sum(), 32)
        for name in ("output", "each"):
            np.testing.assert_allclose(answer[name], expected[name], atol=1e-5, rtol=0)
    workers.close()


def test_a_failed_batch_leaves_the_worker_usable(workers) -> None:
    wrong = {name: array[:0] for name, array in batch(3).items()}
    for _ in range(workers.streams):
        with pytest.raises(RuntimeError, match="cpu: ValueError"):
            workers.run(wrong)
    assert workers.run(batch(3, 2))["output"].shape == (2, 32)


def test_a_worker_that_dies_loses_the_session(tiny) -> None:
    workers = Workers(Checkpoint("tiny", tiny("bert")), MEAN, ["cpu"], "f32")
    assert workers.run(batch(3))["output"].shape == (1, 32)
    os.kill(workers._workers[0]._process.pid, signal.SIGKILL)
    workers._workers[0]._process.wait()
    with pytest.raises(SessionLost, match="worker of cpu has gone"):
        workers.run(batch(3))
    workers.close()


def test_a_lane_that_was_left_half_read_is_not_used_again(tiny, monkeypatch) -> None:
    workers = Workers(Checkpoint("tiny", tiny("bert")), MEAN, ["cpu"], "f32")

    def short(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(frames, "receive", short)
        for _ in range(LANES):
            with pytest.raises(MemoryError):
                workers.run(batch(3))
    for _ in range(LANES):
        with pytest.raises(SessionLost, match="worker of cpu has gone"):
            workers.run(batch(3, 2))
    workers.close()


def test_closing_wakes_whoever_waits(tiny, monkeypatch) -> None:
    monkeypatch.setattr("omnivec.runtimes._torch.workers.PATIENCE", 0.2)
    workers = Workers(Checkpoint("tiny", tiny("bert")), MEAN, ["cpu"], "f32")
    stopped = workers._workers[0]._process
    os.kill(stopped.pid, signal.SIGSTOP)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            workers.run(batch(3))
        except SessionLost as error:
            caught.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    while workers._idle.qsize() == LANES:
        pass
    workers.close()  # the stopped process does not end by itself and is killed
    waiting.join(timeout=20)
    assert len(caught) == 1
    assert stopped.returncode == -signal.SIGKILL


def test_files_that_make_no_model_are_said(tiny, tmp_path) -> None:
    import shutil

    folder = shutil.copytree(tiny("bert"), tmp_path / "copy")
    truncate_weights(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="cpu: broken: transformers cannot open it"):
        Workers(Checkpoint("broken", folder), MEAN, ["cpu"], "f32")


def test_frames_carry_arrays_of_every_kind() -> None:
    one, other = socketpair()
    arrays = {
        "ids": np.arange(6).reshape(2, 3)[:, ::-1],
        "numbers": np.full((1, 2), 0.5, np.float32),
        "kept": np.array([True, False]),
    }
    frames.send(one, frames.batch_of(arrays, memory=7), arrays)
    one.close()
    header, received = frames.receive(other)
    assert isinstance(header, frames.Batch)
    assert header.memory == 7
    for name, array in arrays.items():
        assert received[name].dtype == array.dtype
        np.testing.assert_array_equal(received[name], array)
    with pytest.raises(EOFError, match="has gone"):
        frames.receive(other)
    other.close()


@pytest.mark.parametrize(("asked", "count", "places"), [
    ("cpu", 2, ["cpu"]),
    ("cuda:1", 2, ["cuda:1"]),
    ("cuda", 1, ["cuda"]),
    ("auto", 2, ["cuda:0", "cuda:1"]),
])  # fmt: skip
def test_every_gpu_is_used(monkeypatch, asked, count, places) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert _places(asked) == places


# ── the budget ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rates", "chosen", "tried"),
    [
        ([10, 20, 40, 80, 160, 320], 131072, 6),  # grows to the end
        ([10, 20, 30, 30.5, 31, 31], 16384, 5),  # no further than the plateau
        ([10, 20, None], 8192, 3),  # no memory for more
        ([10, 9, 30, 30.5, 30.6], 16384, 5),  # one bad measurement does not end it
        ([None], 4096, 1),
    ],
)
def test_the_budget_is_the_smallest_size_near_the_best_rate(rates, chosen, tried) -> None:
    asked = []

    def measure(size: int) -> float | None:
        asked.append(size)
        return rates[len(asked) - 1]

    assert budget.choose(measure) == chosen
    assert len(asked) == tried


def test_a_rate_is_measured_on_the_session_itself(tiny) -> None:
    session = PLUGIN.open(Checkpoint("tiny", tiny("bert")), "main", MEAN, "cpu", "f32")
    assert budget.rate_of(session, 256, session._positions()) > 0
    assert session._positions() == 63
    assert {array.shape for array in budget.rows(256, 63).values()} == {(4, 63)}


def test_bytes_go_to_a_worker_with_a_tower(tmp_path) -> None:
    checkpoint = Checkpoint("tiny", build_towers("clip", tmp_path))
    head = Head("tower", (Scale(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),))
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
    here = PLUGIN.open(checkpoint, "image", head, "cpu", "f32")
    workers = Workers(checkpoint.part("image"), head, ["cpu"], "f32")
    try:
        got = workers.run({"pixel_values": pixels})["output"]
    finally:
        workers.close()
    np.testing.assert_allclose(got, here.run({"pixel_values": pixels})["output"], atol=1e-6)
