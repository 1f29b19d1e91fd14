"""Classifiers against transformers' pipelines."""

from __future__ import annotations

import json
import shutil
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from checkpoints import SENTENCES
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import BadRequest, TooLong, Unsupported
from omnivec.core.nouns import (
    Extract,
    Findings,
    Item,
    Relevance,
    Text,
    Unit,
)
from omnivec.core.steps import Head
from omnivec.engine.findings import find, hypotheses
from omnivec.families.classifier import PLUGIN, TEMPLATE, entailed, keep_second, softmax

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KINDS = ["bert", "roberta", "xlm_roberta", "distilbert", "modernbert", "deberta_v2", "bart"]
TEXTS = [*SENTENCES, "fox", " ".join(SENTENCES)]
LABELS = ("a quick fox", "vectors", "the weather in Berlin", "dog")
NLI = ("contradiction", "neutral", "entailment")
EMOTIONS = ("joy", "anger", "surprise", "fear", "calm")


@cache
def pipeline(task: str, folder: Path) -> Any:
    import transformers

    return transformers.pipeline(task, model=str(folder), device="cpu")


def judge(opened: Any, texts: Sequence[str], labels: Sequence[str], **wishes: Any) -> Any:
    """Each text's findings, all pairs in one batch."""
    task = Extract(tuple(Item((Text(text),)) for text in texts), labels=tuple(labels), **wishes)
    others = hypotheses(task, opened.card)
    units = [Unit((Text(text),), (Text(other),)) for text in texts for other in others]
    return find(task, opened.card, opened.model.forward(opened.model.prepare(units)))


def as_told(told: Any) -> dict[str, float]:
    if isinstance(told, list):
        return {one["label"]: one["score"] for one in told}
    return dict(zip(told["labels"], told["scores"], strict=True))


def assert_same(found: Findings, told: Any) -> None:
    expected = as_told(told)
    assert found.classes
    assert {one.label for one in found.classes} == expected.keys()
    scores = [one.score for one in found.classes]
    np.testing.assert_allclose(scores, [expected[one.label] for one in found.classes], atol=1e-5)
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_zero_shot(tiny, opened, kind: str, multi_label: bool) -> None:
    folder = tiny(kind, num_labels=3, labels=NLI)
    found = judge(opened(folder), TEXTS, LABELS, multi_label=multi_label)
    reference = pipeline("zero-shot-classification", folder)
    told = reference(TEXTS, candidate_labels=list(LABELS), multi_label=multi_label)
    for one, expected in zip(found, told, strict=True):
        assert_same(one, expected)
    assert np.std([one.classes[0].score for one in found]) > 1e-4


