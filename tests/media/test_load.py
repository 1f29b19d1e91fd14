"""A request's media: from everywhere the same pixels, each once, within a budget."""

from __future__ import annotations

import asyncio
import base64
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

import films
import wire
from omnivec.core.errors import AbsentFile, BadRequest, Fault, Overloaded, TooLarge
from omnivec.core.nouns import (
    Blob,
    Clip,
    File,
    Film,
    Image,
    Item,
    Manifest,
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
from pictures import photo, png, saved
from playing import HALF, PNG, Host, host

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


def test_the_log_says_why_a_url_was_not_fetched(
    playing: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "omnivec.media")
    with pytest.raises(BadRequest) as caught:
        read(pictures(Blob(PNG), Url(playing.url + "/404?token=s3cret")))
    assert caught.value.message == load.FETCH
    assert caplog.messages == [f"the URL of [1] was not fetched: {playing.url}: it answered 404"]


def test_one_text_for_every_path_and_every_cause(folder: Path) -> None:
    paths = ["missing.png", "/etc/passwd", "no.png", "..", "/dev/zero", str(folder)]
    faults = [fault(File(path), root=folder) for path in paths]
    assert {(type(one), one.message, one.param) for one in faults} == {
        (AbsentFile, load.FILE, "[0]")
    }
    assert fault(File("good.png")).message == load.FILE


def test_bytes_that_are_no_picture() -> None:
    assert fault(Blob(PNG), Blob(PNG), Blob(b"x")).param == "[2]"
    assert fault(Blob(b"")).message == load.UNREADABLE
    assert fault(Blob(png(12_500, 12_000))).message == load.UNREADABLE


def test_a_file_has_a_ceiling(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(load, "PICTURE", len(PNG) - 1)
    for source in (Blob(PNG), Url(DATA)):
        refused = fault(source)
        assert isinstance(refused, TooLarge)
        assert refused.message == load.LARGE
    assert fault(File("good.png"), root=folder).message == load.FILE


def test_settings_of_no_use_are_said_at_start() -> None:
    with pytest.raises(SettingsError):
        Loader(Settings(media_allow=("http://x/",)))


# ── videos and lists of frames ───────────────────────────────────────────────────────────

VIDEOS = wire.DATA / "video"
BOOK = VIDEOS / "book.mkv"


def film(found: Sequence[Item]) -> Film:
    (part,) = found[0].parts
    assert isinstance(part, Film)
    return part


def test_the_same_film_from_everywhere() -> None:
    clip = Clip(indexes=(3, 0))
    packed = base64.b64encode(BOOK.read_bytes()).decode()
    sources = [File("book.mkv"), File(str(BOOK)), Blob(BOOK.read_bytes())]
    sources.append(Url(f"data:video/x-matroska;base64,{packed}"))
    items = [Item((Video(source, clip),)) for source in sources]
    films = [film([one]) for one in read(items, VIDEOS)]
    for one in films:
        assert len(one.frames) == len(one.times) == 2
        assert one.times == films[0].times
        for mine, first in zip(one.frames, films[0].frames, strict=True):
            assert np.array_equal(mine.rgb, first.rgb)


def test_videos_that_are_none(folder: Path) -> None:
    def refused(source: Source, clip: Clip = Clip()) -> Fault:  # noqa: B008 - frozen
        with pytest.raises(Fault) as found:
            read([Item((Text("a"),)), Item((Video(source, clip),))], folder)
        assert found.value.param == "[1]"
        return found.value

    for path in ("missing.mp4", "no.png", "good.png", "/etc/passwd"):
        assert refused(File(path)).message == load.FILE
    assert isinstance(refused(Blob(b"no video")), BadRequest)
    assert isinstance(refused(Blob(BOOK.read_bytes()), Clip(start=-1)), BadRequest)
    assert refused(Url("file:///etc/passwd")).message == load.FETCH
    assert refused(Url(DATA)).message == load.DATA


def test_a_film_counts_frame_by_frame() -> None:
    with pytest.raises(TooLarge):
        read([Item((Video(File("book.mkv"), Clip(frames=10)),))], VIDEOS, Purse(10_000_000))


def test_a_video_counts_as_often_as_it_is_there() -> None:
    video = films.make(frames=3)
    uri = Url("data:video/mp4;base64," + base64.b64encode(video).decode())

    async def scenario() -> None:
        loader = Loader(Settings(port=1))
        for source, times in ((uri, 1), (Blob(video), 2)):
            items = [Item((Video(source, Clip(frames=0)),))]
            async with loader.flowing(items, ["[0]"]) as pieces:
                async for piece in pieces:
                    held = loader.purse.taken - piece.size
                    assert held == times * len(video)
                    piece.free()
            async with loader.loaded(items, ["[0]"]) as found:
                pixels = sum(frame.rgb.nbytes for frame in film(found).frames)
                assert loader.purse.taken == pixels + (times - 1) * len(video)
        loader.close()

    asyncio.run(scenario())


def test_of_a_fetched_video_only_the_copy_is_kept() -> None:
    video = films.make(frames=3, size=(64, 48)) + bytes(20_000_000)
    uri = Url("data:video/mp4;base64," + base64.b64encode(video).decode())

    async def scenario() -> None:
        loader = Loader(Settings(port=1))
        async with loader.flowing([Item((Video(uri, Clip(frames=0)),))], ["[0]"]) as pieces:
            assert await anext(aiter(pieces))
            assert tracemalloc.get_traced_memory()[0] < len(video) // 2
        loader.close()

    tracemalloc.start()
    try:
        asyncio.run(scenario())
    finally:
        tracemalloc.stop()


def listed(folder: Path, *entries: dict[str, object], video: str | None = None) -> Item:
    frames = [{"timestamp": 0.5, "type": "full_frame", **entry} for entry in entries]
    content = {"frames": frames, "video_path": video}
    (folder / "list.json").write_bytes(msgspec.json.encode(content))
    return Item((Manifest(File("list.json")),))


def test_a_list_of_frames_is_a_film_with_a_frame_for_each_entry(folder: Path) -> None:
    (folder / "book.mkv").write_bytes(BOOK.read_bytes())
    item = listed(
        folder,
        {"frame_number": 5},
        {"frame_number": 0, "image_path": "good.png"},
        {"frame_number": 2},
        {"frame_number": 5},
        video="book.mkv",
    )
    found = film(read([item], folder))
    frames = film(read([Item((Video(File("book.mkv"), Clip(indexes=(2, 5))),))], folder)).frames
    assert np.array_equal(found.frames[1].rgb, np.asarray(photo()))
    for place, frame in ((0, frames[1]), (2, frames[0]), (3, frames[1])):
        assert np.array_equal(found.frames[place].rgb, frame.rgb)


def test_lists_that_are_none(folder: Path) -> None:
    with pytest.raises(AbsentFile) as absent:
        read([Item((Manifest(File("/etc/passwd")),))], folder)
    assert (absent.value.message, absent.value.param) == (load.FILE, "[0]")
    unread = {"frame_number": 0, "image_path": "good.png"}
    for entry in ({**unread, "image_path": "missing.png"}, {"frame_number": 0}):
        with pytest.raises(BadRequest) as refused:
            read([listed(folder, entry, unread, video="missing.mp4")], folder)
        assert type(refused.value) is BadRequest  # the list is there: nothing is absent by its name
        assert (refused.value.message, refused.value.param) == (load.LOST, "[0]")
    with pytest.raises(BadRequest, match="JSON"):
        read([Item((Manifest(File("no.png")),))], folder)
    with pytest.raises(BadRequest, match="2048"):
        read([listed(folder, *[{"frame_number": 0, "image_path": "good.png"}] * 2049)], folder)


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


def test_bodies_count_while_they_come(playing: Host) -> None:
    """Several slow ones take what is there, so another is refused before it is complete."""
    purse = Purse(4 * HALF + HALF // 2)

    async def scenario() -> None:
        loader = Loader(Settings(media_allow=("127.0.0.1",), port=1), purse)

        async def ask(number: int) -> None:
            items = pictures(Url(f"{playing.url}/half?{number}"))
            async with loader.loaded(items, ["[0]"]):
                raise AssertionError("loaded")

        tasks = [asyncio.create_task(ask(number)) for number in range(4)]
        for _ in range(200):
            if purse.taken == 4 * HALF:
                break
            await asyncio.sleep(0.02)
        assert purse.taken == 4 * HALF
        with pytest.raises(Overloaded) as refused:
            await ask(4)
        assert (refused.value.param, refused.value.retry_after) == ("[0]", 1)
        assert purse.taken == 4 * HALF
        for task in tasks:
            task.cancel()
        gone = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in gone)
        assert purse.taken == 0
        loader.close()

    asyncio.run(scenario())


def test_a_body_of_more_than_its_request_may_have_is_not_read_to_its_end(playing: Host) -> None:
    refused = fault(Url(playing.url + "/half"), purse=Purse(HALF))
    assert isinstance(refused, TooLarge)
    assert refused.param == "[0]"


def test_a_body_that_is_cut_short_gives_everything_back(playing: Host) -> None:
    purse = Purse(10 * HALF)
    assert fault(Blob(PNG), Url(playing.url + "/half-only"), purse=purse).message == load.FETCH
    assert purse.taken == 0


def test_files_do_not_count_once_they_are_decoded(playing: Host, folder: Path) -> None:
    purse = Purse(10_000_000)
    pixels = np.asarray(photo()).nbytes

    async def scenario() -> None:
        settings = Settings(media_allow=("127.0.0.1",), media_root=(str(folder),), port=1)
        loader = Loader(settings, purse)
        for source in (Url(playing.url + "/good.png"), Url(DATA), File("good.png")):
            async with loader.loaded(pictures(source), ["[0]"]):
                assert purse.taken == pixels
        async with loader.loaded(pictures(Blob(PNG)), ["[0]"]):
            assert purse.taken == pixels + len(PNG)
        loader.close()

    asyncio.run(scenario())


def test_what_is_given_back_late_is_given_back_once() -> None:
    purse = Purse(10_000)
    with purse.opened() as budget:
        budget.take(30)
        budget.give(10)
        assert purse.taken == 20
    budget.give(20)
    assert purse.taken == 0


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
    assert data_uri.read(uri, "image/") == PNG


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
        "data:image/png;base64," + "A" * 100_001,
    ],
    ids=lambda uri: ascii(uri[:40]),
)
def test_data_uris_that_are_none(uri: str) -> None:
    with pytest.raises(data_uri.Malformed):
        data_uri.read(uri, "image/")


def test_a_data_uri_of_short_lines_costs_no_more_than_its_letters() -> None:
    uri = "data:image/png;base64," + "A \n" * 400_000
    tracemalloc.start()
    try:
        assert data_uri.read(uri, "image/") == bytes(300_000)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(uri)
    finally:
        tracemalloc.stop()
