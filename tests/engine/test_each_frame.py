"""A video frame by frame through the whole engine: decoded while earlier frames are embedded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import films
from omnivec.core.errors import BadRequest, Fault, ModelFailed, TooLarge
from omnivec.core.nouns import (
    Blob,
    Clip,
    Encode,
    Features,
    File,
    Item,
    Manifest,
    Output,
    Result,
    Text,
    Vectors,
    Video,
)
from omnivec.core.settings import Settings
from omnivec.engine import flow
from omnivec.engine.local import LocalEngine
from omnivec.hosts.assemble import local_engine
from pictures import photo, saved

SIZE = (320, 240)
FRAME = SIZE[0] * SIZE[1] * 3
VIDEO = films.make(frames=60, size=SIZE)


class Watch:
    """Notes what an engine's purse and model do: a frame is "decoded" when its memory is taken,
    "embedded" when its batch is done."""

    def __init__(self, engine: LocalEngine) -> None:
        self.events: list[str] = []
        self.most = 0
        self.after: Callable[[str], None] = lambda _event: None
        self.engine = engine
        self.purse = engine._loader.purse
        batcher = engine._residents["seeing"].batcher
        assert batcher is not None
        self.batcher = batcher
        self._take, self._forward = self.purse.take, batcher.model.forward
        self.purse.take = self.take  # type: ignore[method-assign]
        batcher.model.forward = self.forward  # type: ignore[method-assign]

    def take(self, count: int) -> None:
        self._take(count)
        self.most = max(self.most, self.purse.taken)
        if count == FRAME:
            self._note("decoded")

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        outputs = self._forward(batch, alone=alone)
        for _ in batch:
            self._note("embedded")
        return outputs

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.after(event)

    def kill(self) -> None:
        """The process that decodes."""
        for child in self.engine._loader._decoders._busy:
            child.kill()

    async def rest(self) -> None:
        """Nothing is taken, queued or at work any more."""
        for _ in range(200):
            busy = len(self.engine._loader._decoders._busy)
            if (self.purse.taken, self.batcher.depth(), busy) == (0, (0, 0), 0):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("something is left")


def run(scenario: Callable[[Watch], Awaitable[None]], **settings: Any) -> None:
    """And the engine works as well as before afterwards."""

    async def all_of_it() -> None:
        engine = local_engine(
            Settings(models=("seeing=fake:image=on,dims=8,batch_cost=1,faults=on",), **settings)
        )
        await engine.load()
        try:
            watch = Watch(engine)
            await scenario(watch)
            await watch.rest()
            watch.after = lambda _event: None
            assert len((await engine.run(asked(frames=2))).outputs) == 2
        finally:
            await engine.close()

    asyncio.run(all_of_it())


def asked(*parts: Any, frames: int = 0) -> Encode:
    return Encode((Item((*parts, Video(Blob(VIDEO), Clip(frames=frames)))),), each_frame=True)


def rows(result: Result) -> list[list[float]]:
    return [out.dense.tolist() for out in result.outputs if isinstance(out, Vectors)]  # type: ignore[union-attr]


def test_frames_are_embedded_before_the_last_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "AHEAD", 5 * FRAME)

    async def scenario(watch: Watch) -> None:
        result = await watch.engine.run(asked())
        assert result.usage.items == len(result.outputs) == 60
        assert watch.events.count("decoded") == watch.events.count("embedded") == 60
        assert watch.most == 2 * len(VIDEO) + 6 * FRAME  # one waits for room
        assert "embedded" in watch.events[:7]
        assert watch.events[-1] == "embedded"
        timing = result.timing
        assert 0 < timing.prepare <= timing.total

    run(scenario)


def test_they_are_the_same_as_all_at_once() -> None:
    async def scenario(watch: Watch) -> None:
        clips = [Video(Blob(VIDEO), Clip(frames=count)) for count in (5, 7)]
        items = [Item((Text("a"),)), *[Item((Text("b"), clip)) for clip in clips]]
        task = Encode(tuple(items), each_frame=True)
        flowing = await watch.engine.run(task)
        async with watch.engine._loader.loaded(items, ["[0]", "[1]", "[2]"]) as loaded:
            still = await watch.engine.run(msgspec.structs.replace(task, items=loaded))
        assert rows(flowing) == rows(still)
        assert flowing.usage == still.usage
        assert len({tuple(row) for row in rows(flowing)}) > 10
        twice = await watch.engine.run(msgspec.structs.replace(task, items=(items[1], items[1])))
        assert rows(twice) == 2 * rows(flowing)[1:6]

    run(scenario)


def test_a_video_whose_process_dies_half_way_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "AHEAD", FRAME)

    async def scenario(watch: Watch) -> None:
        watch.after = lambda event: watch.kill() if event == "embedded" else None
        with pytest.raises(ModelFailed, match="ended while") as failed:
            await watch.engine.run(asked())
        assert failed.value.param == "[0]"
        assert 0 < watch.events.count("decoded") < 60

    run(scenario)


def test_a_frame_that_fails_ends_its_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "AHEAD", 3 * FRAME)

    async def scenario(watch: Watch) -> None:
        with pytest.raises(ModelFailed):
            await watch.engine.run(asked(Text("[[raise]]")))
        assert watch.events.count("decoded") < 60
        long = msgspec.structs.replace(asked(Text("a " * 5000)), overflow="refuse")
        with pytest.raises(BadRequest) as failed:
            await watch.engine.run(long)
        assert failed.value.param == "[0]"

    run(scenario)


def test_a_caller_that_leaves_ends_its_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "AHEAD", FRAME)

    async def scenario(watch: Watch) -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def begin(event: str) -> None:
            if event == "embedded":
                loop.call_soon_threadsafe(begun.set)

        watch.after = begin
        task = asyncio.create_task(watch.engine.run(asked()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await watch.rest()
        assert watch.events.count("decoded") < 60

    run(scenario)


def test_a_video_beyond_a_full_queue_is_not_refused_half_way() -> None:
    async def scenario(watch: Watch) -> None:
        result = await watch.engine.run(asked())
        assert len(result.outputs) == 60

    run(scenario, queue=1)


def test_a_video_may_have_more_frames_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "AHEAD", 5 * FRAME)

    async def scenario(watch: Watch) -> None:
        watch.purse.each = 10 * FRAME
        assert len((await watch.engine.run(asked())).outputs) == 60
        watch.purse.each = 3 * FRAME
        with pytest.raises(TooLarge):
            await watch.engine.run(asked())
        watch.purse.each = 10 * FRAME

    run(scenario)


# ── lists of frames ──────────────────────────────────────────────────────────────────────


def listed(folder: Path, *entries: tuple[int, str | None]) -> Encode:
    """A manifest of the video's frames by number, or of pictures by name."""
    (folder / "video.mp4").write_bytes(VIDEO)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(saved(photo(*SIZE, seed=number), "PNG"))
    frames = [
        {"timestamp": 0.5, "type": "full_frame", "frame_number": number, "image_path": path}
        for number, path in entries
    ]
    content = {"frames": frames, "video_path": "video.mp4"}
    (folder / "list.json").write_bytes(msgspec.json.encode(content))
    return Encode((Item((Manifest(File("list.json")),)),), each_frame=True)


