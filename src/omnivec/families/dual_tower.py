"""Models with one tower for texts and one for pictures, whose vectors can be compared: CLIP,
Chinese-CLIP, SigLIP, SigLIP 2, and MobileCLIP as `omnivec convert` writes it.

Both towers' vectors come as projected; the engine normalises them. A video is the mean of its
frames' vectors, each of length 1.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from omnivec.core import towers
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.heads import NORM_FLOOR
from omnivec.core.nouns import (
    Array,
    Card,
    Features,
    Film,
    Floats,
    Output,
    Pixels,
    Text,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Head
from omnivec.core.towers import IMAGE, TEXT
from omnivec.families import _captions, _vision
from omnivec.families._files import architecture, modules, tokenizer_settings, vocabulary, window
from omnivec.families._rows import Rows, Way
from omnivec.families._text import Prompts, pack

CHINESE_WINDOW = 52
"""cn_clip's own, which none of Chinese-CLIP's files tells."""
_CLASSES = ("", "CLIPModel", "ChineseCLIPModel", "SiglipModel", "Siglip2Model")
_CLASSLESS = ("siglip", "mobileclip_fastvit")  # towers without a class token
_MODULES = {"CLIPModel", "Normalize", "Transformer"}
_ONE = "This model takes one text or one picture in each input, and not both."


class DualTowerFamily:
    name = "dual_tower"
    rank = 12

    def claims(self, checkpoint: Checkpoint) -> bool:
        """A checkpoint of transformers, or one of sentence-transformers around it."""
        if not {module.kind for module in modules(checkpoint)} <= _MODULES:
            return False
        home = _home(checkpoint)
        return home.architecture in towers.ARCHITECTURES and architecture(home) in _CLASSES

    def card(self, checkpoint: Checkpoint) -> Card:
        home = _home(checkpoint)
        _vision.read(home, home.part(IMAGE).config)
        prompts = Prompts.read(checkpoint)
        return Card(
            name=checkpoint.name,
            architecture=home.architecture,
            family=self.name,
            tasks=("encode", "score"),
            modalities=(TEXT, IMAGE),
            dims=_dims(home),
            max_tokens=_window(home),
            vocabulary=vocabulary(home.part(TEXT)),
            prompts=prompts.texts,
            instructions=prompts.instructions,
            kinds=("dense",),
            scoring="cosine",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        home, folder = _home(checkpoint), _folder(checkpoint)
        scale = _vision.read(home, home.part(IMAGE).config).scale
        return {
            f"{folder}{TEXT}": Head(kind="tower"),
            f"{folder}{IMAGE}": Head(kind="tower", steps=(scale,)),
        }

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> DualTower:
        text, image = (sessions[f"{_folder(checkpoint)}{tower}"] for tower in (TEXT, IMAGE))
        home, prompts = _home(checkpoint), Prompts.read(checkpoint)
        try:
            return DualTower(Texts(home, text, prompts), Pictures(home, image, text))
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{checkpoint.name}: config.json lacks or garbles {error}, which its towers need; "
                "download the model again"
            ) from error


def _folder(checkpoint: Checkpoint) -> str:
    """What the graphs' names begin with: where sentence-transformers' CLIPModel lies."""
    places = (module.folder for module in modules(checkpoint) if module.kind == "CLIPModel")
    return next((f"{folder}/" for folder in places if folder), "")


def _home(checkpoint: Checkpoint) -> Checkpoint:
    folder = _folder(checkpoint)
    return checkpoint.part(folder.rstrip("/")) if folder else checkpoint


def _dims(home: Checkpoint) -> int:
    if "siglip" in home.architecture:
        return int(home.part(IMAGE).config["hidden_size"])
    return int(home.config.get("projection_dim", 512))


def _window(home: Checkpoint) -> int:
    told = window(home.part(TEXT))
    return min(told, CHINESE_WINDOW) if home.architecture == "chinese_clip" else told


class DualTower:
    """Each unit goes through one of the two towers; they never share a batch."""

    def __init__(self, texts: Texts, pictures: Pictures) -> None:
        session = texts.session
        self.padding = session.padding
        self.streams = min(session.streams, pictures.session.streams)
        self.batch_cost = session.batch_cost
        self._texts = texts
        self._pictures = pictures

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        read = [index for index, unit in enumerate(units) if _is_text(index, unit)]
        prepared = self._texts.prepare([units[index] for index in read], read)
        texts = dict(zip(read, prepared, strict=True))
        return [
            texts[index] if index in texts else self._pictures.prepare(index, unit)
            for index, unit in enumerate(units)
        ]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        tower = self._pictures if batch[0].group == IMAGE else self._texts
        return [Vectors(dense=row) for row in tower.forward(batch, alone=alone)]

    def close(self) -> None:
        self._texts.session.close()
        self._pictures.session.close()


def _is_text(index: int, unit: Unit) -> bool:
    """Raises Unsupported for a unit of both kinds, or of several pictures."""
    seen = [isinstance(part, Pixels | Film) for part in unit.parts]
    if any(seen) and len(seen) > 1:
        raise Unsupported(_ONE, param=f"[{index}]")
    return not any(seen)


# ── texts ────────────────────────────────────────────────────────────────────────────────


class Texts:
    """Texts to vectors. SigLIP and most of MobileCLIP read rows of one length, padding and all."""

    def __init__(self, home: Checkpoint, session: Session, prompts: Prompts) -> None:
        part = home.part(TEXT)
        self.session = session
        self._rows = Rows(part)
        self._prompts = prompts
        self._window = _window(home)
        self._clean = _cleaner(home)
        self._filler = _Filler(part, self._rows) if _is_filled(home) else None

    def prepare(self, units: Sequence[Unit], places: Sequence[int]) -> list[Features]:
        """`places`: where in the request the units are, for what is said of a bad one."""
        frame = self._rows.tokeniser.single
        prompts = [self._prompts.choose(unit.role, unit.instruction) for unit in units]
        ways = [Way("" if self._clean else prompt, frame, self._window) for prompt in prompts]
        if self._clean:
            units = [_cleaned(*pair, self._clean) for pair in zip(units, prompts, strict=True)]
        rows = self._rows.prepare(units, ways, places)
        return [self._features(row.ids, cut=row.cut) for row in rows]

    def forward(self, batch: Sequence[Features], *, alone: bool) -> Floats:
        packed = pack(batch, self._rows.fill, self._rows.most)
        rows: Floats = self.session.run(packed, alone=alone)["output"]
        return rows

    def _features(self, ids: Array, *, cut: bool) -> Features:
        row = self._filler.fill(ids) if self._filler else ids
        arrays = self._rows.arrays(row)
        return Features(arrays=arrays, cost=len(row), tokens=len(ids), group=TEXT, cut=cut)


def _is_filled(home: Checkpoint) -> bool:
    return "siglip" in home.architecture or home.part(TEXT).config.get("causal_mask") is False


class _Filler:
    """Ids up to as many as there are positions, on the side that the tokenizer says."""

    def __init__(self, part: Checkpoint, rows: Rows) -> None:
        told = tokenizer_settings(part)
        named = str(told.get("tokenizer_class", ""))
        side = told.get("padding_side", "left" if named.startswith("Siglip2") else "right")
        self._left = side == "left"
        token = told.get("pad_token")
        word = token.get("content") if isinstance(token, dict) else token
        known = rows.tokeniser.library.token_to_id(str(word))
        self._padding = rows.tokeniser.padding if known is None else known
        if part.architecture.startswith("mobileclip"):  # whose tokenizer says another one
            self._padding = int(part.config["pad_token_id"])
        self._length = rows.most

    def fill(self, ids: Array) -> Array:
        row = np.full(self._length, self._padding, np.int64)
        row[len(row) - len(ids) if self._left else 0 :][: len(ids)] = ids
        return row


def _cleaner(home: Checkpoint) -> Callable[[str], str] | None:
    """What is done to a text before its tokenizer, which does not always do it by itself."""
    if home.architecture == "mobileclip":
        return _captions.clean
    named = str(tokenizer_settings(home).get("tokenizer_class", ""))
    if named.startswith("SiglipTokenizer"):
        return _canonical
    lower = home.architecture == "siglip2" or named.startswith(("Gemma", "Siglip2"))
    return str.lower if lower and "siglip" in home.architecture else None


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _canonical(text: str) -> str:
    """SigLIP's texts: lower case, no ASCII punctuation, single spaces."""
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def _cleaned(unit: Unit, prompt: str, clean: Callable[[str], str]) -> Unit:
    if not unit.parts or not all(isinstance(part, Text) for part in unit.parts):
        return unit
    text = prompt + "\n".join(part.text for part in unit.parts if isinstance(part, Text))
    return msgspec.structs.replace(unit, parts=(Text(clean(text)),))


