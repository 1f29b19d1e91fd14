"""`omnivec convert`, and the converted model behind Intel's paths under Intel's name for it."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import live
import open_clips

TEXT = "A fox, over the lazy dog!"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [live.COMMAND, *arguments],
        cwd=folder,
        env=live.environment({"HF_HOME": str(folder)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ask(url: str, **body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def unit(row: np.ndarray) -> np.ndarray:
    return np.asarray(row / np.linalg.norm(row))


def test_a_converted_model_is_served_under_the_services_name(tmp_path: Path) -> None:
    from PIL import Image

    source = tmp_path / "downloaded"
    source.mkdir()
    reference = open_clips.build("s", source)
    done = run("convert", "downloaded", "mobileclip_s1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pictures of 64 x 64" in done.stderr
    assert done.stderr.endswith("mobileclip_s1 is ready: omnivec serve ./mobileclip_s1\n")

    picture = np.random.default_rng(3).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    inputs = (
        {"type": "text", "text": TEXT},
        {"type": "image_base64", "image_base64": base64.b64encode(stream.getvalue()).decode()},
    )
    expected = (
        reference.read(open_clips.ids([TEXT]))[0],
        reference.see(open_clips.prepared("s", picture)[None])[0],
    )
    folder = str(tmp_path / "mobileclip_s1")
    with live.serve(
        folder, "--profile", "intel", "--host", "127.0.0.1", "--dtype", "f32"
    ) as server:
        assert ask(f"{server.url}/model/current")["model"] == "MobileCLIP/mobileclip_s1"
        for given, row in zip(inputs, expected, strict=True):
            for name in ("MobileCLIP/mobileclip_s1", "mobileclip_s1"):
                told = ask(f"{server.url}/embeddings", model=name, input=given)["embedding"]
                np.testing.assert_allclose(np.ravel(told), unit(row), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("convert", "empty", "new"), "is no checkpoint of open_clip's"),
        (("convert", "empty", "full"), "accepted: a new or an empty folder"),
        (("convert", "./absent", "new"), "absent does not exist"),
        (("convert", "apple/MobileCLIP-S1-OpenCLIP", "new"), "offline is set"),
        (("convert", "MobileCLIP/mobileclip_b", "new"), "apple/MobileCLIP-B-OpenCLIP is not in"),
        (
            ("pull", "mobileclip_s0"),
            "omnivec convert apple/MobileCLIP-S0 ./mobileclip_s0`, then `omnivec serve "
            "./mobileclip_s0`",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