STRAIGHT = ((3, None), (0, "1.png"), (5, None), (9, "0.png"), (30, None), (59, None))


def test_a_list_of_frames_flows_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "AHEAD", FRAME)

    async def scenario(watch: Watch) -> None:
        straight = rows(await watch.engine.run(listed(tmp_path, *STRAIGHT)))
        assert watch.most < 6 * FRAME  # two pictures are decoded ahead of their turn
        assert watch.events.index("embedded") < len(watch.events) - 6
        await watch.rest()
        crossed = rows(await watch.engine.run(listed(tmp_path, *STRAIGHT[::-1])))
        assert straight == crossed[::-1]
        await watch.rest()
        doubled = rows(await watch.engine.run(listed(tmp_path, *STRAIGHT, (0, "1.png"))))
        assert doubled == [*straight, straight[1]]

    run(scenario, media_root=(str(tmp_path),))


@pytest.mark.parametrize("missing", [(99, None), (0, "missing.png")])
def test_what_a_list_names_and_is_not_there(
    tmp_path: Path, missing: tuple[int, str | None]
) -> None:
    async def scenario(watch: Watch) -> None:
        for entries in ((*STRAIGHT[:3], missing), (*STRAIGHT[2::-1], missing)):
            with pytest.raises(Fault) as failed:
                await watch.engine.run(listed(tmp_path, *entries))
            assert isinstance(failed.value, BadRequest)
            assert failed.value.param == "[0]"

    run(scenario, media_root=(str(tmp_path),))
