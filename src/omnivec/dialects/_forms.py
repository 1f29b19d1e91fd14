"""What a form with files asks for (`curl -F file=@cat.jpg`), as the JSON body that says the same.

A file is an input whatever its field is called. A field that is none of those below has the name
that it has in a body, and its text is read as laxly as numbers in quotation marks are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from omnivec.core.errors import BadRequest
from omnivec.core.form import TEXTS, Form, Upload


def openai(form: Form) -> Mapping[str, Any]:
    """Each text and each file is an item of `input`. Raises BadRequest where there is none."""
    items: list[Any] = []
    for field in form:
        if isinstance(field.value, Upload):
            items.append({field.value.medium: field.value.url})
        elif field.name in TEXTS:
            items.append(field.value)
    _check(items, "input")
    return _others(form) | {"input": items}


def synesis(form: Form) -> Mapping[str, Any]:
    """Each text begins an item, and a file joins it where it follows at once. An `instruction`
    is that of all. Raises BadRequest for a video, and for a form with nothing of both."""
    others = _others(form)
    told = {"instruction": others.pop("instruction")} if "instruction" in others else {}
    items: list[dict[str, str]] = []
    for field in form:
        if not isinstance(field.value, Upload):
            if field.name in TEXTS:
                items.append({"text": field.value, **told})
        elif field.value.medium == "video":
            raise BadRequest("A file here must be an image.", param="inputs")
        elif items and "image" not in items[-1]:
            items[-1]["image"] = field.value.url
        else:
            items.append({"image": field.value.url, **told})
    _check(items, "inputs")
    return others | {"inputs": items}


_CONFIG = ("startOffsetSec", "clip_duration", "num_frames", "extraction_fps", "frame_interval")


def intel(form: Form) -> Mapping[str, Any]:
    """Images, one video or texts; a single one without a list around it. The keys of
    `segment_config` are fields, or it is one that has them as JSON. Raises BadRequest."""
    others = _others(form)
    files = [field.value for field in form if isinstance(field.value, Upload)]
    texts = [field.value for field in form if isinstance(field.value, str) and field.name in TEXTS]
    _check([*files, *texts], "input")
    if files and texts:
        raise BadRequest("A form must have files or texts, and not both.", param="input")
    config = _config(form, others)
    urls = [file.url for file in files]
    if all(file.medium == "image" for file in files):
        name, held = ("image_url", urls) if files else ("text", texts)
        return others | {"input": {"type": name, name: held[0] if len(held) == 1 else held}}
    if len(files) > 1:
        raise BadRequest("A form may have several images or one video.", param="input")
    return others | {"input": {"type": "video_url", "video_url": urls[0], "segment_config": config}}


def _config(form: Form, others: dict[str, Any]) -> dict[str, Any]:
    """The fields that are keys of it are taken out of `others`."""
    try:
        config = msgspec.json.decode(others.pop("segment_config", "{}"), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise BadRequest(
            "`segment_config` must be a JSON object.", param="segment_config"
        ) from None
    config |= {name: others.pop(name) for name in _CONFIG if name in others}
    listed = [
        field.value
        for field in form
        if field.name == "frame_indexes" and isinstance(field.value, str)
    ]
    if listed:
        numbers = ",".join(text.strip("[] ") for text in listed).split(",")
        config["frame_indexes"] = [number.strip() for number in numbers]
    return config


def _check(items: Sequence[object], field: str) -> None:
    if not items:
        raise BadRequest(
            "The form has no file and no `text`; a file is sent as `-F file=@PATH`.", param=field
        )


def _others(form: Form) -> dict[str, Any]:
    """The texts that are no inputs; of equal names the last."""
    return {
        field.name: field.value
        for field in form
        if isinstance(field.value, str) and field.name not in TEXTS
    }
