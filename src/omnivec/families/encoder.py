"""Dense text encoders: a transformer, a pooling, and what modules.json puts behind them.

A last Normalize is left out of the graph: the engine normalises, after it has cut a
Matryoshka vector (decision 13). nomic-embed's layer norm before that cut is in none of its
files, so it is done only where a checkpoint's modules.json has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import activation
from omnivec.core.nouns import (
    Array,
    Card,
    Features,
    Output,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Dense, Head, LayerNorm, Mode, Normalize, Pool, Step
from omnivec.families._adapters import Adapters
from omnivec.families._files import (
    Module,
    architecture,
    kind,
    labels,
    modules,
    positions,
    segments,
    vocabulary,
    window,
)
from omnivec.families._text import Ids, Prompts, Tokeniser, limit, pack, read, refuse

GRAPH = "main"

_MODES: Mapping[str, Mode] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "mean_sqrt_len": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
    "last": "last",
}
# the booleans of older files, in the order in which several are put side by side
_FLAGS: Mapping[str, Mode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
_WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")
_PARTS = ("vision_config", "audio_config")  # models of several towers


class Chain(NamedTuple):
    """What modules.json amounts to: the steps after the transformer and what they make."""

    steps: tuple[Step, ...]
    dims: int
    pooling: str
    include_prompt: bool = True


class EncoderFamily:
    name = "encoder"
    rank = 90

    def claims(self, checkpoint: Checkpoint) -> bool:
        """Any chain of modules but a static one, bare encoders such as `BertModel`, and what
        the catalogue gives a pooling."""
        if labels(checkpoint) or kind(checkpoint) not in ("", "SentenceTransformer"):
            return False
        if chain := modules(checkpoint):
            return all(module.kind != "StaticEmbedding" for module in chain)
        if any(part in checkpoint.config for part in _PARTS):
            return False
        bare = architecture(checkpoint).endswith("Model") or bool(_override(checkpoint))
        return "vocab_size" in checkpoint.config and bare

    def card(self, checkpoint: Checkpoint) -> Card:
        chain = read_chain(checkpoint)
        prompts = Prompts.read(checkpoint)
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("encode", "score"),
            dims=chain.dims,
            max_tokens=window(checkpoint),
            vocabulary=vocabulary(checkpoint),
            prompts=prompts.texts,
            instructions=prompts.instructions,
            pooling=chain.pooling,
            kinds=("dense",),
            scoring="cosine",
            revision=checkpoint.revision,
            adapters=Adapters(checkpoint).names,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        return {GRAPH: Head(kind="pooled", steps=read_chain(checkpoint).steps)}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Encoder:
        return Encoder(checkpoint, sessions[GRAPH])


class Encoder:
    """Texts to vectors, through one session that pools."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        self._tokeniser = Tokeniser(checkpoint)
        self._prompts = Prompts.read(checkpoint)
        self._window = window(checkpoint)
        self._most = positions(checkpoint) or self._window
        self._vocabulary = vocabulary(checkpoint) or self._tokeniser.size
        self._masks = not read_chain(checkpoint).include_prompt
        self._adapters = Adapters(checkpoint)
        self._fill = {"input_ids": self._tokeniser.padding}
        if segments(checkpoint):
            self._fill["token_type_ids"] = 0
        if self._masks:
            self._fill["pool_mask"] = 0
        self._prompt_length = lru_cache(maxsize=256)(partial(_count_prompt, self._tokeniser))

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        prompts = [self._prompts.choose(unit.role, unit.instruction) for unit in units]
        texts: list[str | list[int]] = []
        for i, (unit, prompt) in enumerate(zip(units, prompts, strict=True)):
            text = read(unit.parts, self._vocabulary, f"[{i}]")
            texts.append(prompt + text if isinstance(text, str) else text)
        windows = [limit(self._window, unit.max_tokens) for unit in units]
        return [
            self._features(i, unit, ids, most, prompt if isinstance(text, str) else None)
            for i, (unit, ids, most, prompt, text) in enumerate(
                zip(
                    units,
                    self._tokeniser.encode(texts, windows),
                    windows,
                    prompts,
                    texts,
                    strict=True,
                )
            )
        ]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        rows = self._session.run(pack(batch, self._fill, self._most), alone=alone)["output"]
        return [Vectors(dense=row) for row in rows]

    def close(self) -> None:
        self._session.close()

    def _features(
        self, index: int, unit: Unit, ids: Ids, window: int, prompt: str | None
    ) -> Features:
        """`prompt` None stands for token ids, which get neither prompt nor special tokens."""
        framed = prompt is not None
        room = max(0, window - self._tokeniser.single.size) if framed else window
        cut = ids.more or len(ids.tokens) > room
        if cut and unit.overflow == "refuse":
            raise refuse(window, f"[{index}]")
        kept = ids.tokens[:room]
        row = self._tokeniser.single.ids(kept) if framed else np.array(kept, np.int64)
        arrays = {"input_ids": row, **self._adapters.arrays(unit)}
        if "token_type_ids" in self._fill:
            arrays["token_type_ids"] = np.zeros_like(row)
        if self._masks:
            arrays["pool_mask"] = self._pool_mask(len(row), prompt, window)
        return Features(arrays=arrays, cost=len(row), tokens=len(row), cut=cut)

    def _pool_mask(self, length: int, prompt: str | None, window: int) -> Array:
        """0 over the prompt, as sentence-transformers excludes it (`include_prompt: false`)."""
        mask = np.ones(length, np.int64)
        if prompt:
            mask[: self._prompt_length(prompt, window)] = 0
        return mask


