"""The GPU path against sentence-transformers on the same device: `python -m bench.gpu`.

Two shapes at real size with random weights, mixed lengths, the whole way from texts to vectors
on both sides, alternating. Without a GPU it says so, checks itself on two tiny models, and
measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.places import MODELS, QUIET, RESULTS

os.environ.update(QUIET)  # noqa: TID251 - for the libraries, which have no other ear for it

import numpy as np
import torch

from bench.machine import commit, describe, now
from bench.models import default_model
from bench.texts import corpus, words
from omnivec import Engine

ROUNDS = 7
TEXTS = 8192
LONGEST = 512  # tokens of the mixed texts, about; the models take more
BATCHES = (32, 128, 512)  # rows that sentence-transformers is tried with; its best one counts
CLOSE = {"f32": 0.9999, "bf16": 0.99}  # the least cosine of both sides' vectors
APART = 0.9  # and the middle one of what is left without the texts' mean: they are told apart


class Case(NamedTuple):
    """`classes`: the prefix of transformers' classes; `pooling` as sentence-transformers
    spells its flag; `told`: the configuration at real size."""

    title: str
    classes: str
    pooling: str
    causal: bool
    told: Mapping[str, Any]


CASES = {
    "qwen3-embedding-0.6b": Case(
        "Qwen3-Embedding-0.6B shape",
        "Qwen3",
        "lasttoken",
        causal=True,
        told={
            "vocab_size": 151669,
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "max_position_embeddings": 32768,
        },
    ),
    "bge-m3": Case(
        "XLM-R-large shape (bge-m3)",
        "XLMRoberta",
        "cls_token",
        causal=False,
        told={
            "vocab_size": 250002,
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "max_position_embeddings": 8194,
            "type_vocab_size": 1,
        },
    ),
}
TINY = {
    "vocab_size": 30522,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 1026,
}
TINY_DECODER = {"num_key_value_heads": 2, "head_dim": 16}


# ── models and texts ─────────────────────────────────────────────────────────────────────


def build(name: str, *, tiny: bool) -> Path:
    """The checkpoint's folder, written first where it is not there. The tokenizer is the
    default model's: a text has as many tokens in each shape."""
    import transformers

    case = CASES[name]
    folder = MODELS / f"gpu-{name}{'-tiny' if tiny else ''}"
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    told = dict(case.told)
    if tiny:
        told |= TINY | (TINY_DECODER if case.causal else {})
    torch.manual_seed(0)
    config = getattr(transformers, f"{case.classes}Config")(
        **told, pad_token_id=0, initializer_range=0.05
    )
    model = getattr(transformers, f"{case.classes}Model")(config)
    model.to(torch.float32 if tiny else torch.bfloat16).save_pretrained(folder)
    shutil.copy(default_model() / "tokenizer.json", folder)
    _write_settings(folder, case, config.hidden_size)
    (folder / "done").touch()
    return folder


