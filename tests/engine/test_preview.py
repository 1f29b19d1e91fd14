"""What is known of a model before it is loaded, and that loading only confirms it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import Card
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings
from omnivec.engine.catalog import DEFAULT, catalog
from omnivec.engine.hub import locate_here
from omnivec.engine.preview import first_card, named
from omnivec.engine.resident import Opener
from omnivec.hosts.assemble import local_engine

OPENER = Opener(discover("families"), {}, Settings())
TOLD = ("tasks", "kinds", "dims", "sparse_dims", "token_dims", "max_tokens", "scoring")


def never(checkpoint: Checkpoint) -> Card:
    raise AssertionError(f"{checkpoint.name} was read")


@pytest.mark.parametrize("name", [DEFAULT, "omnivec/bm25"])
def test_the_catalogue_says_what_the_files_say(name: str) -> None:
    spec = catalog().spec(name)
    checkpoint = locate_here(spec)
    assert checkpoint is not None
    known, found = spec.card(), OPENER.card(checkpoint)
    for field in (*TOLD, "architecture", "modalities", "instructions"):
        assert getattr(known, field) == getattr(found, field), field
    if known.pooling:
        assert known.pooling == found.pooling


def test_a_known_models_files_are_not_read() -> None:
    card = first_card(catalog().spec("BAAI/bge-m3"), never)
    assert (card.dims, card.max_tokens, card.state) == (1024, 8192, "available")


def test_a_folders_small_files_tell_all(tmp_path: Path) -> None:
    spec = catalog().spec("fake:dims=24")
    (tmp_path / "model").mkdir()
    for name in ("config.json", "modules.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).write_bytes((Path(spec.source) / name).read_bytes())
    assert first_card(spec, OPENER.card).dims == 24
    card = first_card(catalog().spec(f"mine={tmp_path / 'model'}"), OPENER.card)
    assert (card.name, card.aliases) == ("mine", ("model",))
    assert card.tasks == ("encode", "score")
    assert card.dims is not None  # and there are no weights in that folder


def test_a_name_stays_where_nothing_is_known(tmp_path: Path) -> None:
    def broken(checkpoint: Checkpoint) -> Card:
        raise CheckpointError(checkpoint.name)

    for argument in ("nobody/knows-this", str(tmp_path / "absent")):
        spec = catalog().spec(argument)
        assert first_card(spec, never) == Card(name=spec.name)
    assert first_card(catalog().spec("fake"), broken) == Card(name="fake")


def test_profiles_stay_when_the_files_are_read() -> None:
    known = catalog().spec("mine=BAAI/bge-m3").card()
    card = named(Card(name="x", dims=8), known)
    assert (card.name, card.aliases, card.dims) == ("mine", ("BAAI/bge-m3",), 8)
    assert card.profiles == known.profiles


def test_an_engine_lists_its_models_before_it_loads_any() -> None:
    cards = local_engine(Settings(models=("BAAI/bge-m3", "fake:dims=8", DEFAULT))).cards
    assert [card.dims for card in cards] == [1024, 8, 384]
    assert [card.state for card in cards] == ["available"] * 3
    assert all(card.created > 0 for card in cards)
    assert msgspec.structs.asdict(cards[2])["max_tokens"] == 256
