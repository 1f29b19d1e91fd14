from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Clip, File, Film, Pixels
from omnivec.media.manifest import Listing, read

MOST = 100
VIDEO = "/tmp/dataprep/a.mp4"


def entry(number: int = 0, path: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "frame_number": number,
        "timestamp": number / 10,
        "image_path": path,
        "type": "full_frame",
        **more,
    }


def listing(content: Any) -> Listing:
    return read(json.dumps(content).encode(), MOST)


def shown(number: int) -> Pixels:
    return Pixels(np.full((1, 1, 3), number, np.uint8))


A, B = "/tmp/dataprep/a.jpg", "/tmp/dataprep/b.jpg"
FRAMES = [entry(3, A), entry(1, B), entry(3, A)]


@pytest.mark.parametrize("content", [FRAMES, {"frames": FRAMES}, {"frames": FRAMES, "x": [{}]}])
def test_a_row_for_each_entry_in_their_order(content: Any) -> None:
    found = listing(content)
    assert (found.video, found.clip) == (None, None)
    assert found.pictures == (File(A), File(B))
    one, two = shown(1), shown(2)
    film = found.film({File(A): one, File(B): two}, {})
    assert film == Film((one, two, one), (0.3, 0.1, 0.3))


def test_entries_without_a_picture_are_frames_of_the_video() -> None:
    found = listing({"frames": [entry(9), entry(2, A), entry(4), entry(9)], "video_path": VIDEO})
    assert found.video == File(VIDEO)
    assert found.clip == Clip(indexes=(4, 9))
    assert found.pictures == (File(A),)
    film = found.film({File(A): shown(1)}, {4: shown(4), 9: shown(9)})
    assert [int(frame.rgb[0, 0, 0]) for frame in film.frames] == [9, 1, 4, 9]


def test_what_its_own_writer_puts_in_twice_stays_twice() -> None:
    metadata = [entry(0, A), entry(0, B, type="detected_crop"), entry(0, A)]
    found = listing(
        {
            "frames": [entry(0, A)],
            "video_path": VIDEO,
            "video_metadata": {"fps": 30},
            "processing_metadata": None,
            "all_frame_metadata": metadata,
            "frame_metadata_map": {"0": [0, 1]},
            "total_metadata_entries": 3,
            "total_frames": 1,
            "extraction_timestamp": "2026-06-01",
        }
    )
    assert [one.image_path for one in found.entries] == [A, B, A]


@pytest.mark.parametrize("absent", ["video_path", "frame_metadata_map", "total_metadata_entries"])
def test_only_a_whole_index_takes_the_place_of_the_frames(absent: str) -> None:
    content = {
        "frames": [entry(0, A)],
        "video_path": VIDEO,
        "all_frame_metadata": [entry(0, B)] * 2,
        "frame_metadata_map": {},
        "total_metadata_entries": 2,
    }
    assert len(listing(content).entries) == 2
    assert [one.image_path for one in listing({**content, absent: None}).entries] == [A]


def test_every_field_of_a_crop() -> None:
    crop = entry(
        7,
        A,
        type="detected_crop",
        frame_interval=15,
        is_detected_crop=True,
        detection_confidence=0.5,
        crop_bbox=[0.4, 0, 10.6, 20],
        crop_index=0,
        detected_label="car",
        merged_boxes_count=2,
        context_expansion_applied=False,
    )
    (found,) = listing([crop]).entries
    assert (found.frame_number, found.timestamp, found.image_path) == (7, 0.7, A)


def test_a_picture_that_is_not_there_is_told_and_not_left_out() -> None:
    found = listing({"frames": [entry(0, A), entry(5)], "video_path": VIDEO})
    with pytest.raises(BadRequest, match="entry 0"):
        found.film({}, {5: shown(5)})
    with pytest.raises(BadRequest, match="entry 1"):
        found.film({File(A): shown(0)}, {4: shown(4)})


CANARY = "canary7f3a"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Invalid JSON in manifest file"),
        (b"{", "Invalid JSON in manifest file"),
        (b"[", "Invalid JSON in manifest file"),
        (b"\xff", "Invalid JSON in manifest file"),
        (b'{"a":' * 100_000, "Invalid JSON in manifest file"),
        (b"null", "must be an object with `frames`"),
        (b'"canary7f3a"', "must be an object with `frames`"),
        ([], "No valid frame images found in manifest"),
        ({"frames": []}, "No valid frame images found in manifest"),
        ({}, "`frames` is required"),
        ({"frames": CANARY}, "`frames` has a value"),
        ({"frames": [CANARY]}, r"`frames\[0\]` has a value"),
        ([entry(0, A), {}], r"`frames\[1\]\.frame_number` is required"),
        ([entry(-1, A)], r"`frames\[0\]\.frame_number`"),
        ([entry(0, A, timestamp=-1)], r"`frames\[0\]\.timestamp`"),
        ([entry(0, A, timestamp=CANARY)], r"`frames\[0\]\.timestamp`"),
        ([entry(0, A, type=CANARY)], r"`frames\[0\]\.type`"),
        ([entry(0, 5)], r"`frames\[0\]\.image_path`"),  # type: ignore[arg-type]
        ([entry(0, A, frame_interval=0)], r"`frames\[0\]\.frame_interval`"),
        ([entry(0, A, detection_confidence=1.1)], r"`frames\[0\]\.detection_confidence`"),
        ([entry(0, A, crop_bbox=[0, 0, 1])], r"`frames\[0\]\.crop_bbox`"),
        ([entry(0, A, crop_bbox=[0, 0, -1, 1])], r"`frames\[0\]\.crop_bbox"),
        ([entry(0, A, crop_bbox=[5, 0, 5.2, 1])], r"`frames\[0\]\.crop_bbox` must be left"),
        ([entry(0, A, crop_bbox=[0, 9, 1, 1])], r"`frames\[0\]\.crop_bbox` must be left"),
        ([entry(0, A, crop_index=-1)], r"`frames\[0\]\.crop_index`"),
        ([entry(0, A), entry(1)], r"`frames\[1\]\.image_path` is required where"),
        ([entry(0, "")], r"`frames\[0\]\.image_path` is required where"),
        ({"frames": [entry(0)], "video_path": CANARY, "total_metadata_entries": CANARY},
         "`total_metadata_entries`"),
        ([entry(0, A)] * (MOST + 1), "`frames` may have at most 100 entries"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_place(content: Any, words: str) -> None:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(BadRequest, match=words) as caught:
        read(raw, MOST)
    assert CANARY not in caught.value.message
    assert len(caught.value.message) < 200