def _count_prompt(tokeniser: Tokeniser, prompt: str, window: int) -> int:
    """The prompt's tokens and the special ones around it, less the last one behind it."""
    frame = tokeniser.single
    ids = tokeniser.encode([prompt], [window])[0].tokens
    length = min(len(ids) + frame.size, window)
    return length - 1 if frame.after else length


# ── modules.json ─────────────────────────────────────────────────────────────────────────


def read_chain(checkpoint: Checkpoint) -> Chain:
    """Raises CheckpointError for a module that is not supported, naming it."""
    listed = modules(checkpoint)
    if not listed:
        modes = _override(checkpoint) or ("mean",)
        told = "" if checkpoint.overrides.get("pooling") else " (assumed: no modules.json)"
        dims = _hidden(checkpoint) * len(modes)
        return Chain((Pool(modes=modes),), dims, "+".join(modes) + told)
    if [module.kind for module in listed[:2]] != ["Transformer", "Pooling"] or listed[0].folder:
        raise CheckpointError(
            f"{checkpoint.name}: modules.json must begin with a Transformer in the root folder "
            f"and a Pooling, not with {' and '.join(map(_say, listed[:2]))}"
        )
    config = _config(checkpoint, listed[1])
    modes = _override(checkpoint) or _modes(checkpoint, config)
    whole = bool(config.get("include_prompt", True))
    steps: list[Step] = [Pool(modes=modes, partial=not whole)]
    dims = _pooled(checkpoint, config) * len(modes)
    for module in listed[2:]:
        step = _step(checkpoint, module)
        if isinstance(step, Dense):
            dims = int(_config(checkpoint, module)["out_features"])
        if step is not None:
            steps.append(step)
    if isinstance(steps[-1], Normalize):
        steps.pop()
    return Chain(tuple(steps), dims, "+".join(modes), whole)


def _say(module: Module) -> str:
    return f"{module.kind} in {module.folder}" if module.folder else module.kind


def _modes(checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[Mode, ...]:
    named = config.get("pooling_mode")
    if named is None:
        return tuple(mode for flag, mode in _FLAGS.items() if config.get(flag)) or ("mean",)
    return _known(checkpoint, [named] if isinstance(named, str) else named)


def _override(checkpoint: Checkpoint) -> tuple[Mode, ...]:
    named = checkpoint.overrides.get("pooling")
    if not named:
        return ()
    return _known(checkpoint, named.split("+") if isinstance(named, str) else named)


def _known(checkpoint: Checkpoint, named: Sequence[str]) -> tuple[Mode, ...]:
    for name in named:
        if name not in _MODES:
            raise CheckpointError(
                f"{checkpoint.name}: pooling mode {name!r} is not one of {', '.join(_MODES)}"
            )
    return tuple(_MODES[name] for name in named)


def _step(checkpoint: Checkpoint, module: Module) -> Step | None:
    if module.kind == "Dense":
        return _dense(checkpoint, module)
    if module.kind == "LayerNorm":
        return LayerNorm(file=_weights(checkpoint, module))
    if module.kind == "Normalize":
        return Normalize()
    if module.kind == "Dropout":  # does nothing outside training
        return None
    raise CheckpointError(
        f"{checkpoint.name}: modules.json has a {module.kind}, which is not supported after a "
        "Pooling; there are Dense, LayerNorm, Normalize and Dropout"
    )


def _dense(checkpoint: Checkpoint, module: Module) -> Dense:
    config = _config(checkpoint, module)
    function = str(config.get("activation_function", "Tanh"))  # sentence-transformers' default
    told = config.get("module_input_name", "sentence_embedding")
    if config.get("use_residual") or told != "sentence_embedding":
        raise CheckpointError(
            f"{checkpoint.name}: {module.folder} is a Dense over {told} "
            "or with a residual connection, which is not supported"
        )
    if not isinstance(config.get("out_features"), int):
        raise CheckpointError(
            f"{checkpoint.name}: {module.file('config.json')} has no out_features"
        )
    try:
        return Dense(file=_weights(checkpoint, module), activation=activation(function))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.name}: {module.folder}: {error}") from error


def _weights(checkpoint: Checkpoint, module: Module) -> str:
    file = module.file("model.safetensors")
    if checkpoint.has(file):
        return file
    pickle = checkpoint.has(module.file("pytorch_model.bin"))
    what = "is only there as a pickle, which can run code" if pickle else "is missing"
    raise CheckpointError(
        f"{checkpoint.name}: {file} {what}; use a revision that has it, or convert it"
    )


def _config(checkpoint: Checkpoint, module: Module) -> Mapping[str, Any]:
    found = checkpoint.json(module.file("config.json"))
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _hidden(checkpoint: Checkpoint) -> int:
    """The width of the hidden states; a test model's options win over its file."""
    found = checkpoint.options.get("dims") or next(
        (checkpoint.config[name] for name in _WIDTHS if name in checkpoint.config), None
    )
    if found is None:
        raise CheckpointError(f"{checkpoint.name}: config.json has none of {', '.join(_WIDTHS)}")
    return int(found)


def _pooled(checkpoint: Checkpoint, config: Mapping[str, Any]) -> int:
    if "dims" in checkpoint.options:
        return _hidden(checkpoint)
    told = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    return told if isinstance(told, int) else _hidden(checkpoint)


PLUGIN = EncoderFamily()
