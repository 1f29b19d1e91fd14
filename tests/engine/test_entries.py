"""The shipped entries against each other and against what can be served at all."""

from __future__ import annotations

import re

import pytest

from omnivec.core.nouns import Wishes
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings
from omnivec.core.towers import ARCHITECTURES as TOWERS
from omnivec.engine.catalog import DEFAULT, LATEST, WORD, catalog
from omnivec.engine.entries import KINDS, Entry, Facts, Profile, over
from omnivec.engine.hub import locate_here
from omnivec.engine.resident import Opener
from omnivec.hosts.assemble import local_engine
from omnivec.runtimes._openvino.limits import ARCHITECTURES

ENTRIES = tuple(catalog().entries.values())
LISTED = catalog().listed
POOLINGS = ("cls", "mean", "last")
ROLES = {"query", "document", "passage", "classification", "clustering"}
WEIGHTLESS = {"model2vec", "omnivec-bm25"}  # architectures that need no graph
LICENSES = {"mit", "apache-2.0", "apple-amlr", "gemma", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
STATIC = {
    "sentence-transformers/static-retrieval-mrl-en-v1",
    "sentence-transformers/static-similarity-mrl-multilingual-v1",
}

each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
each_listed = pytest.mark.parametrize("entry", LISTED, ids=lambda entry: entry.id)


def test_no_name_is_given_twice() -> None:
    names = [name.casefold() for entry in ENTRIES for name in (entry.id, *entry.aliases)]
    assert len(names) == len(set(names))


@each
def test_every_kind_has_its_width_and_nothing_else_has_one(entry: Entry) -> None:
    card = entry.card()
    widths = {"dense": card.dims, "sparse": card.sparse_dims, "multivector": card.token_dims}
    endless = {"sparse"} if entry.architecture == "omnivec-bm25" else set()
    has = {kind for kind, width in widths.items() if width is not None}
    assert has == set(card.kinds) - endless
    assert card.kinds == tuple(kind for kind in KINDS if kind in card.kinds)


@each
def test_tasks_agree_with_what_is_made(entry: Entry) -> None:
    card = entry.card()
    assert card.tasks in (("encode", "score"), ("score",), ("extract",))
    assert bool(card.kinds) == ("encode" in card.tasks)
    assert bool(card.scoring) == ("score" in card.tasks)
    assert (card.scoring == "cross-encoder") == (card.tasks == ("score",))
    assert card.kinds or not entry.pooling
    assert "text" in card.modalities


@each
def test_labels_are_the_callers_of_those_that_classify_alone(entry: Entry) -> None:
    card = entry.card()
    assert not card.zero_shot or card.tasks == ("extract",)
    assert not card.template or card.zero_shot
    assert card.template.count("{}") == bool(card.template)


@each
def test_prompts_pooling_and_licence_are_known_ones(entry: Entry) -> None:
    prompts = entry.prompts or {}
    assert set(prompts) <= ROLES
    assert not prompts or {"query", "document"} <= set(prompts)
    assert all(text == "" or text.endswith((" ", ":", "：", ">")) for text in prompts.values())
    assert entry.pooling in (None, *POOLINGS)
    assert entry.license in (None, *LICENSES)


@each
def test_profiles_ask_for_what_the_model_has(entry: Entry) -> None:
    card = entry.card()
    for name, wishes in card.profiles.items():
        assert re.fullmatch(WORD, name)
        assert name.casefold() != LATEST
        assert set(wishes.kinds or ()) <= set(card.kinds)
        assert wishes.dims is None or wishes.dims <= (card.dims or 0)
        assert wishes.role is None or wishes.role in {"query", "document", *card.prompts}


@each_listed
def test_what_is_listed_can_be_run(entry: Entry) -> None:
    """By a graph of our own, by none at all, or by transformers, where the entry says so."""
    if entry.extra is None:
        ours = entry.architecture in {*ARCHITECTURES, *TOWERS, *WEIGHTLESS}
        assert ours or (entry.id in STATIC and entry.architecture is None)
        sees = entry.architecture in TOWERS
        assert entry.card().modalities == (("text", "image") if sees else ("text",))
    else:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        assert entry.extra == "torch"
        assert entry.architecture not in ARCHITECTURES
        assert entry.architecture in CONFIG_MAPPING_NAMES


@each
def test_what_is_not_listed_says_why(entry: Entry) -> None:
    assert (entry in LISTED) == (entry.unserved is None)
    assert entry.unserved is None or entry.unserved.strip()


def test_every_text_model_that_the_services_name_is_known() -> None:
    named = (
        "BAAI/bge-m3",
        "BAAI/bge-reranker-v2-m3",
        "BAAI/bge-reranker-large",
        "BAAI/bge-small-en-v1.5",
        "intfloat/e5-large-v2",
        "Qwen/Qwen3-Embedding-0.6B",
        "Qwen/Qwen3-Reranker-0.6B",
        "Qwen/Qwen3-VL-Embedding-2B",
        "urchade/gliner_multi-v2.1",
        DEFAULT,
    )
    assert [name for name in named if name not in catalog().entries] == []


def test_each_kind_of_model_is_there() -> None:
    made = [entry.card().kinds or entry.card().tasks for entry in LISTED]
    for one, least in ((("dense",), 30), (("sparse",), 6), (("multivector",), 4)):
        assert made.count(one) >= least
    assert made.count(("score",)) >= 10
    assert made.count(("extract",)) >= 8


def test_sisters_of_one_family_share_what_their_repositories_do_not_say() -> None:
    for beginning in ("BAAI/bge-", "intfloat/e5-", "nomic-ai/"):
        sisters = [one for one in LISTED if one.id.startswith(beginning) and one.prompts]
        # some are only called so
        sisters = [one for one in sisters if one.architecture not in ("mistral", "gemma2")]
        assert len(sisters) > 1
        assert len({one.pooling for one in sisters}) == 1
    bge = [one for one in ENTRIES if one.prompts and one.id.startswith("BAAI/bge-")]
    bge = [one for one in bge if one.architecture == "bert"]
    texts = {(one.prompts or {})["query"] for one in bge}
    assert len(texts) == 2  # English and Chinese


def test_instructions_are_told_by_their_template() -> None:
    able = {entry.id for entry in ENTRIES if entry.card().instructions}
    assert {"intfloat/multilingual-e5-large-instruct", "Qwen/Qwen3-Embedding-4B"} <= able
    assert "BAAI/bge-multilingual-gemma2" in able
    assert not able & {"intfloat/e5-large", "BAAI/bge-large-en"}


@pytest.mark.parametrize("name", [DEFAULT, "omnivec/bm25"])
def test_the_catalogue_says_what_the_files_say(name: str) -> None:
    """Of the two models whose files are always here."""
    spec = catalog().spec(name)
    checkpoint = locate_here(spec)
    assert checkpoint is not None
    known = spec.card()
    found = Opener(discover("families"), {}, Settings()).family(checkpoint).card(checkpoint)
    told = ("tasks", "kinds", "dims", "sparse_dims", "token_dims", "max_tokens", "scoring")
    for field in (*told, "architecture", "modalities", "instructions", "pooling"):
        assert getattr(known, field) == getattr(found, field), field


def test_gemma_is_served() -> None:
    told = {entry.id: entry.card() for entry in LISTED if (entry.architecture or "")[:5] == "gemma"}
    windows = {
        "google/embeddinggemma-300m": 2048,
        "BAAI/bge-multilingual-gemma2": 8192,
        "BAAI/bge-reranker-v2-gemma": 1024,
    }
    assert {name: card.max_tokens for name, card in told.items()} == windows
    query = told["BAAI/bge-multilingual-gemma2"].prompts["query"]
    assert query == (
        "<instruct>Given a web search query, retrieve relevant passages that answer the query."
        "\n<query>"
    )


def test_an_engine_lists_its_models_before_it_loads_any() -> None:
    cards = local_engine(Settings(models=("BAAI/bge-m3", DEFAULT, "nobody/knows"))).cards
    assert [(card.dims, card.max_tokens) for card in cards] == [
        (1024, 8192),
        (384, 256),
        (None, None),
    ]
    assert [card.state for card in cards] == ["available"] * 3
    assert "hybrid" in cards[0].profiles


# ── reading ──────────────────────────────────────────────────────────────────────────────


def test_what_a_model_says_wins_over_its_group() -> None:
    short, long = Profile(max_seq_length=8), Profile(max_seq_length=64)
    group = Facts(dims=8, tokens=512, profiles={"a": short, "b": short})
    whole = over(Entry(id="x/y", tokens=16, profiles={"b": long, "c": long}), group)
    assert (whole.dims, whole.tokens) == (8, 16)
    assert whole.profiles == {"a": short, "b": long, "c": long}


def test_a_profile_is_written_in_the_words_of_sie() -> None:
    profile = Profile(
        output_types=("multivector", "dense"),
        instruction="Find",
        is_query=True,
        normalize=False,
        dimensions=64,
        max_seq_length=128,
        output_dtype="int8",
    )
    assert profile.wishes() == Wishes(
        kinds=("dense", "multivector"),
        instruction="Find",
        role="query",
        normalize=False,
        dims=64,
        max_tokens=128,
        dtype="int8",
    )
    assert Profile(is_query=False).wishes().role == "document"
    assert Profile(is_query=False, role="clustering").wishes().role == "clustering"
    assert Profile().wishes() == Wishes()


def test_the_shorter_of_two_windows_holds() -> None:
    assert Entry(id="a", dims=8, tokens=512, max_tokens=64).card().max_tokens == 64
    assert Entry(id="a", dims=8, tokens=512).card().max_tokens == 512