@pytest.mark.parametrize(
    "labels",
    [
        ("ENTAILMENT", "NEUTRAL", "CONTRADICTION"),
        ("entailment", "not_entailment"),
        ("not_entailment", "Entailment"),
        ("neutral", "entailed", "contradiction"),
    ],
)
@pytest.mark.parametrize("wanted", [LABELS, LABELS[:1]], ids=["several", "one"])
def test_wherever_entailment_stands(
    tiny, opened, labels: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    folder = tiny("bert", num_labels=len(labels), labels=labels)
    template = "Is this about {}?"
    reference = pipeline("zero-shot-classification", folder)
    for multi_label in (False, True):
        found = judge(opened(folder), TEXTS[:3], wanted, multi_label=multi_label, template=template)
        told = reference(
            TEXTS[:3], list(wanted), hypothesis_template=template, multi_label=multi_label
        )
        for one, expected in zip(found, told, strict=True):
            assert_same(one, expected)


@pytest.mark.parametrize("problem", [None, "multi_label_classification", "regression"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_models_own_labels(tiny, opened, kind: str, problem: str | None) -> None:
    config = {"problem_type": problem}
    folder = tiny(kind, num_labels=len(EMOTIONS), labels=EMOTIONS, config=config)
    model = opened(folder).model
    found = model.forward(model.prepare([Unit((Text(text),)) for text in TEXTS]))
    told = pipeline("text-classification", folder)(TEXTS, top_k=None, truncation=True)
    for one, expected in zip(found, told, strict=True):
        assert [each.label for each in one.classes] == list(EMOTIONS)
        by_label = as_told(expected)
        np.testing.assert_allclose(
            [each.score for each in one.classes],
            [by_label[label] for label in EMOTIONS],
            rtol=0,
            atol=1e-5,
        )


def test_cards(tiny, opened) -> None:
    nli = opened(tiny("bert", num_labels=3, labels=NLI)).card
    assert (nli.tasks, nli.zero_shot, nli.labels) == (("extract",), True, ())
    assert (nli.template, nli.max_tokens) == (TEMPLATE, 64)
    own = opened(tiny("bert", num_labels=5, labels=EMOTIONS)).card
    assert (own.tasks, own.zero_shot, own.labels) == (("extract",), False, EMOTIONS)
    assert own.template == ""


def test_the_catalogue_and_the_checkpoint_may_bring_the_template(tiny, opened, tmp_path) -> None:
    folder = tmp_path / "nli"
    shutil.copytree(tiny("bert", num_labels=3, labels=NLI), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hypothesis_template": "On {}."}))
    assert opened(folder).card.template == "On {}."
    told = {"hypothesis_template": "About {}."}
    assert opened(folder, overrides=told).card.template == "About {}."
    assert opened(folder, overrides={"hypothesis_template": "none"}).card.template == "On {}."


def test_labels_without_names(tiny, tmp_path) -> None:
    folder = tmp_path / "unnamed"
    shutil.copytree(tiny("bert", num_labels=2), folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("id2label", None)  # transformers leaves out what it can guess
    (folder / "config.json").write_text(json.dumps(config))
    assert PLUGIN.card(Checkpoint("x", folder)).labels == ("LABEL_0", "LABEL_1")


def test_claims(tiny) -> None:
    assert PLUGIN.claims(Checkpoint("x", tiny("bert", num_labels=3, labels=NLI)))
    assert PLUGIN.claims(Checkpoint("x", tiny("bert", num_labels=2)))
    assert not PLUGIN.claims(Checkpoint("x", tiny("bert", num_labels=1)))
    assert not PLUGIN.claims(Checkpoint("x", tiny("bert")))
    assert PLUGIN.graphs(Checkpoint("x", tiny("bert"))) == {"main": Head(kind="logits")}


def test_the_text_gives_way_to_its_hypothesis(tiny, opened) -> None:
    model = opened(tiny("bert", num_labels=3, labels=NLI)).model
    long = " ".join(["f"] * 1000)
    (cut,) = model.prepare([Unit((Text(long),), (Text("a b"),))])
    assert (cut.tokens, cut.cut) == (64, True)
    assert cut.arrays["token_type_ids"].tolist() == [0] * 61 + [1] * 3
    (swapped,) = model.prepare([Unit((Text("a b"),), (Text(long),))])
    assert (swapped.tokens, swapped.cut) == (64, True)
    assert keep_second(10, 4, 8) == (4, 4)
    assert keep_second(10, 40, 8) == (0, 8)


def test_faults_name_the_unit(tiny, opened) -> None:
    model = opened(tiny("bert", num_labels=3, labels=NLI)).model
    fox, long = (Text("fox"),), (Text("f " * 100),)
    with pytest.raises(TooLong, match="hypothesis together are longer") as caught:
        model.prepare([Unit(fox, fox), Unit(long, fox, overflow="refuse")])
    assert caught.value.param == "[1]"
    with pytest.raises(BadRequest) as caught:
        model.prepare([Unit(fox, fox), Unit((Text("\ud800"),), fox)])
    assert caught.value.param == "[1]"
    with pytest.raises(Unsupported, match="pairs"):
        model.prepare([Unit(fox)])
    own = opened(tiny("bert", num_labels=5, labels=EMOTIONS)).model
    with pytest.raises(TooLong) as caught:
        own.prepare([Unit(fox), Unit(long, overflow="refuse")])
    assert caught.value.param == "[1]"


@pytest.mark.parametrize("far", [-1e6, -40.0, 0.0, 40.0, 1e6])
def test_far_logits_do_not_overflow(far: float) -> None:
    assert entailed(far, 0.0) == Relevance(
        pytest.approx(1 / (1 + np.exp(-np.clip(far, -700, 700)))), far
    )
    assert np.isfinite(softmax(np.array([[far, 0.0]]))).all()
