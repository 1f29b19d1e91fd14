"""A request's media: from everywhere the same pixels, each once, within a budget."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pictures import photo, png, saved
from playing import PNG, Host, host

from omnivec.core.errors import BadRequest, Fault, Overloaded, TooLarge, Unsupported
from omnivec.core.nouns import (
    Blob,
    File,
    Image,
    Item,
    Pixels,
    Source,
    Text,
    Url,
    Video,
)
from omnivec.core.settings import Settings, SettingsError
from omnivec.media import data_uri, load
from omnivec.media.budget import Purse
from omnivec.media.load import Loader, has_media

DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.fixture(scope="module")
def playing() -> Iterator[Host]:
    with host() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.png").write_bytes(PNG)
    (tmp_path / "no.png").write_bytes(b"no picture")
    return tmp_path


def pictures(*sources: Source) -> list[Item]:
    return [Item((Image(source),)) for source in sources]


def read(
    items: Sequence[Item], root: Path | None = None, purse: Purse | None = None
) -> tuple[Item, ...]:
    """Raises a Fault. Nothing may stay taken."""

    async def scenario() -> tuple[Item, ...]:
        settings = Settings(
            media_allow=("127.0.0.1",), media_root=(str(root),) if root else (), port=1
        )
        loader = Loader(settings, purse)
        try:
            async with loader.loaded(items, [f"[{i}]" for i in range(len(items))]) as found:
                assert loader.purse.taken > 0 or not has_media(items)
                return found
        finally:
            assert loader.purse.taken == 0
            loader.close()

    return asyncio.run(scenario())


def test_the_same_picture_from_everywhere(playing: Host, folder: Path) -> None:
    found = read(
        pictures(
            Blob(PNG),
            Url(DATA),
            Url(playing.url + "/good.png"),
            File("good.png"),
            File(str(folder / "good.png")),
        ),
        folder,
    )
    for item in found:
        (part,) = item.parts
        assert isinstance(part, Pixels)
        assert np.array_equal(part.rgb, np.asarray(photo()))


def test_what_is_asked_twice_is_fetched_once(playing: Host) -> None:
    playing.hits.clear()
    found = read(pictures(*[Url(playing.url + "/good.png")] * 32))
    assert playing.hits == ["/good.png"]
    assert len({id(item.parts[0]) for item in found}) == 1


def test_other_parts_stay_where_they_are() -> None:
    item = Item((Text("a"), Image(Blob(PNG)), Text("b")), instruction="so", id="7")
    (found,) = read([item])
    assert [type(part) for part in found.parts] == [Text, Pixels, Text]
    assert (found.instruction, found.id) == ("so", "7")
    assert has_media([item])
    assert not has_media([found])


# ── faults ───────────────────────────────────────────────────────────────────────────────


def fault(*sources: Source, root: Path | None = None, purse: Purse | None = None) -> Fault:
    with pytest.raises(Fault) as refused:
        read(pictures(*sources), root, purse)
    return refused.value


def test_one_text_for_every_url_and_every_cause(playing: Host) -> None:
    urls = [
        "http://169.254.169.254/x",
        "http://localhost:1/x",
        "http://no-such-host.invalid/x",
        "file:///etc/passwd",
        playing.url + "/404",
        playing.url + "/closes",
        playing.url + "/to-metadata",
        "http://127.0.0.1:1/x",
    ]
    faults = [fault(Blob(PNG), Url(url)) for url in urls]
    assert {(type(one), one.message, one.param) for one in faults} == {
        (BadRequest, load.FETCH, "[1]")
    }


def test_one_text_for_every_path_and_every_cause(folder: Path) -> None:
    paths = ["missing.png", "/etc/passwd", "no.png", "..", "/dev/zero", str(folder)]
    faults = [fault(File(path), root=folder) for path in paths]
    assert {(type(one), one.message, one.param) for one in faults} == {
        (BadRequest, load.FILE, "[0]")
    }
    assert fault(File("good.png")).message == load.FILE


def test_bytes_that_are_no_picture() -> None:
    assert fault(Blob(PNG), Blob(PNG), Blob(b"x")).param == "[2]"
    assert fault(Blob(b"")).message == load.UNREADABLE
    assert fault(Blob(png(12_500, 12_000))).message == load.UNREADABLE


def test_a_file_has_a_ceiling(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(load, "PICTURE", len(PNG) - 1)
    assert fault(Blob(PNG)).message == load.UNREADABLE
    assert fault(Url(DATA)).message == load.DATA
    assert fault(File("good.png"), root=folder).message == load.FILE


def test_videos_are_refused_until_they_are_read() -> None:
    with pytest.raises(Unsupported):
        read([Item((Video(Blob(b"x")),))])


def test_settings_of_no_use_are_said_at_start() -> None:
    with pytest.raises(SettingsError):
        Loader(Settings(media_allow=("http://x/",)))


# ── the budget ───────────────────────────────────────────────────────────────────────────


def test_many_large_pictures_are_too_large_together() -> None:
    large = [saved(photo(500, 400, seed=i), "PNG") for i in range(4)]
    room = Purse(2 * (600_000 * 2 + 2_000_000))
    refused = fault(*(Blob(one) for one in [*large]), purse=Purse(2_000_000))
    assert isinstance(refused, TooLarge)
    assert len(read(pictures(*[Blob(large[0])] * 32), purse=Purse(2_000_000))) == 32
    assert len(read(pictures(Blob(large[0]), Blob(large[1])), purse=room)) == 2


def test_what_others_hold_is_not_there_for_this_request() -> None:
    purse = Purse(10_000)
    with purse.opened() as other, purse.opened() as mine:
        other.take(5_000)
        mine.take(1_000)
        purse.take(4_000)
        with pytest.raises(Overloaded) as refused:
            mine.take(3_000)
        assert refused.value.retry_after == 1
    purse.give(4_000)
    assert purse.taken == 0


def test_a_thread_that_is_late_takes_nothing() -> None:
    purse = Purse(10_000)
    with purse.opened() as budget:
        budget.take(10)
    with pytest.raises(TooLarge):
        budget.take(10)
    assert purse.taken == 0


def test_there_may_be_so_many() -> None:
    with pytest.raises(TooLarge, match=str(load.MANY)):
        read(pictures(*(Blob(str(i).encode()) for i in range(load.MANY + 1))))


def test_a_caller_that_leaves_gives_everything_back(playing: Host) -> None:
    async def scenario() -> int:
        loader = Loader(Settings(media_allow=("127.0.0.1",), port=1))
        items = pictures(Blob(PNG), Url(playing.url + "/slow-body"))

        async def ask() -> None:
            async with loader.loaded(items, ["[0]", "[1]"]):
                raise AssertionError("loaded")

        task = asyncio.create_task(ask())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        loader.close()
        return loader.purse.taken

    assert asyncio.run(scenario()) == 0


# ── data URIs ────────────────────────────────────────────────────────────────────────────

BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "uri",
    [
        f"data:image/png;base64,{BASE64}",
        f"DATA:IMAGE/PNG;BASE64,{BASE64}",
        f"data:;base64,{BASE64}",
        f"data:image/jpeg;charset=utf-8;base64,{BASE64}",
        f"data:application/octet-stream;base64,{BASE64}",
        f"data:image/png;base64,{BASE64.rstrip('=')}",
        f"data:image/png;base64,\n{BASE64[:76]}\r\n{BASE64[76:]} ",
        "data:image/png;base64," + BASE64.replace("+", "%2B").replace("/", "%2f"),
    ],
    ids=lambda uri: uri[:40],
)
def test_data_uris_as_clients_write_them(uri: str) -> None:
    assert data_uri.is_one(uri)
    assert data_uri.read(uri, "image/", 10_000) == PNG


@pytest.mark.parametrize(
    "uri",
    [
        "data:",
        "data:,",
        f"data:image/png;base64{BASE64}",
        f"data:image/png,{BASE64}",
        f"data:text/html;base64,{BASE64}",
        f"data:video/mp4;base64,{BASE64}",
        f"data:image/png;base64;x,{BASE64}",
        "data:image/png;base64,",
        "data:image/png;base64,====",
        "data:image/png;base64,not base64!",
        "data:image/png;base64,AAAAA",
        "data:image/png;base64,AA\N{SNOWMAN}A",
        "data:image/png;base64,AA=A",
        "data:" + "a" * 1000 + ";base64," + BASE64,
        "data:image/" + "+" * 200_000,
        "data:image/png;base64," + "A" * 100_000,
    ],
    ids=lambda uri: ascii(uri[:40]),
)
def test_data_uris_that_are_none(uri: str) -> None:
    with pytest.raises(data_uri.Malformed):
        data_uri.read(uri, "image/", 10_000)
