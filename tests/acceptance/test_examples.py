"""The examples, run as a reader runs them."""

from __future__ import annotations

import csv
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat

import live
import wire

EXAMPLES = Path(__file__).parents[2] / "examples"
HYBRID = EXAMPLES / "hybrid_search.py"
SHOES = wire.DATA / "images/clothing/test/shoes"
FILM = wire.DATA / "video/car-detection.mp4"
RANDOM = "random weights: the order means nothing"
TILE, GAP, LINE = 160, 8, 22  # of a sheet, in pixels

if not wire.DATA.is_dir():
    pytest.skip("the real data is not beside this checkout", allow_module_level=True)


@pytest.fixture(scope="module", name="xquad")
def xquad_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The passages and questions in the form in which XQuAD's authors give them."""
    folder = wire.DATA / "xquad/beir-en"
    with (folder / "qrels.tsv").open() as lines:
        passage_of = {row[0]: row[1] for row in csv.reader(lines, delimiter="\t")}
    asked: dict[str, list[dict[str, str]]] = {}
    for query in wire.jsonl("xquad/beir-en/queries.jsonl"):
        found = {"id": query["_id"], "question": query["text"]}
        asked.setdefault(passage_of[query["_id"]], []).append(found)
    paragraphs = [
        {"context": row["text"], "qas": asked.get(row["_id"], [])}
        for row in wire.jsonl("xquad/beir-en/corpus.jsonl")
    ]
    made = tmp_path_factory.mktemp("xquad") / "xquad.en.json"
    made.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return made


def run(example: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, example, *arguments],
        env=live.environment({}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_hybrid_search_finds_more_than_either(xquad: Path) -> None:
    done = run(HYBRID, "--data", xquad, "--questions", "120")
    assert done.returncode == 0, done.stderr
    assert "120 questions about 240 passages" in done.stderr
    found = dict(re.findall(r"^(\w.*?) +(\d\.\d{4})$", done.stdout, re.MULTILINE))
    assert list(found) == ["dense", "sparse", "both, by rank", "both, by score"]
    numbers = {name: float(value) for name, value in found.items()}
    assert 0.85 < numbers["dense"] < 1
    assert 0.9 < numbers["sparse"] < 1
    best = max(numbers["dense"], numbers["sparse"])
    assert numbers["both, by rank"] > best - 0.02
    assert numbers["both, by score"] > best - 0.005


def test_the_data_is_fetched_once(
    xquad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fetch = runpy.run_path(str(HYBRID))["fetch"]
    monkeypatch.setitem(fetch.__globals__, "URL", xquad.as_uri())
    kept = fetch()
    assert kept.read_bytes() == xquad.read_bytes()
    monkeypatch.setitem(fetch.__globals__, "URL", (tmp_path / "nowhere").as_uri())
    assert fetch() == kept
    passages, questions, right = fetch.__globals__["read"](kept, None)
    assert (len(passages), len(questions)) == (240, 1190)
    assert (right[0], right[-1]) == (0, 239)


# ── pictures and videos ──────────────────────────────────────────────────────────────────


def blocks(printed: str) -> dict[str, list[tuple[float, str]]]:
    """What was printed for each query: scores and what has them."""
    found = {}
    for block in printed.split("\n\n")[1:-1]:
        query, *lines = block.splitlines()
        pairs = [line.split(maxsplit=1) for line in lines]
        found[query] = [(float(score), what) for score, what in pairs]
    return found


def tile(sheet: Image.Image, row: int, column: int) -> Image.Image:
    left = GAP + column * (TILE + GAP)
    top = LINE + GAP + row * (LINE + TILE + LINE + GAP) + LINE
    return sheet.crop((left, top, left + TILE, top + TILE))


def difference(one: Image.Image, other: Image.Image) -> float:
    """0 to 255, the mean of all channels."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def shown(picture: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(picture).convert("RGB")
    return ImageOps.pad(upright, (TILE, TILE), Image.Resampling.LANCZOS, "#eeeeee")


def test_pictures_are_found_and_drawn(tmp_path: Path) -> None:
    asked, drawn = sorted(SHOES.iterdir())[3], tmp_path / "found.png"
    queries = ["--query", "a boot", "--query", asked]
    done = run(
        EXAMPLES / "image_search.py", "--data", SHOES, *queries, "--top", "3", "--sheet", drawn
    )
    assert done.returncode == 0, done.stderr
    count = len(list(SHOES.iterdir()))
    assert done.stdout.startswith(f"{count} pictures, {RANDOM}\n")
    assert RANDOM in done.stderr
    assert done.stdout.endswith(f"drawn on {drawn}\n")
    found = blocks(done.stdout)
    assert list(found) == ["a boot", str(asked)]
    assert found[str(asked)][0] == (pytest.approx(1, abs=1e-3), asked.name)  # it finds itself
    with Image.open(drawn) as sheet:
        rows = LINE + TILE + LINE + GAP
        assert sheet.size == (GAP + 3 * (TILE + GAP), LINE + GAP + 2 * rows)
        for row, pairs in enumerate(found.values()):
            assert [score for score, _ in pairs] == sorted((s for s, _ in pairs), reverse=True)
            for column, (_, name) in enumerate(pairs):
                with Image.open(SHOES / name) as picture:
                    assert difference(tile(sheet, row, column), shown(picture)) == 0
        assert difference(tile(sheet, 1, 0), tile(sheet, 1, 1)) > 5


def test_moments_of_a_video_are_found_and_drawn(tmp_path: Path) -> None:
    drawn, still = tmp_path / "moments.png", tmp_path / "still.png"
    with av.open(str(FILM)) as container:
        frame = next(iter(container.decode(video=0))).to_image()
    frame.save(still)
    options = ["--frames", "6", "--top", "2", "--query", "a car", "--query", still]
    done = run(EXAMPLES / "video_search.py", "--random", "--data", FILM, *options, "--sheet", drawn)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"6 frames of car-detection.mp4, {RANDOM}\n")
    found = blocks(done.stdout)
    assert list(found) == ["a car", str(still)]
    assert all(
        re.fullmatch(r"0:[0-3]\d\.\d", when) for pairs in found.values() for _, when in pairs
    )
    assert found[str(still)][0] == (pytest.approx(1, abs=1e-2), "0:00.0")
    with Image.open(drawn) as sheet:
        assert sheet.size == (GAP + 2 * (TILE + GAP), LINE + GAP + 2 * (LINE + TILE + LINE + GAP))
        assert difference(tile(sheet, 1, 0), shown(frame)) < 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["image_search.py", "./nowhere", "--data", SHOES], "nowhere does not exist"),
        (["image_search.py", "--random", "--data", wire.DATA / "xquad"], "has no pictures"),
        (["video_search.py", "--random", "--data", SHOES.parents[2] / "chelsea.png"], "chelsea"),
        (["video_search.py", "--random", "--data", "nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_what_cannot_be_searched_is_said(arguments: list[str | Path], words: str) -> None:
    done = run(EXAMPLES / str(arguments[0]), *arguments[1:])
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert words in done.stderr
