"""Packed rows against transformers on padded ones: every architecture, on each device here."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from checkpoints import KINDS, MODES, laid_out
from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head, Pool
from omnivec.runtimes._torch import attention, budget
from omnivec.runtimes._torch.architectures import ARCHITECTURES
from omnivec.runtimes._torch.packing import Packing, Run
from omnivec.runtimes.torch import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

torch.set_num_threads(1)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LENGTHS = ((1,), (12, 12), (40, 3, 1, 1, 17, 40), (1, 30, 2))
TOKENS = Head("tokens")
LOGITS = Head("logits")
DECODERS = {
    "qwen3": "Qwen3",
    "qwen2": "Qwen2",
    "llama": "Llama",
    "mistral": "Mistral",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
}
OWN = {
    "gemma2": {"sliding_window": 5, "attn_logit_softcapping": 2.0},
    "gemma3_text": {
        "sliding_window": 6,
        "use_bidirectional_attention": True,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
PADDED = ("mpnet",)
VOCABULARY = 120


def build_decoder(kind: str, folder: Path, *, labels: int = 0, **config: Any) -> Path:
    """Random weights: grouped heads, a head dimension of its own, a window where it has one."""
    import transformers

    told = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        **({"num_labels": labels} if labels else {}),
        **OWN.get(kind, {}),
        **config,
    }
    if kind == "qwen2":
        del told["head_dim"]
    name = DECODERS[kind]
    made = getattr(transformers, f"{name}Config")(**told)
    ending = "ForSequenceClassification" if labels else "Model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}{ending}")(made)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def decoder(tmp_path_factory) -> Callable[..., Path]:
    built: dict[str, Path] = {}

    def decoder(kind: str, **options: Any) -> Path:
        key = f"{kind}{sorted(options.items())}"
        if key not in built:
            built[key] = build_decoder(kind, tmp_path_factory.mktemp(kind), **options)
        return built[key]

    return decoder


@pytest.fixture
def folder_of(tiny, decoder) -> Callable[..., Path]:
    def folder_of(kind: str, labels: int = 0) -> Path:
        if kind in DECODERS:
            return decoder(kind, labels=labels)
        return tiny(kind, **({"num_labels": labels} if labels else {}))

    return folder_of


def opened(folder: Path, head: Head, device: str = "cpu", dtype: str = "f32") -> Any:
    return PLUGIN.open(Checkpoint("tiny", folder), "main", head, device, dtype)


def batch(lengths: tuple[int, ...], padding: int, segments: bool = False) -> dict[str, np.ndarray]:
    width = max(lengths)
    mask = (np.arange(width)[None] < np.array(lengths)[:, None]).astype(np.int64)
    random = np.random.default_rng(sum(lengths))
    ids = np.where(mask, random.integers(5, 100, mask.shape), padding)
    arrays = {"input_ids": ids, "attention_mask": mask}
    if segments:
        arrays["token_type_ids"] = (np.arange(width)[None] > width // 2).astype(np.int64) * mask
    return arrays


def reference(folder: Path, name: str, arrays: dict[str, np.ndarray]) -> Any:
    import transformers

    # the default attention of transformers leaves out Gemma 2's cap
    model = getattr(transformers, name).from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        return model, model(**{key: torch.from_numpy(a) for key, a in arrays.items()})


def padding_of(folder: Path) -> int:
    return int(Checkpoint("tiny", folder).config["pad_token_id"])


def has_segments(kind: str) -> bool:
    return kind in KINDS and KINDS[kind].segments


def test_every_architecture_but_one_runs_packed() -> None:
    kinds = {kind.replace("xlm_", "xlm-") for kind in KINDS} | DECODERS.keys()
    assert kinds - set(PADDED) == ARCHITECTURES.keys()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, *DECODERS])
def test_hidden_states_are_those_of_transformers(folder_of, kind, lengths, device) -> None:
    folder = folder_of(kind)
    arrays = batch(lengths, padding_of(folder), has_segments(kind))
    _, output = reference(folder, "AutoModel", arrays)
    session = opened(folder, TOKENS, device)
    assert session.padding == (kind in PADDED)
    got, real = session.run(arrays)["output"], arrays["attention_mask"] == 1
    expected = output.last_hidden_state.numpy()
    np.testing.assert_allclose(got, expected[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [*KINDS, *DECODERS])
def test_logits_are_those_of_transformers(folder_of, kind, device) -> None:
    folder = folder_of(kind, labels=3)
    session = opened(folder, LOGITS, device)
    for lengths in LENGTHS:
        arrays = batch(lengths, padding_of(folder), has_segments(kind))
        _, output = reference(folder, "AutoModelForSequenceClassification", arrays)
        got = session.run(arrays)["output"]
        np.testing.assert_allclose(got, output.logits.numpy(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [*KINDS, *DECODERS])
def test_a_row_is_the_same_alone_and_in_any_batch(folder_of, kind, device) -> None:
    folder = folder_of(kind)
    arrays = batch((40, 3, 1, 1, 17, 40), padding_of(folder), has_segments(kind))
    arrays["pool_mask"] = arrays["attention_mask"] * (np.arange(40) != 1)
    hidden = opened(folder, TOKENS, device).run(arrays)["output"]
    hidden = laid_out(hidden, arrays["attention_mask"])
    session = opened(folder, Head("pooled", (Pool(MODES),)), device)
    together = session.run(arrays)["output"]
    expected = heads.pool(Pool(MODES), hidden, arrays["attention_mask"], arrays["pool_mask"])
    np.testing.assert_allclose(together, expected, atol=1e-5, rtol=0)
    for row, length in enumerate(arrays["attention_mask"].sum(1)):
        alone = {name: array[row : row + 1, :length] for name, array in arrays.items()}
        got = session.run(alone)["output"][0]
        np.testing.assert_allclose(got, together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "nomic_bert", "qwen3"])
def test_padding_on_the_left_is_what_transformers_makes_of_it(folder_of, kind) -> None:
    folder = folder_of(kind)
    arrays = {k: a[:, ::-1].copy() for k, a in batch((20, 9, 1), padding_of(folder)).items()}
    _, output = reference(folder, "AutoModel", arrays)
    got, real = opened(folder, TOKENS).run(arrays)["output"], arrays["attention_mask"] == 1
    expected = output.last_hidden_state.numpy()
    np.testing.assert_allclose(got, expected[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"sliding_window": 5}, {"is_causal": False}], ids=str)
def test_a_decoder_with_a_window_and_one_that_looks_both_ways(decoder, options) -> None:
    kind = "mistral" if "sliding_window" in options else "qwen2"
    folder = decoder(kind, **options)
    arrays = batch((30, 4, 12), 0)
    _, output = reference(folder, "AutoModel", arrays)
    got, real = opened(folder, TOKENS).run(arrays)["output"], arrays["attention_mask"] == 1
    expected = output.last_hidden_state.numpy()
    np.testing.assert_allclose(got, expected[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["cls", "mean"])
def test_a_modernbert_classifier_pools_as_its_config_says(tiny, mode) -> None:
    folder = tiny("modernbert", num_labels=2, config={"classifier_pooling": mode})
    arrays = batch((12, 7), padding_of(folder))
    _, output = reference(folder, "AutoModelForSequenceClassification", arrays)
    got = opened(folder, LOGITS).run(arrays)["output"]
    np.testing.assert_allclose(got, output.logits.numpy(), atol=1e-5, rtol=0)


def test_a_token_of_the_paddings_id_keeps_its_place(tiny) -> None:
    folder = tiny("xlm_roberta")
    arrays = batch((9, 5), padding_of(folder))
    arrays["input_ids"][0, 3] = arrays["input_ids"][1, 0] = padding_of(folder)
    _, output = reference(folder, "AutoModel", arrays)
    got, real = opened(folder, TOKENS).run(arrays)["output"], arrays["attention_mask"] == 1
    expected = output.last_hidden_state.numpy()
    np.testing.assert_allclose(got, expected[real], atol=1e-5, rtol=0)


def test_a_row_that_attends_to_nothing_gives_zeros(tiny) -> None:
    arrays = batch((9, 5), 0)
    arrays["attention_mask"][1] = 0
    session = opened(tiny("bert"), Head("pooled", (Pool(MODES),)))
    output = session.run(arrays)["output"]
    assert np.isfinite(output).all()
    assert output[0].any()
    assert not output[1].any()


def test_arrays_that_are_no_batch_are_refused(tiny) -> None:
    session, arrays = opened(tiny("bert"), TOKENS), batch((9, 5), 0)
    with pytest.raises(ValueError, match="share one shape"):
        session.run({**arrays, "token_type_ids": np.zeros((2, 3), np.int64)})
    with pytest.raises(ValueError, match="neither of them 0"):
        session.run({name: array[:0] for name, array in arrays.items()})
    assert session.run(arrays)["output"].shape == (14, 32)


@pytest.mark.parametrize("name", ["input_ids", "token_type_ids", "positions"])
def test_numbers_that_no_table_has_are_refused(tiny, name) -> None:
    session = opened(tiny("bert"), TOKENS)
    arrays = batch((9, 5), 0, segments=True)
    wrong = batch((65,), 0) if name == "positions" else {**arrays, name: arrays[name] + 10_000}
    with pytest.raises(ValueError, match="are 0 to"):
        session.run(wrong)
    assert session.run(arrays)["output"].shape == (14, 32)


@pytest.mark.parametrize("device", DEVICES)
def test_two_threads_share_a_session(tiny, device) -> None:
    session = opened(tiny("bert"), Head("pooled", (Pool(("mean",)),)), device)
    batches = [batch((20, rows + 1), 0) for rows in range(16)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(session.run, batches))
    for asked, answer in zip(batches, together, strict=True):
        np.testing.assert_allclose(
            answer["output"], session.run(asked)["output"], atol=1e-6, rtol=0
        )
    if device == "cuda":
        assert session.batch_cost in budget.SIZES


# ── the attention itself ─────────────────────────────────────────────────────────────────


@dataclasses.dataclass
class Layer:
    is_causal: bool


def plain(query, key, value, lengths, causal, window, cap=None):
    """Softmax of the scores, in float64 [heads, S, S], all that is out of reach at -inf."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (states[0].double() for states in (query, key, value))
    k, v = (states.repeat_interleave(groups, 0) for states in (k, v))
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(len(owner))
    distance = place[:, None] - place[None]
    reached = owner[:, None] == owner[None]
    if causal:
        reached &= distance >= 0
    if window:
        reached &= distance.abs() < window
    scores = q @ k.transpose(1, 2) * 0.25
    scores = scores if cap is None else (scores / cap).tanh() * cap
    scores = scores.masked_fill(~reached.to(q.device), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(0, 1)[None]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("cap", [None, 1.5])
def test_attention_is_softmax_within_each_sequence(device, window, causal, groups, cap) -> None:
    lengths = (9, 9, 1, 30, 2)
    half = device == "cuda"  # the variable-length kernel is for these
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, sum(lengths), 16).to(device, torch.bfloat16 if half else None)
        for heads in (4, 4 // groups, 4 // groups)
    )
    packing = Packing(batch(lengths, 0))
    starts = torch.tensor(packing.starts, dtype=torch.int32, device=device)
    sequences = attention.Sequences(starts, packing)
    assert attention._has_kernel(query) is half
    options = {"sequences": sequences, "scaling": 0.25, "sliding_window": window, "softcap": cap}
    got, _ = attention.attend(Layer(causal), query, key, value, None, **options)
    expected = plain(query, key, value, lengths, causal, window, cap)
    assert got.shape == expected.shape
    close = 2e-2 if half else 1e-5
    torch.testing.assert_close(got.double(), expected, atol=close, rtol=0)


