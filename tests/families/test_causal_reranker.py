"""Language models as rerankers, against sentence-transformers and the models' own recipes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from decoders import build_decoder, edit
from gemmas import build_gemma_reranker
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import TooLong, Unsupported
from omnivec.core.nouns import Text, Tokens, Unit
from omnivec.families.causal_reranker import PLUGIN
from omnivec.families.cross_encoder import PLUGIN as CROSS_ENCODER
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from omnivec.runtimes.torch import PLUGIN as TORCH

TASK = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
# Roles and defaults as in the conversions for sentence-transformers.
TEMPLATE = (
    PREFIX.replace("\n", "\\n").replace('"', '\\"').join(['{{ "', '" }}'])
    + "<Instruct>: {{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') "
    + "| first | default('" + TASK + "') }}\n"
    + "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') "
    + "| first }}\n"
    + "<Document>: {{ messages | selectattr('role', 'eq', 'document') "
    + "| map(attribute='content') | first }}"
    + SUFFIX.replace("\n", "\\n").join(['{{ "', '" }}'])
)  # fmt: skip
QUERY = "How many people live in Berlin?"
DOCUMENTS = (
    "About 3,700,000 of them.",
    "The quick brown fox jumps over the lazy dog.\n\n",
    "",
    "敏捷的棕色狐狸跳过了懒狗。 " * 4,
)
LONG = "The quick brown fox jumps over the lazy dog near the river bank. " * 40


class Opened:
    def __init__(self, checkpoint, runtime=OPENVINO):
        self.card = PLUGIN.card(checkpoint)
        self.head = PLUGIN.graphs(checkpoint)["main"]
        session = runtime.open(checkpoint, "main", self.head, "cpu", "f32")
        self.model = PLUGIN.ready(checkpoint, {"main": session})

    def prepare(self, query, documents, **wishes):
        return self.model.prepare(
            [Unit(parts=(Text(query),), other=(Text(one),), **wishes) for one in documents]
        )

    def raw(self, query, documents, **wishes):
        found = self.model.forward(self.prepare(query, documents, **wishes))
        return [one.raw for one in found]


@pytest.fixture(scope="session")
def qwen(tmp_path_factory):
    """As the hub has it: no files of sentence-transformers."""
    folder = tmp_path_factory.mktemp("judges") / "Qwen3-Reranker-tiny"
    return build_decoder("qwen3", folder, ending="ForCausalLM", ends=False, longest=500)


@pytest.fixture(scope="session")
def converted(qwen, tmp_path_factory):
    """The same, as CrossEncoder saves it, with its own two answers."""
    from sentence_transformers import CrossEncoder

    folder = tmp_path_factory.mktemp("converted") / "ours"
    source = shutil.copytree(qwen, folder.parent / "source")
    (source / "chat_template.jinja").write_text(TEMPLATE)
    CrossEncoder(str(source), device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def mxbai(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges") / "mxbai-rerank-tiny-v2"
    return build_decoder("qwen2", folder, ending="ForCausalLM", ends=False, longest=600)


def logit(folder, ids, plus, minus):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    plus, minus = (tokens.convert_tokens_to_ids(word) for word in (plus, minus))
    return float(logits[plus] - logits[minus])


def reference(folder, query, document, instruction=TASK, longest=500):
    """The recipe of Qwen3-Reranker's README, with transformers."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    prefix, suffix = (tokens.encode(one, add_special_tokens=False) for one in (PREFIX, SUFFIX))
    body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    room = longest - len(prefix) - len(suffix)
    middle = tokens(body, add_special_tokens=False, truncation="longest_first", max_length=room)[
        "input_ids"
    ]
    return [*prefix, *middle, *suffix]