# ── pictures ─────────────────────────────────────────────────────────────────────────────


class Pictures:
    """Pictures and videos to vectors: a picture is a video of one frame."""

    def __init__(self, home: Checkpoint, session: Session, text: Session) -> None:
        tower = home.part(IMAGE).config
        self.session = session
        self._recipe = _vision.read(home, tower)
        self._tokens = _tokens(tower)
        self._weight = text.batch_cost / session.batch_cost

    def prepare(self, index: int, unit: Unit) -> Features:
        """Each array has an axis of frames first. A batch is judged by the tokens of texts, so
        what a picture costs is told in them."""
        part = unit.parts[0]
        frames = part.frames if isinstance(part, Film) else (part,)
        taken = [self._recipe.take(frame) for frame in frames if isinstance(frame, Pixels)]
        if not taken:
            raise BadRequest("A video has at least one frame.", param=f"[{index}]")
        arrays = {name: np.stack([one[name] for one in taken]) for name in taken[0]}
        shape = arrays.get("spatial_shapes")
        tokens = len(taken) * self._tokens if shape is None else int(shape.prod(1).sum())
        return Features(
            arrays=arrays, cost=max(1, round(tokens * self._weight)), tokens=tokens, group=IMAGE
        )

    def forward(self, batch: Sequence[Features], *, alone: bool) -> list[Floats]:
        frames = [frame for one in batch for frame in _frames(one)]
        widest = max(one.tokens // len(one.arrays["pixel_values"]) for one in batch)
        many = max(1, self.session.batch_cost // widest)
        parts = [frames[at : at + many] for at in range(0, len(frames), many)]
        rows = [self.session.run(_together(part), alone=alone)["output"] for part in parts]
        ends = np.cumsum([len(one.arrays["pixel_values"]) for one in batch])
        return [_mean(part) for part in np.split(np.concatenate(rows), ends[:-1])]


def _tokens(tower: Mapping[str, Any]) -> int:
    """Of a picture of the one size that the tower looks at, its class token with them."""
    if "image_size" not in tower:
        return 0
    squares = (int(tower["image_size"]) // int(tower["patch_size"])) ** 2
    return squares + (not str(tower["model_type"]).startswith(_CLASSLESS))


def _frames(features: Features) -> list[dict[str, Array]]:
    arrays = features.arrays
    count = len(arrays["pixel_values"])
    return [{name: array[at] for name, array in arrays.items()} for at in range(count)]


def _together(frames: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """A session's arrays; where pictures have more patches and fewer, zeros are added to these."""
    if "spatial_shapes" not in frames[0]:
        return {"pixel_values": np.stack([frame["pixel_values"] for frame in frames])}
    each = [frame["pixel_values"] for frame in frames]
    pixels = np.zeros((len(each), max(map(len, each)), each[0].shape[1]), np.uint8)
    for row, one in zip(pixels, each, strict=True):
        row[: len(one)] = one
    shapes = np.stack([frame["spatial_shapes"] for frame in frames])
    return {"pixel_values": pixels, "spatial_shapes": shapes}


def _mean(rows: Floats) -> Floats:
    """Of a video's frames [F, d], each made of length 1 first; of one frame the row itself."""
    if len(rows) == 1:
        return np.asarray(rows[0])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray((rows / np.maximum(lengths, NORM_FLOOR)).mean(0), np.float32)


PLUGIN = DualTowerFamily()
