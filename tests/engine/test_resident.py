"""What is told when no runtime can open a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.plugins import discover
from omnivec.core.seams import Family, Runtime
from omnivec.core.settings import Settings
from omnivec.core.steps import Head
from omnivec.engine.resident import Opener, refusal

REASONS = {
    "openvino": "runs on the CPU",
    "torch": "needs torch: pip install 'omnivec[torch]'",
}


def test_what_an_installation_ends_comes_first() -> None:
    told = refusal(REASONS, "cuda", has_cuda=True)
    assert told.startswith("torch: needs torch: pip install")
    assert told.endswith("; openvino: runs on the CPU")


def test_a_gpu_that_is_missing_comes_before_all() -> None:
    told = refusal(REASONS, "cuda", has_cuda=False)
    assert told.startswith("This machine shows no CUDA device; use --device cpu. With one: torch: ")
    assert "openvino" not in told
    assert refusal({}, "cuda", has_cuda=False).endswith("--device cpu")
    assert "CUDA" not in refusal(REASONS, "cpu", has_cuda=False)


@pytest.mark.parametrize(("asked", "names"), [("auto", "openvino"), ("fake", "fake")])
def test_the_runtime_of_fakes_is_named_where_it_was_asked_for(
    tmp_path: Path, asked: str, names: str
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mobileclip_absent"}')
    families: dict[str, Family] = discover("families")
    runtimes: dict[str, Runtime] = discover("runtimes")
    opener = Opener(families, runtimes, Settings(runtime=asked))
    with pytest.raises(CheckpointError) as told:
        opener.runtime(Checkpoint("tiny", tmp_path), {"encoder": Head(kind="logits")})
    assert f"{names}: " in str(told.value)
    assert ("fake: " in str(told.value)) == (asked == "fake")