@pytest.mark.parametrize("runtime", [OPENVINO, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("layout", ["hub", "sentence-transformers"])
def test_scores_are_those_of_sentence_transformers(qwen, converted, runtime, layout):
    from sentence_transformers import CrossEncoder

    oracle = CrossEncoder(str(converted), device="cpu")
    pairs = [(QUERY, one) for one in DOCUMENTS]
    opened = Opened(Checkpoint("Qwen3-Reranker", qwen if layout == "hub" else converted), runtime)
    expected = oracle.predict(pairs, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(opened.raw(QUERY, DOCUMENTS), expected, atol=2e-5, rtol=1e-5)
    values = [one.value for one in opened.model.forward(opened.prepare(QUERY, DOCUMENTS))]
    np.testing.assert_allclose(values, oracle.predict(pairs), atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_an_instruction_is_a_system_prompt_there(converted):
    from sentence_transformers import CrossEncoder

    oracle = CrossEncoder(str(converted), device="cpu")
    opened, told = Opened(Checkpoint("tiny", converted)), "Find the answer."
    expected = oracle.predict(
        [(QUERY, one) for one in DOCUMENTS], prompt=told, activation_fn=torch.nn.Identity()
    )
    got = opened.raw(QUERY, DOCUMENTS, instruction=told)
    np.testing.assert_allclose(got, expected, atol=2e-5, rtol=1e-5)
    assert np.abs(np.array(got) - opened.raw(QUERY, DOCUMENTS)).max() > 1e-3


@pytest.mark.parametrize("query", [QUERY, "Berlin", LONG])
@pytest.mark.parametrize("document", [*DOCUMENTS, LONG])
def test_ids_are_those_of_the_models_own_recipe(qwen, query, document):
    opened = Opened(Checkpoint("tiny", qwen))
    (features,) = opened.prepare(query, [document])
    expected = reference(qwen, query, document)
    assert features.arrays["input_ids"].tolist() == expected
    assert features.cut == (LONG in (query, document))
    assert features.tokens == len(expected) <= 500
    (raw,) = opened.raw(query, [document])
    assert raw == pytest.approx(logit(qwen, expected, "yes", "no"), abs=2e-5)


def test_a_request_can_ask_for_a_shorter_window(qwen):
    opened = Opened(Checkpoint("tiny", qwen))
    (features,) = opened.prepare(QUERY, [LONG], max_tokens=380)
    expected = reference(qwen, QUERY, LONG, longest=380)
    assert features.arrays["input_ids"].tolist() == expected
    assert len(expected) == 380


def test_too_long_a_pair_can_be_refused(qwen):
    opened = Opened(Checkpoint("tiny", qwen))
    with pytest.raises(TooLong, match="500 tokens") as caught:
        opened.prepare(QUERY, ["short", LONG], overflow="refuse")
    assert caught.value.param == "[1]"


def test_a_batch_is_its_pairs(qwen):
    opened = Opened(Checkpoint("tiny", qwen))
    alone = [opened.raw(QUERY, [one])[0] for one in DOCUMENTS]
    np.testing.assert_allclose(opened.raw(QUERY, DOCUMENTS), alone, atol=5e-6)


def test_the_answers_are_those_that_a_logit_score_names(converted, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "m")
    (path,) = folder.glob("*LogitScore/config.json")
    told = json.loads(path.read_text())
    own = Opened(Checkpoint("tiny", folder)).head.steps[-1]
    assert (own.plus, own.minus) == (told["true_token_id"], told["false_token_id"])
    path.write_text(json.dumps({"true_token_id": 7, "false_token_id": None}))
    alone = Opened(Checkpoint("tiny", folder)).head.steps[-1]
    assert (alone.plus, alone.minus) == (7, None)
    path.unlink()  # a wrong path in modules.json, as one repository had
    assert Opened(Checkpoint("tiny", folder)).head.steps[-1] == own


def test_a_classifier_made_of_one_is_asked_in_the_same_words(tmp_path):
    folder = build_decoder(
        "qwen3",
        tmp_path / "Qwen3-Reranker-tiny-seq-cls",
        ending="ForSequenceClassification",
        ends=False,
        longest=500,
        config={"num_labels": 1},
    )
    opened = Opened(Checkpoint("tiny", folder))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        ids = torch.tensor([reference(folder, QUERY, DOCUMENTS[0])])
        expected = float(model(input_ids=ids).logits[0, 0])
    assert opened.raw(QUERY, DOCUMENTS[:1])[0] == pytest.approx(expected, abs=2e-5)
    assert opened.head.kind == "logits"


# ── mxbai-rerank-v2 ──────────────────────────────────────────────────────────────────────


def asked(folder, query, document, instruction="", longest=600):
    """As its own code puts the ids together: each part is tokenised by itself."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)

    def ids(text):
        return tokens.encode(text, add_special_tokens=False)

    before = ids(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
        "assistant.<|im_end|>\n<|im_start|>user\n"
    )
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant)."
        "\nRelevance:"
    )
    after = [*ids("\n"), *ids(task), *ids("<|im_end|>\n<|im_start|>assistant\n")]
    told = f"instruction: {instruction}\n" if instruction else ""
    first = ids(f"{told}query: {query}")[: longest * 3 // 4]
    room = longest - len(before) - len(after) - len(first) - 1
    return [*before, *first, *ids("\n"), *ids(f"document: {document}")[:room], *after]


@pytest.mark.parametrize("runtime", [OPENVINO, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("instruction", ["", "Find the answer."])
@pytest.mark.parametrize("document", [DOCUMENTS[0], LONG])
def test_mxbai_is_asked_for_a_one_or_a_zero(mxbai, runtime, instruction, document):
    opened = Opened(Checkpoint("tiny", mxbai), runtime)
    (features,) = opened.prepare(QUERY, [document], instruction=instruction or None)
    expected = asked(mxbai, QUERY, document, instruction)
    assert features.arrays["input_ids"].tolist() == expected
    (found,) = opened.model.forward([features])
    assert found.raw == pytest.approx(logit(mxbai, expected, "1", "0"), abs=3e-5)


def test_a_long_query_leaves_room_for_a_document(mxbai):
    opened = Opened(Checkpoint("tiny", mxbai))
    (features,) = opened.prepare(LONG, ["short"])
    assert features.cut
    assert len(features.arrays["input_ids"]) <= 600


# ── bge-reranker-v2-gemma ────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def gemma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges") / "bge-reranker-v2-gemma"
    return build_gemma_reranker(folder, longest=120)


def carded(folder, query, document, longest=120):
    """The ids of its model card's `get_inputs`: a pair is cut, and the prompt comes behind."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)

    def ids(text, most=None):
        told = {} if most is None else {"truncation": True, "max_length": most}
        return tokens(text, add_special_tokens=False, **told)["input_ids"]

    first = [tokens.bos_token_id, *ids(f"A: {query}", longest * 3 // 4)]
    second = [*ids("\n"), *ids(f"B: {document}", longest)]
    prompt = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'."
    )
    return [*first, *second[: longest - len(first)], *ids("\n"), *ids(prompt)]


@pytest.mark.parametrize("runtime", [OPENVINO, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("query", [QUERY, "", LONG])
@pytest.mark.parametrize("document", [*DOCUMENTS, LONG])
def test_bge_gemma_says_yes_as_on_its_card(gemma, runtime, query, document):
    opened = Opened(Checkpoint("tiny", gemma), runtime)
    (features,) = opened.prepare(query, [document])
    expected = carded(gemma, query, document)
    assert features.arrays["input_ids"].tolist() == expected
    assert features.cut == (LONG in (query, document))
    model = transformers.AutoModelForCausalLM.from_pretrained(gemma).eval()
    yes = transformers.AutoTokenizer.from_pretrained(gemma).convert_tokens_to_ids("Yes")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([expected])).logits[0, -1]
    (found,) = opened.model.forward([features])
    assert found.raw == pytest.approx(float(logits[yes]), abs=1e-5)
    assert found.value == pytest.approx(float(logits[yes].sigmoid()), abs=1e-5)


def test_a_batch_of_bge_gemma_is_its_pairs(gemma):
    opened = Opened(Checkpoint("tiny", gemma))
    alone = [opened.raw(QUERY, [one])[0] for one in DOCUMENTS]
    np.testing.assert_allclose(opened.raw(QUERY, DOCUMENTS), alone, atol=1e-5)
    assert np.ptp(alone) > 0.1


def test_bge_gemma_has_no_place_for_an_instruction(gemma):
    opened = Opened(Checkpoint("tiny", gemma))
    assert not opened.card.instructions
    assert opened.card.max_tokens == 120
    told = opened.raw(QUERY, DOCUMENTS, instruction="Find the answer.")
    assert told == opened.raw(QUERY, DOCUMENTS)


def test_capped_logits_are_refused(gemma, tmp_path):
    folder = shutil.copytree(gemma, tmp_path / "m")
    edit(folder, final_logit_softcapping=30.0)
    told = Checkpoint("tiny", folder, overrides={"judgement": "bge-reranker-v2-gemma"})
    with pytest.raises(CheckpointError, match="capped"):
        PLUGIN.graphs(told)


# ── what is one ──────────────────────────────────────────────────────────────────────────


def test_token_ids_are_spelled(qwen):
    opened = Opened(Checkpoint("tiny", qwen))
    tokens = transformers.AutoTokenizer.from_pretrained(qwen)
    ids = tuple(tokens.encode(DOCUMENTS[0], add_special_tokens=False))
    unit = Unit(parts=(Text(QUERY),), other=(Tokens(ids),))
    spelled = opened.model.prepare([unit])[0].arrays["input_ids"]
    assert spelled.tolist() == opened.prepare(QUERY, DOCUMENTS[:1])[0].arrays["input_ids"].tolist()


def test_it_takes_pairs(qwen):
    with pytest.raises(Unsupported):
        Opened(Checkpoint("tiny", qwen)).model.prepare([Unit(parts=(Text("alone"),))])


def test_its_card(qwen):
    card = PLUGIN.card(Checkpoint("tiny", qwen))
    assert (card.tasks, card.scoring, card.instructions) == (("score",), "cross-encoder", True)
    assert card.max_tokens == 500


def test_which_checkpoints_are_rerankers(qwen, converted, mxbai, tiny, tmp_path):
    assert all(PLUGIN.claims(Checkpoint("tiny", one)) for one in (qwen, converted, mxbai))
    assert not CROSS_ENCODER.claims(Checkpoint("tiny", qwen))
    assert not PLUGIN.claims(Checkpoint("tiny", tiny("bert", num_labels=1)))
    embedder = build_decoder("qwen3", tmp_path / "e", ending="ForCausalLM")
    assert not PLUGIN.claims(Checkpoint("tiny", embedder))
    told = Checkpoint("tiny", embedder, overrides={"judgement": "mxbai-rerank-v2"})
    assert PLUGIN.claims(told)


def test_a_prompt_that_is_not_known_is_refused(converted, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(CheckpointError, match="judgement"):
        PLUGIN.card(Checkpoint("tiny", folder))
    told = Checkpoint("tiny", folder, overrides={"judgement": "qwen3-reranker"})
    assert PLUGIN.card(told).tasks == ("score",)
