"""One frozen struct of settings, and where each value came from.

Flags win over the environment, the environment over the file, the file over the defaults.
This is the only module that reads the environment.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """Everything that `omnivec serve` can be told. Sizes in bytes, times in seconds."""

    # what is served: ids, folders, `alias=id`, `id@revision`; none means the built-in default
    models: tuple[str, ...] = ()
    revision: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "f32", "bf16", "f16"] = "auto"
    runtime: str = "auto"
    offline: bool = False

    # where
    host: str = "127.0.0.1"
    port: int = 8400
    api_keys: tuple[str, ...] = ()
    insecure_no_auth: bool = False
    profile: Literal["openai", "synesis", "intel", "runpod", "sie"] | None = None
    media_root: tuple[str, ...] = ()
    media_allow: tuple[str, ...] = ()
    log_format: Literal["auto", "text", "json"] = "auto"

    # how much
    max_batch_tokens: int | None = None  # tokens of one batch; None: what the runtime likes
    queue: int = 8192  # items that may wait for one model
    max_items: int = 2048  # items in one request
    max_body: int = 32 * 1024 * 1024
    default_dims: int | None = None
    overflow: Literal["truncate", "refuse"] = "truncate"
    token_ids: Literal["cl100k", "model", "refuse"] = "cl100k"

    # how long
    load_wait: float = 20.0  # a request for a model that is loading waits this long
    max_age: float = 2.0  # an item is never overtaken by one that came this much later
    batch_timeout: float = 120.0  # a batch that runs longer is given up
    header_timeout: float = 10.0
    body_timeout: float = 60.0
    drain_timeout: float = 25.0
