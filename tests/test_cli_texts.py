"""The files of `omnivec embed` and `omnivec rerank`: what is read, and what is left behind."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from omnivec.cli.texts import InputError, JsonLines, Npy, Record, Texts, output
from omnivec.hosts.progress import Progress


def read(path: Path, kind: str = "auto") -> list[Record]:
    return [record for chunk in Texts(str(path), kind).chunks(2) for record in chunk]


def test_each_line_is_a_text_an_empty_one_too(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\n\n  zwei \n三".encode())
    assert read(path) == [Record(1, "one"), Record(2, ""), Record(3, "  zwei "), Record(4, "三")]
    assert Texts(str(path)).count() == 4


def test_json_lines_are_texts_or_objects_with_any_id(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"one"\n\n{"text": "two", "id": 7, "more": []}\n{"text": "", "id": "x"}\n')
    assert read(path) == [Record(1, "one"), Record(3, "two", 7), Record(4, "", "x")]


@pytest.mark.parametrize(
    ("first", "texts"),
    [
        ('{"text": "a"}', ["a"]),
        ('"a"', ["a"]),
        ('{"other": "a"}', ['{"other": "a"}']),
        ("{not json", ["{not json"]),
        ('"quoted" words', ['"quoted" words']),
    ],
)
def test_the_first_line_tells_what_a_file_is(tmp_path: Path, first: str, texts: list[str]) -> None:
    path = tmp_path / "a"
    path.write_text(first)
    assert [record.text for record in read(path)] == texts


def test_the_kind_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"a"\n')
    assert read(path, "text") == [Record(1, '"a"')]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'"a"\n{"txet": 1}\n', "line 2"),
        (b'"a"\nnothing\n', "line 2"),
        (b'"a"\n[1]\n', "accepted: a JSON string"),
        (b'"a"\n"\xff"\n', "line 2: not UTF-8"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read(path)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Texts(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="is a folder"):
        Texts(str(tmp_path))


def test_chunks_are_full_but_for_the_last(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1\n2\n3\n4\n5\n")
    assert [len(chunk) for chunk in Texts(str(path)).chunks(2)] == [2, 2, 1]


# ── out ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (5, 3), (7,)])
def test_an_npy_is_whole_after_each_block(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).random(shape, dtype=np.float32)
    path = tmp_path / "a.npy"
    writer = Npy(path)
    part = writer.file.name
    assert np.load(part).shape == (0,)
    for start in range(0, len(rows), 2):
        writer.write(rows[start : start + 2])
        assert np.array_equal(np.load(part), rows[: start + 2])
    writer.close()
    assert np.array_equal(np.load(path).reshape(shape), rows)
    assert path.stat().st_size == Npy.least + rows.nbytes


def test_an_npy_that_is_cut_short_keeps_its_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    writer = Npy(path)
    writer.write(np.ones((2, 3), np.float32))
    writer.file.seek(writer.whole)
    writer.file.write(b"half a row")
    writer.close()
    assert np.load(path, mmap_mode="r").shape == (2, 3)
    assert path.stat().st_size == Npy.least + 24


def test_json_lines_that_are_cut_short_keep_their_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    writer = JsonLines(path)
    writer.write([{"index": 0, "embedding": np.array([0.5, 1], np.float32)}, {"index": 1}])
    writer.file.write(b'{"index": 2, "embed')
    writer.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"index": 0, "embedding": [0.5, 1.0]}, {"index": 1}]


def test_an_output_takes_its_name_once_all_is_written(tmp_path: Path) -> None:
    path, link = tmp_path / "a.npy", tmp_path / "link.npy"
    np.save(path, np.zeros(5, np.float32))
    link.symlink_to(path)
    with Npy(link) as writer:
        writer.write(np.ones((2, 3), np.float32))
        assert np.load(path).shape == (5,)
    assert link.is_symlink()
    assert np.load(path).shape == (2, 3)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.npy", "link.npy"]


def test_what_failed_on_its_way_is_beside_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, part = tmp_path / "a.jsonl", tmp_path / "a.jsonl.part"
    path.write_text("good")
    JsonLines(path).close(done=False)
    assert not part.exists()
    writer = JsonLines(path)
    writer.write([{"index": 0}])
    writer.close(done=False)
    assert (path.read_text(), part.read_text()) == ("good", '{"index":0}\n')
    assert str(part) in capsys.readouterr().err


def test_what_is_no_plain_file_is_written_to_at_once() -> None:
    with JsonLines(Path("/dev/null")) as writer:
        writer.write([{"index": 0}])
    assert Path("/dev/null").is_char_device()


def test_the_name_says_the_format_unless_it_is_said() -> None:
    source = Texts("-")
    assert output(None, None, source) == (None, "jsonl")
    assert output("-", None, source) == (None, "jsonl")
    assert output("a.npy", None, source) == (Path("a.npy"), "npy")
    assert output("/dev/null", None, source) == (Path("/dev/null"), "jsonl")
    assert output("a.csv", "jsonl", source) == (Path("a.csv"), "jsonl")
    assert output("a.json", None, source) == (Path("a.json"), "jsonl")
    assert output("a.bin", "npy", source) == (Path("a.bin"), "npy")


def test_an_output_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    with pytest.raises(InputError, match="is the input file"):
        output(str(path), None, Texts(str(path)))
    with pytest.raises(InputError, match="npy needs a file"):
        output(None, "npy", Texts("-"))
    with pytest.raises(InputError, match=r"\.csv is not written here; accepted: \.npy"):
        output("vectors.csv", None, Texts("-"))
    with pytest.raises(InputError, match="jsonl and npy"):
        output("a.csv", "csv", Texts("-"))


# ── how far ──────────────────────────────────────────────────────────────────────────────


def test_a_line_says_how_far_and_how_long() -> None:
    progress = Progress("embedding", "texts", io.StringIO())
    progress.update(1200, 5000)
    line = progress.line(5.0)
    assert line == "embedding: 1,200 of 5,000 texts (24 %), 240/s, 16 s left"
    progress.update(1200)
    assert progress.line(5.0) == "embedding: 1,200 texts, 240/s"
    progress.unit = "bytes"
    progress.update(5_000_000, 10_000_000)
    assert progress.line(1.0) == "embedding: 5.0 MB of 10.0 MB (50 %), 5.0 MB/s, 1 s left"


def test_short_work_says_nothing() -> None:
    stream = io.StringIO()
    with Progress("embedding", "texts", stream) as progress:
        progress.update(10, 10)
    assert stream.getvalue() == ""
