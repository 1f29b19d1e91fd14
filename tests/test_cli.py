"""The command as a person runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import omnivec
from omnivec.cli.options import FLAGS
from omnivec.core.settings import FIELDS
from seeing import build_qwen3_vl

COMMANDS = ("serve", "runpod", "config", "embed", "rerank", "models", "pull", "convert", "doctor")
COMMANDS += ("bench",)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings and no cache but the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("PORT", raising=False)
    return tmp_path


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "omnivec", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_help_and_version_answer() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"omnivec {omnivec.__version__}\n")
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_help_is_not_cut_and_names_models_once() -> None:
    told = run("--help").stdout
    assert re.search(r"doctor +Check this machine and these settings\.\n", told)
    assert "...\n" not in told.partition("Commands:")[2]
    assert "omnivec serve [OPTIONS] [MODEL]...\n" in run("serve", "--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_examples(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Examples:\n    omnivec" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_words_and_no_marks_of_python(command: str) -> None:
    told = run(command, "--help").stdout
    assert not re.search(r"<\w|list\[|x>=|\{[A-Z]|\[\[|\d\.0\]|\[required", told)
    rows = re.split(r"\n  (?=-)", told.partition("Options:")[2])[1:]
    assert len(rows) > 4
    for row in rows:
        assert re.search(r"\s{2}[A-Z`][^.]+\.", row), row


def test_a_shell_can_complete() -> None:
    asked = {"_OMNIVEC_COMPLETE": "complete_bash", "COMP_WORDS": "omnivec serve --po"}
    done = subprocess.run(
        [sys.executable, "-m", "omnivec"],
        env={**os.environ, **asked, "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["--port"]


def test_help_imports_nothing_heavy() -> None:
    script = "import omnivec.cli, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "omnivec.cli.doctor" in loaded
    heavy = {"numpy", "openvino", "starlette", "huggingface_hub", "rich", "tokenizers", "uvicorn"}
    assert not heavy & loaded


def test_every_setting_has_a_flag() -> None:
    without = {"models", "tiktoken_cache_dir"}  # an argument, and what others set
    assert set(FLAGS) == set(FIELDS) - without


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("serv",), 2, "No such command"),
        (("embed", "-", "--dims", "0"), 2, "'0'; accepted: a whole number from 1"),
        (("rerank", "q", "-", "--top-n", "x"), 2, "'x'; accepted: a whole number from 1"),
        (("bench", "--seconds", "nan"), 2, "'nan'; accepted: a number of seconds from 0.1"),
        (("serve", "--port", "x"), 2, "port (flag --port) is 'x'; accepted"),
        (("serve", "--host", "0.0.0.0"), 2, "--insecure-no-auth"),
        (("serve", "--profile", "synesis"), 2, "--api-key"),
        (("serve", "--config", "absent.toml"), 2, "absent.toml cannot be read"),
        (("embed", "absent.txt"), 2, "absent.txt does not exist"),
        (("serve", "--media-root", "./absent"), 2, "./absent does not exist; accepted: a folder"),
        (("serve", "--runtime", "nope"), 2, "'nope'; accepted: auto, ctranslate2, fake, "),
        (("config", "--runtime", "nope"), 2, "'nope'; accepted: auto, ctranslate2, fake, "),
        (("embed", "-", "-o", "a.csv"), 2, ".csv is not written here"),
        (("rerank", " ", "-"), 2, "QUERY is empty"),
        (("rerank", "q", "-", "--top-n", "1", "-o", "a.npy"), 2, "--top-n is for JSON lines"),
        (("embed", "-", "--format", "npy"), 2, "npy needs a file"),
        (("embed", "-", "--input", "csv"), 2, "auto, text and jsonl"),
        (("embed", "-", "-m", "a b"), 1, "'a b' is not a model"),
        (("embed", "-", "-m", "./absent"), 1, "absent does not exist"),
        (("pull", "BAAI/bge-m3"), 1, "offline is set"),
        (("pull", "BAAI/bge-m3@../x"), 1, "the revision is not one"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# ── config ───────────────────────────────────────────────────────────────────────────────


def test_config_shows_each_value_and_its_source(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "omnivec.toml").write_text("queue = 5\n")
    monkeypatch.setenv("OMNIVEC_DTYPE", "f32")
    monkeypatch.setenv("OMNIVEC_API_KEY", "geheim")
    done = run("config", "--port", "9000", "a/b", "--json")
    shown = json.loads(done.stdout)
    assert shown["port"] == {"value": 9000, "from": "flag --port"}
    assert shown["models"] == {"value": ["a/b"], "from": "argument MODEL"}
    assert shown["queue"] == {"value": 5, "from": "file omnivec.toml"}
    assert shown["dtype"] == {"value": "f32", "from": "environment OMNIVEC_DTYPE"}
    assert shown["api_keys"] == {"value": ["***"], "from": "environment OMNIVEC_API_KEY"}
    assert shown["host"]["from"] == "default"
    assert "geheim" not in done.stdout + done.stderr


def test_what_config_prints_is_a_settings_file(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIVEC_API_KEY", "geheim")
    done = run("config", "--port", "9000", "--model-id", "a/b", "--max-age", "3")
    values = tomllib.loads(done.stdout)
    assert (values["port"], values["models"], values["max_age"]) == (9000, ["a/b"], 3.0)
    assert "api_keys" not in values
    (elsewhere / "omnivec.toml").write_text(done.stdout)
    assert json.loads(run("config", "--json").stdout)["max_age"]["value"] == 3.0


def test_config_says_that_serve_would_refuse() -> None:
    done = run("config", "--host", "0.0.0.0")
    assert done.returncode == 0
    assert "would refuse to start" in done.stderr


# ── embed and rerank ─────────────────────────────────────────────────────────────────────


def test_embed_answers_each_line(elsewhere: Path) -> None:
    done = run("embed", "-", "-m", "fake:dims=8", text="one\n\nthree\n")
    assert done.returncode == 0, done.stderr
    rows = lines(done.stdout)
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert all(len(row["embedding"]) == 8 for row in rows)  # type: ignore[arg-type]
    assert done.stderr == ""


def test_embed_keeps_ids_and_writes_files(elsewhere: Path) -> None:
    (elsewhere / "in.jsonl").write_text('{"text": "one", "id": "a"}\n"two"\n')
    assert run("embed", "in.jsonl", "-m", "fake:dims=8", "-o", "out.jsonl").returncode == 0
    rows = lines((elsewhere / "out.jsonl").read_text())
    assert (rows[0]["id"], "id" in rows[1]) == ("a", False)
    assert run("embed", "in.jsonl", "-m", "fake:dims=8", "-o", "out.npy").returncode == 0
    vectors = np.load(elsewhere / "out.npy")
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, [row["embedding"] for row in rows], atol=1e-6)


def test_embed_cuts_and_the_default_model_needs_no_network(elsewhere: Path) -> None:
    (elsewhere / "in.txt").write_text("one\ntwo\n")
    done = run("embed", "in.txt", "--dims", "64", "-o", "out.npy", "--dtype", "f32")
    assert done.returncode == 0, done.stderr
    vectors = np.load(elsewhere / "out.npy")
    assert vectors.shape == (2, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_embed_of_many_keeps_their_order(elsewhere: Path) -> None:
    texts = [f"text {i}" for i in range(1000)]
    (elsewhere / "in.txt").write_text("\n".join(texts))
    assert run("embed", "in.txt", "-m", "fake:dims=8", "-o", "many.npy").returncode == 0
    one = run("embed", "-", "-m", "fake:dims=8", text="text 777\n")
    vectors = np.load(elsewhere / "many.npy")
    assert vectors.shape == (1000, 8)
    assert np.allclose(vectors[777], lines(one.stdout)[0]["embedding"], atol=1e-6)


@pytest.mark.parametrize("name", ["out.npy", "out.jsonl"])
def test_ctrl_c_leaves_a_valid_file(elsewhere: Path, name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "omnivec", "embed", "-", "-m", "fake:dims=8", "-o", name],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("text\n" * 5000)
    process.stdin.flush()
    path = elsewhere / name
    part = elsewhere / f"{name}.part"
    while process.poll() is None and (not part.exists() or part.stat().st_size < 1000):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "omnivec: stopping, what is done will be kept\n"
    process.stdin.write("text\n" * 2000)
    process.stdin.close()
    assert process.wait(60) == 130
    process.stderr.close()
    rows = len(np.load(path)) if name.endswith("npy") else len(lines(path.read_text()))
    assert 0 < rows < 7000


def test_an_empty_input_makes_an_empty_output(elsewhere: Path) -> None:
    done = run("embed", "-", "-m", "fake:dims=8", text="")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "omnivec: no texts in standard input\n"
    assert run("embed", "-", "-m", "fake:dims=8", "-o", "out.npy").returncode == 0
    assert np.load(elsewhere / "out.npy").shape == (0, 8)
    assert run("rerank", "q", "-", "-m", "fake-reranker", "-o", "out.npy").returncode == 0
    assert np.load(elsewhere / "out.npy").shape == (0,)


@pytest.mark.parametrize("wish", [("--dims", "9"), ("--role", "absent")])
def test_what_fails_leaves_an_earlier_output_as_it_was(
    elsewhere: Path, wish: tuple[str, str]
) -> None:
    path = elsewhere / "out.npy"
    path.write_bytes(b"good")
    done = run("embed", "-", "-m", "fake:dims=8", "-o", "out.npy", *wish, text="one\n")
    assert done.returncode == 1
    assert path.read_bytes() == b"good"
    assert [one.name for one in elsewhere.glob("*.part")] == []


def test_a_wish_that_the_model_cannot_fulfil_is_said(elsewhere: Path) -> None:
    done = run("embed", "-", "-m", "fake:dims=8", "--dims", "9", text="one\n")
    assert done.returncode == 1
    assert "dimensions" in done.stderr
    assert "Traceback" not in done.stderr


def test_rerank_sorts_and_keeps_ids(elsewhere: Path) -> None:
    (elsewhere / "in.jsonl").write_text(
        '{"text": "one", "id": "a"}\n{"text": "two", "id": "b"}\n{"text": "three", "id": "c"}\n'
    )
    done = run("rerank", "two", "in.jsonl", "-m", "fake-reranker")
    assert done.returncode == 0, done.stderr
    rows = lines(done.stdout)
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
    assert {row["id"]: row["text"] for row in rows} == {"a": "one", "b": "two", "c": "three"}
    run("rerank", "two", "in.jsonl", "-m", "fake-reranker", "-o", "out.npy")
    by_index = [row["score"] for row in sorted(rows, key=lambda row: str(row["index"]))]
    assert np.allclose(np.load(elsewhere / "out.npy"), by_index, atol=1e-6)
    best = run("rerank", "two", "in.jsonl", "-m", "fake-reranker", "--top-n", "1")
    assert lines(best.stdout) == rows[:1]


# ── models and doctor ────────────────────────────────────────────────────────────────────


def test_models_lists_what_is_here_first() -> None:
    rows = json.loads(run("models", "--json").stdout)
    assert rows[0]["name"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert (rows[0]["state"], rows[0]["dims"], rows[0]["tokens"]) == ("here", 384, 256)
    assert {"BAAI/bge-m3", "intfloat/e5-small-v2"} <= {row["name"] for row in rows}
    assert (rows[1]["name"], rows[1]["state"]) == ("omnivec/bm25", "here")
    assert {row["state"] for row in rows[2:]} == {"known"}
    table = run("models", "--here").stdout.splitlines()
    assert table[0].split() == ["MODEL", "MAKES", "READS", "TOKENS", "STATE"]
    assert table[1].split() == [rows[0]["name"], "dense", "384", "text", "256", "here"]
    assert len(table) == 3


def test_models_fit_a_terminal_and_say_what_they_make(elsewhere: Path) -> None:
    (elsewhere / "own.toml").write_text('[[group]]\nmodels = [{ id = "me/mine", dims = 7 }]\n')
    done = run("models", "--all", "--catalogue", "own.toml")
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["me/mine"] == ["dense", "7", "text", "-", "known"]
    assert rows["BAAI/bge-m3"] == ["dense", "sparse", "multi", "text", "8192", "known"]
    assert rows["naver/splade-v3"] == ["sparse", "30522", "text", "512", "known"]
    assert rows["BAAI/bge-reranker-v2-m3"] == ["scores", "text", "8192", "known"]
    assert rows["Qwen/Qwen3-Embedding-0.6B"] == ["dense", "1024", "text", "8192", "known"]
    assert rows["google/embeddinggemma-300m"] == ["dense", "768", "text", "2048", "known"]
    assert rows["BAAI/bge-reranker-v2-minicpm-layerwise"] == ["scores", "text", "1024", "later"]
    told = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert told["BAAI/bge-m3"]["kinds"] == ["dense", "sparse", "multivector"]
    assert told["BAAI/bge-m3"]["tasks"] == ["encode", "score"]
    assert "BAAI/bge-reranker-v2-minicpm-layerwise" not in told


def test_models_say_what_they_read_and_need() -> None:
    table = run("models").stdout.splitlines()
    row = next(line for line in table if line.startswith("Qwen/Qwen3-VL-Embedding-2B"))
    assert row.split()[1:4] == ["dense", "2048", "video"]
    assert table[table.index(row) + 1] == "    needs omnivec[torch] for image and video"
    told = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    for name, reads, extra, note in (
        ("BAAI/bge-m3", ["text"], None, ""),
        ("openai/clip-vit-base-patch32", ["text", "image"], None, ""),
        ("vidore/colpali-v1.3-hf", ["text", "image"], "torch", "needs omnivec[torch]"),
    ):
        row = told[name]
        assert (row["reads"], row["extra"], row["note"]) == (reads, extra, note)


def test_a_wrong_catalogue_is_told_like_a_wrong_setting(elsewhere: Path) -> None:
    (elsewhere / "own.toml").write_text('[[group]]\nmodels = [{ id = "me/mine", dim = 7 }]\n')
    for command in ("models", "serve"):
        done = run(command, "--catalogue", "own.toml")
        assert done.returncode == 2
        assert "own.toml, group 1, model me/mine" in done.stderr
        assert "dims" in done.stderr


def test_models_tells_a_broken_cache(elsewhere: Path) -> None:
    repository = elsewhere / "hf" / "hub" / "models--org--half"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "config.json").write_text("{}")
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert rows["org/half"]["state"] == "incomplete"
    assert rows["org/half"]["note"] == "omnivec pull org/half"


def test_a_folder_that_is_no_known_model_is_told_in_words(elsewhere: Path) -> None:
    (elsewhere / "odd").mkdir()
    for config, words in (("{}", "it has no model_type"), ('{"model_type": "x"}', "'x' is not")):
        (elsewhere / "odd" / "config.json").write_text(config)
        (elsewhere / "odd" / "model.safetensors").touch()
        done = run("embed", "-", "-m", "./odd", text="a")
        assert done.returncode == 1
        assert words in done.stderr
        assert "`omnivec models`" in done.stderr


def test_doctor_says_what_would_be_served() -> None:
    done = run("doctor", "--port", "0", "--json")
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert done.returncode == 0
    assert found["machine"]["cores"] >= 1
    assert found["omnivec"]["version"] == omnivec.__version__
    assert found["settings"]["offline"] is True
    served = found["would be served"]["sentence-transformers/all-MiniLM-L6-v2"]
    assert "384 dimensions, up to 256 tokens" in served


def test_doctor_says_what_would_read_texts_only(elsewhere: Path) -> None:
    build_qwen3_vl(elsewhere / "seeing")
    for arguments, words in (
        ((), "torch and openvino, qwen3_vl, 32 dimensions"),
        (("--runtime", "openvino"), "openvino for texts only, qwen3_vl"),
    ):
        done = run("doctor", "--port", "0", "--json", *arguments, "./seeing")
        assert json.loads(done.stdout)["would be served"]["seeing"].startswith(words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("BAAI/bge-m3",), "omnivec pull BAAI/bge-m3"),
        (("./absent",), "absent does not exist"),
        (("--host", "0.0.0.0"), "--insecure-no-auth"),
        (("--runtime", "absent"), "accepted: auto, ctranslate2, fake, "),
        (("--port", "x"), "accepted: a whole number"),
        (("--jobs", "redis://h"), "jobs: a store is a file's path"),
        (("--media-allow", "10.0.0.0/99"), "media_allow is '10.0.0.0/99'"),
        (("--media-root", "./absent"), "media_root (flag --media-root): ./absent does not exist"),
        (("fake", "fake"), "two models would be called 'fake'"),
    ],
)
def test_doctor_ends_with_1_when_something_is_wrong(arguments: tuple[str, ...], words: str) -> None:
    done = run("doctor", "--port", "0", *arguments)
    assert done.returncode == 1
    assert words in done.stdout
    assert "1 problem\n" in done.stdout
    assert "Traceback" not in done.stderr


def test_doctor_names_an_architecture_that_nobody_knows(elsewhere: Path) -> None:
    (elsewhere / "config.json").write_text('{"model_type": "mystery"}')
    (elsewhere / "tokenizer.json").write_text("{}")
    done = run("doctor", "--port", "0", ".")
    assert done.returncode == 1
    assert "mystery" in done.stdout


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        served, checked = run("serve", "fake", "--port", port), run("doctor", "--port", port)
    assert served.returncode == 1
    words = f"cannot listen on 127.0.0.1:{port} (Address already in use)"
    assert served.stderr.splitlines()[-1].startswith(f"omnivec: {words}")
    assert f"- {words}" in checked.stdout
    assert checked.returncode == 1


def test_doctor_lists_plug_ins_and_those_that_are_broken(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = elsewhere / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[omnivec.runtimes]\ngone = strange_gone:PLUGIN\n")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    done = run("doctor", "--port", "0", "--json")
    found = json.loads(done.stdout)
    assert found["plug-ins"] == {"runtimes.gone": "of package strange, broken"}
    assert "plug-in gone (runtimes) of package strange is broken" in found["problems"][0]
    assert "Traceback" not in done.stderr
