"""Which model an adapter is for."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import pytest

from adapters import change_config
from omnivec.core.checkpoint import CheckpointError
from omnivec.engine.adapters import attach
from omnivec.engine.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

BGE, E5 = "BAAI/bge-small-en-v1.5", "intfloat/e5-small-v2"


@pytest.fixture
def folder(adapter: Callable[..., Path], tmp_path: Path) -> Path:
    return shutil.copytree(adapter("bert", target_modules=["query"]), tmp_path / "adapter")


def attached(models: Sequence[str], *arguments: str) -> dict[str, list[str]]:
    specs = attach(Catalog().specs(models), arguments)
    return {spec.name: [adapter.name for adapter in spec.adapters] for spec in specs}


@pytest.mark.parametrize(
    "base", [BGE, BGE.upper(), "bge-small-en-v1.5", f"/home/someone/models/{BGE}"]
)
def test_the_base_that_it_names(folder: Path, base: str) -> None:
    change_config(folder, base_model_name_or_path=base)
    assert attached([E5, BGE], f"law={folder}") == {E5: [], BGE: ["law"]}


def test_the_model_that_the_argument_names(folder: Path) -> None:
    change_config(folder, base_model_name_or_path=BGE)
    arguments = [f"law={folder}@{E5}", f"tax={folder}@mine", f"team/air={folder}"]
    models = [BGE, E5, "mine=BAAI/bge-m3"]
    expected = {BGE: ["team/air"], E5: ["law"], "mine": ["tax"]}
    assert attached(models, *arguments) == expected


def test_a_folder_with_an_at(folder: Path, tmp_path: Path) -> None:
    at = shutil.copytree(folder, tmp_path / "law@2")
    assert attached([BGE], f"law={at}") == {BGE: ["law"]}
    assert attached([BGE], f"law={at}@{BGE}") == {BGE: ["law"]}


def test_the_only_one_that_has_weights(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_config(folder, base_model_name_or_path="org/other")
    with caplog.at_level(logging.WARNING):
        found = attached([BGE, "omnivec/bm25"], f"law={folder}")
    assert found == {BGE: ["law"], "omnivec/bm25": []}
    assert caplog.messages == [f"adapter law: its base is 'org/other', and it is applied to {BGE}"]


@pytest.mark.parametrize(
    ("models", "argument", "what"),
    [
        ([BGE, E5], "law={}", "adapter law: its base model 'org/other' is not served; serve it"),
        ([BGE, E5], "law={}", f"or name one of {BGE}, {E5}: law=FOLDER@MODEL"),
        ([BGE], "law={}@nothing", "adapter law: its base model 'nothing' is not served"),
        ([BGE], "{}", "accepted: NAME=FOLDER or NAME=FOLDER@MODEL"),
        ([BGE], "law={}/nowhere", "adapter law: .*/nowhere has no adapter_config.json"),
        ([BGE], "my law={}", "accepted: NAME=FOLDER"),
        ([BGE], f"{BGE}={{}}", "something else has that name already"),
        (["law=BAAI/bge-m3"], "law={}", "something else has that name already"),
    ],
)
def test_what_is_for_none_of_them(
    folder: Path, models: list[str], argument: str, what: str
) -> None:
    change_config(folder, base_model_name_or_path="org/other")
    with pytest.raises(CheckpointError, match=what):
        attached(models, argument.format(folder))


def test_two_of_one_name(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="something else has that name already"):
        attached([BGE], f"law={folder}", f"law={folder}")