@pytest.mark.parametrize("window", [None, 4])
def test_the_kernel_is_called_as_this_torch_declares_it(window) -> None:
    """On tensors without numbers: it runs on GPUs alone."""
    query, key = (torch.empty(14, heads, 16, device="meta") for heads in (4, 2))
    starts = torch.empty(3, dtype=torch.int32, device="meta")
    sequences = attention.Sequences(starts, Packing(batch((5, 9), 0)))
    reach = attention.Reach(causal=True, window=window, scale=0.25)
    got = attention._variable_length(query, key, key, sequences, reach)
    assert got.shape == query.shape


def test_what_a_packed_row_has_no_form_of_is_refused() -> None:
    states = torch.zeros(1, 1, 2, 8)
    sequences = attention.Sequences(torch.tensor([0, 2]), Packing(batch((2,), 0)))
    with pytest.raises(ValueError, match="packed attention"):
        attention.attend(Layer(False), states, states, states, states, sequences=sequences)


def test_runs_are_neighbours_of_one_length() -> None:
    packing = Packing(batch((3, 3, 7, 3), 0))
    assert packing.longest == 7
    assert packing.runs == [Run(0, 2, 3), Run(6, 1, 7), Run(13, 1, 3)]
    assert packing.starts.tolist() == [0, 3, 6, 13, 16]
