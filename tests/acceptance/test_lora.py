"""Adapters by name, over HTTP: SIE's option, OpenAI's model, and what a start refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import live
import wire
from adapters import BASE, change_config, peft_model

TEXTS = ("a blue bird", "the law of large numbers, told again", "tax")
NAMES = (None, "law", "tax")


@pytest.fixture(scope="module")
def folders(tiny: Callable[..., Path], adapter: Callable[..., Path]) -> dict[str, Path]:
    return {
        "base": tiny("bert"),
        "law": adapter("bert", seed=1, r=4, target_modules=["query", "value"]),
        "tax": adapter("bert", seed=2, r=2, target_modules="all-linear"),
    }


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[live.Server]:
    lora = [f"--lora={name}={folders[name]}" for name in ("law", "tax")]
    with live.serve(f"tiny={folders['base']}", *lora, "--dtype", "f32") as running:
        yield running


def body(options: dict[str, Any]) -> dict[str, Any]:
    return {"items": [{"text": text} for text in TEXTS], "params": {"options": options}}


def encode(server: live.Server, options: dict[str, Any]) -> Any:
    return wire.request(
        server.url, "/v1/encode/tiny", body(options), headers={"accept": "application/json"}
    )


def expected(folders: dict[str, Path], name: str | None) -> np.ndarray:
    """PEFT's hidden states, pooled by their mean and normalised."""
    import torch
    import transformers

    model = peft_model(folders["base"], {"law": folders["law"], "tax": folders["tax"]})
    tokens = transformers.AutoTokenizer.from_pretrained(folders["base"])
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            fed = tokens(text, return_tensors="pt")
            states = model(**fed, adapter_names=[name or BASE]).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    return np.stack(rows)


def test_two_adapters_and_none_at_once(server: live.Server, folders: dict[str, Path]) -> None:
    asked = [{} if name is None else {"lora_id": name} for name in NAMES * 10]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda options: encode(server, options), asked))
    right = {name: expected(folders, name) for name in NAMES}
    for answer, name in zip(answers, NAMES * 10, strict=True):
        assert answer.status == 200
        rows = np.array([item["dense"]["values"] for item in answer.json["items"]])
        np.testing.assert_allclose(rows, right[name], atol=1e-5)
    assert np.abs(right["law"] - right["tax"]).max() > 1e-3


def test_as_the_name_of_a_model(server: live.Server, folders: dict[str, Path]) -> None:
    answer = wire.request(server.url, "/v1/embeddings", {"model": "law", "input": list(TEXTS)})
    assert answer.status == 200
    assert answer.json["model"] == "law"
    rows = np.array([row["embedding"] for row in answer.json["data"]])
    np.testing.assert_allclose(rows, expected(folders, "law"), atol=1e-5)


def test_an_unknown_one_is_not_told_back(server: live.Server) -> None:
    answer = encode(server, {"lora_id": "secret"})
    assert answer.status == 400
    assert answer.json["detail"] == {
        "code": "INVALID_INPUT",
        "message": "This model has no adapter of that name; it has law, tax.",
        "param": "params.options.lora_id",
    }


def test_a_start_with_one_that_cannot_be_used(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(folders["law"], tmp_path / "broken")
    change_config(broken, use_dora=True)
    with live.launch(str(folders["base"]), "--lora", f"law={broken}") as refused:
        assert refused.process.wait(60) != 0
        assert "adapter law: it has DoRA ('use_dora')" in refused.printed()
        assert "Traceback" not in refused.printed()
