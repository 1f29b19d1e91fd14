"""Qwen3-VL-Embedding and Qwen3-VL-Reranker: texts, pictures, videos, and all of them mixed.

Both are one architecture and a chat prompt whose last token is read: as a vector, or for whether
"yes" or "no" would follow. For texts alone the language model within is enough. Prompts, budgets
and lengths are those of the models' own repository; the recipe is in its scripts, not in its files.
Two things differ. A text that is too long is cut at its own end, where the scripts cut the
prompt's, pictures and all. And a video's frames are those of its film: more than one a second, or
more than 64, are thinned out evenly.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import Unsupported
from omnivec.core.heads import PICTURES
from omnivec.core.nouns import (
    Array,
    Card,
    Features,
    Film,
    Loaded,
    Output,
    Pixels,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Contrast, Head, Pool, Step
from omnivec.core.towers import TEXT
from omnivec.families._chat import Mark, Piece, Scribe, Words, sort
from omnivec.families._files import Module, modules, part, positions, window
from omnivec.families._pairs import relevance
from omnivec.families._patches import (
    Budget,
    Cutter,
    Patches,
    fit,
    join,
    read_cutter,
    read_scale,
)
from omnivec.families._text import Prompts, pack

GRAPH = "main"
TASK = "Represent the user's input."
RANKING = "Given a search query, retrieve relevant candidates that answer the query."
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
EMBEDDING_WINDOW = 8192
RANKING_WINDOW = 10240
NOTHING = "NULL"

START, END = Mark("<|im_start|>"), Mark("<|im_end|>")
SEEN, UNSEEN = Mark("<|vision_start|>"), Mark("<|vision_end|>")
PICTURE, VIDEO = "<|image_pad|>", "<|video_pad|>"
MARKS = (START.token, END.token, SEEN.token, UNSEEN.token, PICTURE, VIDEO)

SQUARE = 32 * 32  # pixels of one token, from which the budgets are reckoned
STILL = Budget(4 * SQUARE, 1800 * SQUARE)
FRAME = Budget(128 * SQUARE, 768 * SQUARE)
FILM = 10 * FRAME.most  # for every two frames, which share their tokens
FEWEST, MOST = 4, 64  # frames of a video
RATE = 1.0  # of them a second

_CHAIN = {"Transformer", "Pooling", "Normalize", "LogitScore", "Dropout"}


class Qwen3VLFamily:
    name = "qwen3_vl"
    rank = 12

    def claims(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.architecture == "qwen3_vl"

    def card(self, checkpoint: Checkpoint) -> Card:
        ranks, text = is_reranker(checkpoint), part(checkpoint.config, "text_config")
        width = text.get("hidden_size")
        prompts = Prompts.read(checkpoint)
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("score",) if ranks else ("encode", "score"),
            modalities=("text", "image", "video"),
            extra="torch",
            dims=None if ranks else width,
            kinds=() if ranks else ("dense",),
            max_tokens=_window(checkpoint),
            vocabulary=text.get("vocab_size"),
            prompts={} if ranks else prompts.texts,
            instructions=True,
            pooling="" if ranks else "last",
            scoring="cross-encoder" if ranks else "cosine",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        ranks = is_reranker(checkpoint)
        steps: tuple[Step, ...] = (Pool(("last",)), *([_answers(checkpoint)] if ranks else []))
        return {
            GRAPH: Head("contrast" if ranks else "pooled", (read_scale(checkpoint), *steps)),
            TEXT: Head("pooled", steps, spare=True),
        }

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Embedder | Reranker:
        kind = Reranker if is_reranker(checkpoint) else Embedder
        return kind(checkpoint, Graphs(sessions))


Knife: TypeAlias = Callable[[Sequence[Pixels], tuple[int, int]], Patches]


class Shown(NamedTuple):
    """What a prompt shows, in its order: pictures, and frames of videos, each with the size
    (height, width) that it is resized to; the two lie as PICTURES has them."""

    pictures: list[tuple[Sequence[Pixels], tuple[int, int]]]
    films: list[tuple[Sequence[Pixels], tuple[int, int]]]


class Graphs:
    """The sessions that there are: for all there is, for texts alone, or both."""

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        self.padding = max(one.padding for one in sessions.values())
        self.streams = min(one.streams for one in sessions.values())
        self.batch_cost = min(one.batch_cost for one in sessions.values())
        self._sessions = sessions

    def group(self, shown: Shown, param: str) -> Hashable:
        """The name of the graph for a prompt. Raises Unsupported where there is none."""
        if TEXT in self._sessions and not any(shown):
            return TEXT
        if GRAPH not in self._sessions:
            raise Unsupported("This model takes text; it cannot read images.", param=param)
        return GRAPH

    def run(self, group: Hashable, arrays: Mapping[str, Array], *, alone: bool) -> Array:
        """A batch of one group to float32 [B, d]."""
        return self._sessions[str(group)].run(arrays, alone=alone)["output"]

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()


class Reader:
    """Prompts with what they show, to ids and patches, and batches of them."""

    def __init__(self, checkpoint: Checkpoint, graphs: Graphs) -> None:
        self._graphs = graphs
        self._scribe = Scribe(checkpoint, MARKS)
        self._cutter: Cutter = read_cutter(checkpoint, part(checkpoint.config, "vision_config"))
        self._window = _window(checkpoint)
        self._most = positions(checkpoint) or self._window

    def show(self, parts: Sequence[Loaded], shown: Shown, param: str) -> list[Piece]:
        """An item as its piece of a prompt: videos, then pictures, then texts. Raises BadRequest,
        Unsupported."""
        content = sort(parts, param)
        pieces: list[Piece] = []
        for film in content.films:
            pieces += self._film(thin(film), shown, param)
        for picture in content.pictures:
            size = fit(picture, self._cutter.factor, STILL, param)
            shown.pictures.append(((picture,), size))
            pieces += [SEEN, Mark(PICTURE, self._cutter.tokens(size)), UNSEEN]
        if not pieces and not content.text:
            return [Words(NOTHING)]
        return [*pieces, Words(content.text, own=True)]

    def knife(self) -> Knife:
        """Cuts each picture once, as long as it lives: many pairs may have one query."""
        made: dict[tuple[object, ...], Patches] = {}

        def cut(frames: Sequence[Pixels], size: tuple[int, int]) -> Patches:
            key = (*map(id, frames), size)
            if key not in made:
                made[key] = self._cutter.cut(frames, size)
            return made[key]

        return cut

    def features(
        self, index: int, unit: Unit, pieces: Sequence[Piece], shown: Shown, cut: Knife
    ) -> Features:
        """Raises TooLong and Unsupported, which name the unit."""
        group = self._graphs.group(shown, f"[{index}]")
        row = self._scribe.write(index, unit, pieces, self._window)
        arrays = {"input_ids": row.ids}
        for name, sights in zip(PICTURES, shown, strict=True):
            if sights:
                patches = [cut(frames, size) for frames, size in sights]
                arrays[name] = np.concatenate([one.pixels for one in patches])
                arrays[PICTURES[name]] = np.array([one.grid for one in patches], np.int64)
        length = len(row.ids)
        return Features(arrays=arrays, cost=length, tokens=length, group=group, cut=row.cut)

    def run(self, batch: Sequence[Features], *, alone: bool) -> Array:
        """Of each row what the head makes of it: float32 [B, d]."""
        return self._graphs.run(batch[0].group, self.pack(batch), alone=alone)

    def pack(self, batch: Sequence[Features]) -> dict[str, Array]:
        arrays = pack(batch, {"input_ids": self._scribe.padding}, self._most)
        if batch[0].group == TEXT:
            return arrays
        ids, numbers = arrays["input_ids"], self._scribe.numbers
        types = (ids == numbers[PICTURE]) + 2 * (ids == numbers[VIDEO])
        arrays["mm_token_type_ids"] = types.astype(np.int64)
        return arrays | join(batch)

    def _film(self, film: Film, shown: Shown, param: str) -> list[Piece]:
        """Each step in time with its time before it, as transformers 4.57 has it, which the
        models were trained with; 5.10 and later put one more pair of marks around the whole."""
        size = fit(film.frames[0], self._cutter.factor, share(len(film.frames)), param)
        shown.films.append((film.frames, size))
        pieces: list[Piece] = []
        for seconds in moments(film.times, self._cutter.temporal):
            sight = Mark(VIDEO, self._cutter.tokens(size))
            pieces += [Words(f"<{seconds:.1f} seconds>"), SEEN, sight, UNSEEN]
        return pieces


class Embedder:
    """Items to the state of their prompt's last token."""

    def __init__(self, checkpoint: Checkpoint, graphs: Graphs) -> None:
        self.padding = graphs.padding
        self.streams = graphs.streams
        self.batch_cost = graphs.batch_cost
        self._graphs = graphs
        self._reader = Reader(checkpoint, graphs)
        self._prompts = Prompts.read(checkpoint)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        """An instruction wins over the prompt of the role, and that over the model's own."""
        cut = self._reader.knife()
        return [self._features(index, unit, cut) for index, unit in enumerate(units)]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        rows = self._reader.run(batch, alone=alone)
        return [Vectors(dense=row) for row in rows]

    def close(self) -> None:
        self._graphs.close()

    def _features(self, index: int, unit: Unit, cut: Knife) -> Features:
        shown = Shown([], [])
        told = unit.instruction or self._prompts.choose(unit.role) or TASK
        item = self._reader.show(unit.parts, shown, f"[{index}]")
        return self._reader.features(index, unit, chat(sentence(told), item), shown, cut)


