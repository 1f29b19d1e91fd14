"""How one model is told of in the lists that OpenAI's and SIE's clients share."""

from __future__ import annotations

import msgspec
import pytest
from dialogue import CARD

from omnivec.core.nouns import Card, Wishes
from omnivec.dialects._models import model_entry

M3 = Card(
    name="BAAI/bge-m3",
    tasks=("encode", "score"),
    kinds=("dense", "sparse", "multivector"),
    dims=1024,
    sparse_dims=250002,
    token_dims=1024,
    max_tokens=8192,
    scoring="cosine",
    profiles={"sparse": Wishes(kinds=("sparse",)), "short": Wishes(max_tokens=64)},
)


def test_a_model_that_is_not_loaded_is_told_of_in_full() -> None:
    """The entry of SIE's page, and what its releases add."""
    entry = model_entry(M3)
    assert entry["name"] == "BAAI/bge-m3"
    assert entry["inputs"] == ["text"]
    assert entry["outputs"] == ["dense", "sparse", "multivector", "score"]
    assert entry["dims"] == {"dense": 1024, "sparse": 250002, "multivector": 1024}
    assert (entry["loaded"], entry["state"], entry["last_error"]) == (False, "available", None)
    assert entry["max_sequence_length"] == 8192


def test_profiles_say_what_they_make() -> None:
    profiles = model_entry(M3)["profiles"]
    assert profiles == {
        "default": {
            "is_default": True,
            "output_types": ["dense"],
            "output_similarity": {"dense": "cosine"},
        },
        "sparse": {
            "is_default": False,
            "output_types": ["sparse"],
            "output_similarity": {"sparse": "dot"},
        },
        "short": {
            "is_default": False,
            "output_types": ["dense"],
            "output_similarity": {"dense": "cosine"},
        },
    }
    late = model_entry(Card(name="m", kinds=("multivector",)))["profiles"]["default"]
    assert late["output_similarity"] == {"multivector": "maxsim"}


def test_what_makes_no_vectors_has_no_dims() -> None:
    reranker = model_entry(Card(name="m", tasks=("score",)))
    assert (reranker["outputs"], reranker["dims"]) == (["score"], {})
    assert reranker["profiles"]["default"]["output_types"] == []
    classifier = model_entry(Card(name="m", tasks=("extract",)))
    assert (classifier["outputs"], classifier["capabilities"]) == (["json"], ["classify"])


@pytest.mark.parametrize("state", ["available", "loading", "loaded", "unloading", "failed"])
def test_every_state_is_told(state: str) -> None:
    entry = model_entry(msgspec.structs.replace(M3, state=state))
    assert entry["state"] == state
    assert entry["loaded"] == (state == "loaded")
    assert (entry["last_error"] is not None) == (state == "failed")


@pytest.mark.parametrize(
    ("cause", "attempts", "permanent"),
    [
        ("GATED", 1, True),
        ("NOT_FOUND", 1, True),
        ("OOM", 3, False),
        ("NETWORK", 1, False),
        ("DEPENDENCY", 1, True),
        ("UNKNOWN", 2, True),
    ],
)
def test_a_failure_is_told_in_fixed_words(cause: str, attempts: int, permanent: bool) -> None:
    card = msgspec.structs.replace(CARD, state="failed", cause=cause, attempts=attempts)
    error = model_entry(card)["last_error"]
    assert error is not None
    assert (error["code"], error["attempts"]) == (cause, attempts)
    assert error["permanent"] is permanent
    assert error["message"].endswith(".")
    assert "secret" not in msgspec.json.encode(model_entry(card)).decode()  # the reason's path


def test_a_failure_without_a_cause_is_an_unknown_one() -> None:
    error = model_entry(msgspec.structs.replace(CARD, state="failed", attempts=1))["last_error"]
    assert error is not None
    assert (error["code"], error["permanent"]) == ("UNKNOWN", True)