def _write_settings(folder: Path, case: Case, width: int) -> None:
    """In the old spelling of sentence-transformers' files, as most repositories have them."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"))
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds)
    ]
    flags = {f"pooling_mode_{mode}": mode == case.pooling for mode in ("cls_token", "lasttoken")}
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1024,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
    }
    (folder / "1_Pooling").mkdir()
    for path, value in {
        "modules.json": modules,
        "tokenizer_config.json": tokenizer,
        "sentence_bert_config.json": {"max_seq_length": 1024, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_mean_tokens": False,
            **flags,
        },
    }.items():
        (folder / path).write_text(json.dumps(value))


def lognormal(count: int) -> list[str]:
    """Texts of 16 to LONGEST tokens, most of them short, a few long."""
    chosen, source = random.Random(0), words()
    texts = []
    for _ in range(count):
        tokens = min(LONGEST, max(16, round(chosen.lognormvariate(4.6, 0.8))))
        size = max(1, int(tokens / 1.35))  # tokens of an English word
        start = chosen.randrange(len(source) - size)
        texts.append(" ".join(source[start : start + size]))
    return texts


def mixes(count: int) -> dict[str, list[str]]:
    found = corpus()
    repeated = [found[at % len(found)] for at in range(count)] if found else []
    return {"lognormal": lognormal(count)} | ({"xquad": repeated} if found else {})


def lengths(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Tokens of each text, as both sides make them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return np.array([min(1024, len(one.ids)) for one in tokenizer.encode_batch_fast(list(texts))])


# ── what it costs ────────────────────────────────────────────────────────────────────────


def operations(folder: Path, case: Case, tokens: np.ndarray) -> float:
    """Floating-point operations of a forward pass: two for each weight of a matrix and token,
    and the products of attention. Tables and the pooler are left out."""
    from safetensors import safe_open

    weights = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                shape = tensors.get_slice(name).get_shape()
                if len(shape) == 2 and "embed" not in name and "pooler" not in name:  # noqa: PLR2004
                    weights += shape[0] * shape[1]
    config = json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"]
    width = heads * (config.get("head_dim") or config["hidden_size"] // heads)
    pairs = float((tokens.astype(np.float64) ** 2).sum()) * (0.5 if case.causal else 1)
    return 2.0 * weights * float(tokens.sum()) + 4 * config["num_hidden_layers"] * width * pairs


def ceiling(device: str) -> float:
    """Operations a second of one large bf16 matrix product: the best of several."""
    best = 0.0
    for size in (4096, 8192, 16384) if device == "cuda" else (512,):
        a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
        for _ in range(8):
            best = max(best, 2 * size**3 / timed(lambda: a @ b, device))  # noqa: B023 - called here
    return best


def timed(work: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


# ── the two sides ────────────────────────────────────────────────────────────────────────

Side = Callable[[Sequence[str]], np.ndarray]


def ours(stack: ExitStack, folder: Path, device: str, dtype: str) -> Side:
    engine = stack.enter_context(
        Engine(str(folder), device=device, dtype=dtype, runtime="torch", queue=1 << 20)
    )
    return lambda texts: engine.embed(list(texts))


def theirs(folder: Path, device: str, dtype: str) -> Any:
    from sentence_transformers import SentenceTransformer

    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    told = {"dtype": kind, "attn_implementation": "sdpa"}
    return SentenceTransformer(str(folder), device=device, model_kwargs=told)


def best_batch(model: Any, texts: Sequence[str], device: str) -> int:
    """The rows in a batch that suit it best."""
    return min(BATCHES, key=lambda rows: timed(lambda: encode(model, rows)(texts), device))


def encode(model: Any, rows: int) -> Side:
    return lambda texts: model.encode(list(texts), batch_size=rows, normalize_embeddings=True)


def compare(name: str, device: str, dtype: str, count: int, rounds: int) -> list[dict[str, Any]]:
    """A row of the table for each mix of lengths."""
    case, folder = CASES[name], build(name, tiny=device == "cpu")
    most = ceiling(device) if dtype == "bf16" else None
    rows = []
    with ExitStack() as stack:
        us, model = ours(stack, folder, device, dtype), theirs(folder, device, dtype)
        for mix, texts in mixes(count).items():
            tokens = lengths(folder, texts)
            batch = best_batch(model, texts[: count // 4], device)
            them = encode(model, batch)
            found = {"shape": case.title, "mix": mix, "texts": count, "tokens": int(tokens.sum())}
            found |= {"dtype": dtype, "their_batch": batch} | closeness(us, them, texts)
            found |= pair(us, them, texts, tokens, device, rounds)
            if most:
                rate = operations(folder, case, tokens) / tokens.sum() * found["ours"]
                found |= {"ceiling_tflops": most / 1e12, "share": rate / most}
            rows.append(found)
    return rows


def closeness(us: Side, them: Side, texts: Sequence[str]) -> dict[str, float]:
    """The least cosine of the first texts' vectors, and the middle one of the vectors less
    their mean: those of random weights are all alike."""
    one, other = (side(texts[:256]).astype(np.float64) for side in (us, them))
    apart = cosines(one - one.mean(0), other - other.mean(0))
    return {"cosine": float(cosines(one, other).min()), "apart": float(np.median(apart))}


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / norms


def pair(
    us: Side, them: Side, texts: Sequence[str], tokens: np.ndarray, device: str, rounds: int
) -> dict[str, Any]:
    """Tokens a second of both, alternating; `ratio` is the median of the rounds' own."""
    total = float(tokens.sum())
    rates = [[total / timed(lambda s=side: s(texts), device) for side in (us, them)]
             for _ in range(rounds + 1)][1:]  # fmt: skip # the first warms both up
    ratios = sorted(one / other for one, other in rates)
    return {
        "ours": statistics.median(one for one, _ in rates),
        "theirs": statistics.median(other for _, other in rates),
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
    }


# ── the command ──────────────────────────────────────────────────────────────────────────


def said(row: Mapping[str, Any]) -> str:
    return f"cosine {row['cosine']:.6f}, less the mean {row['apart']:.6f}"


def show(row: Mapping[str, Any]) -> str:
    share = f", {row['share']:.0%} of the bf16 ceiling" if "share" in row else ""
    return (
        f"{row['shape']}, {row['mix']}: {row['ours']:,.0f} tokens/s against "
        f"{row['theirs']:,.0f} (batches of {row['their_batch']}): {row['ratio']:.2f} x "
        f"[{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]{share}; {said(row)}"
    )


def check(rows: Sequence[Mapping[str, Any]]) -> int:
    """1 when somebody's vectors are wrong: a fast wrong answer does not count."""
    wrong = [
        row for row in rows if not (row["cosine"] >= CLOSE[row["dtype"]] and row["apart"] >= APART)
    ]
    for row in wrong:
        print(f"WRONG: {row['shape']}, {row['mix']}: {said(row)}", file=sys.stderr)
    return int(bool(wrong))


def self_check() -> int:
    print("There is no GPU here: nothing is measured. Checking the command on the processor …")
    torch.set_num_threads(1)
    rows = [row for name in CASES for row in compare(name, "cpu", "f32", 24, 1)]
    for row in rows:
        print(f"  {row['shape']}, tiny, {row['mix']}: {said(row)}")
    print("The same command measures on a machine with a CUDA device.")
    return check(rows)


def measure(names: Sequence[str], count: int, rounds: int) -> int:
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    rows: list[dict[str, Any]] = []
    for name in names:
        for row in compare(name, "cuda", "bf16", count, rounds):
            rows.append(row)
            print(show(row), flush=True)
    number, changed = commit()
    result = {
        "date": now(),
        "commit": number,
        "changed": changed,
        "command": "python -m bench.gpu " + " ".join(sys.argv[1:]),
        "machine": describe() | {"gpu": torch.cuda.get_device_name()},
        "torch": torch.__version__,
        "rows": rows,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"gpu-{now()}-{number}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"stored in {path.relative_to(RESULTS.parents[1])}")
    return check(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--shape", choices=[*CASES], action="append", help="default: all")
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    told = parser.parse_args()
    if not torch.cuda.is_available():
        return self_check()
    return measure(told.shape or list(CASES), told.texts, told.rounds)


if __name__ == "__main__":
    sys.exit(main())