class Reranker:
    """Pairs of a query (`Unit.parts`) and a document (`Unit.other`) to scores: the sigmoid of
    how much likelier "yes" is than "no"."""

    def __init__(self, checkpoint: Checkpoint, graphs: Graphs) -> None:
        self.padding = graphs.padding
        self.streams = graphs.streams
        self.batch_cost = graphs.batch_cost
        self._graphs = graphs
        self._reader = Reader(checkpoint, graphs)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        """A fault of the query names `query`, of a document its unit (`[3]`)."""
        cut = self._reader.knife()
        return [self._features(index, unit, cut) for index, unit in enumerate(units)]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        rows = self._reader.run(batch, alone=alone)
        return [relevance(float(row[0])) for row in rows]

    def close(self) -> None:
        self._graphs.close()

    def _features(self, index: int, unit: Unit, cut: Knife) -> Features:
        if unit.other is None:
            raise Unsupported("This model scores pairs.", param=f"[{index}]")
        shown = Shown([], [])
        asked: list[Piece] = [
            Words(f"<Instruct>: {unit.instruction or RANKING}<Query>:"),
            *self._reader.show(unit.parts, shown, "query"),
            Words("\n<Document>:"),
            *self._reader.show(unit.other, shown, f"[{index}]"),
        ]
        return self._reader.features(index, unit, chat(JUDGE, asked), shown, cut)


# ── prompts ──────────────────────────────────────────────────────────────────────────────


def chat(system: str, item: Sequence[Piece]) -> list[Piece]:
    """The checkpoints' chat template, of a system's turn and a user's, up to the answer."""
    return [
        *(START, Words(f"system\n{system}"), END, Words("\n")),
        *(START, Words("user\n"), *item, END, Words("\n")),
        *(START, Words("assistant\n")),
    ]


def sentence(instruction: str) -> str:
    """With a full stop, unless it ends in some punctuation."""
    stripped = instruction.strip()
    if stripped and not unicodedata.category(stripped[-1]).startswith("P"):
        return f"{stripped}."
    return stripped


# ── videos ───────────────────────────────────────────────────────────────────────────────


def thin(film: Film) -> Film:
    """At most RATE frames a second and MOST in all, an even number where there are more."""
    count = len(film.frames)
    if count <= FEWEST:
        return film
    span = (film.times[-1] - film.times[0]) * count / (count - 1)  # the last one lasts, too
    wanted = int(min(max(span * RATE, FEWEST), MOST)) // 2 * 2
    if count <= wanted:
        return film
    chosen = np.linspace(0, count - 1, wanted).round().astype(int)
    return Film(
        frames=tuple(film.frames[i] for i in chosen), times=tuple(film.times[i] for i in chosen)
    )


def share(frames: int) -> Budget:
    """Of each of so many frames."""
    even = frames + frames % 2
    most = max(min(FRAME.most, FILM / even * 2), int(1.05 * FRAME.least))
    return Budget(FRAME.least, int(most))


def moments(times: Sequence[float], together: int) -> list[float]:
    """The middle of each step in time, of `together` frames, the last of which is repeated."""
    full = [*times, *[times[-1]] * (-len(times) % together)]
    return [(full[at] + full[at + together - 1]) / 2 for at in range(0, len(full), together)]


# ── files ────────────────────────────────────────────────────────────────────────────────


def is_reranker(checkpoint: Checkpoint) -> bool:
    """By its modules, where there are some, or else by its name: the architectures are one."""
    listed = {module.kind for module in _chain(checkpoint)}
    if listed & {"LogitScore", "Pooling"}:
        return "LogitScore" in listed
    return "rerank" in f"{checkpoint.name} {checkpoint.folder.name}".lower()


def _chain(checkpoint: Checkpoint) -> list[Module]:
    listed = modules(checkpoint)
    for module in listed:
        if module.kind not in _CHAIN:
            raise CheckpointError(
                f"{checkpoint.name}: modules.json has a {module.kind}, which is not supported with "
                "Qwen3-VL"
            )
    return listed


def _window(checkpoint: Checkpoint) -> int:
    usual = RANKING_WINDOW if is_reranker(checkpoint) else EMBEDDING_WINDOW
    return window(checkpoint, usual=checkpoint.overrides.get("max_tokens") or usual)


def _answers(checkpoint: Checkpoint) -> Contrast:
    """The ids of "yes" and "no": as a LogitScore has them, or the tokenizer."""
    for module in _chain(checkpoint):
        told = checkpoint.json(module.file("config.json")) if module.kind == "LogitScore" else None
        if isinstance(told, dict) and {"true_token_id", "false_token_id"} <= told.keys():
            return Contrast(int(told["true_token_id"]), int(told["false_token_id"]))
    numbers = Scribe(checkpoint, ("yes", "no")).numbers
    return Contrast(numbers["yes"], numbers["no"])


PLUGIN = Qwen3VLFamily()
