"""What each service that we stand in for documents of itself: address, port, variables.

Data only. `core/settings.py` reads the variables, and a profile's values stand below
everything that the operator says of omnivec itself and above omnivec's own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Profile(msgspec.Struct, frozen=True):
    """`defaults` by setting. `variables`: which setting an environment variable sets.
    `words`: by variable, what some of its values are called here, in lower case and up to a dot.
    `unused`: variables that are read by nobody here, and why. `file`: a shell-style list of
    the same variables, below /etc/default. `families`: what stands before the `/` in the
    service's own names of models, below which there are no others."""

    defaults: Mapping[str, object]
    variables: Mapping[str, str] = {}
    words: Mapping[str, Mapping[str, str]] = {}
    unused: Mapping[str, str] = {}
    file: str | None = None
    families: tuple[str, ...] = ()


PROFILES: Mapping[str, Profile] = {
    "openai": Profile(defaults={"dialect": "openai"}),
    # the service's page: "All settings use the EMBEDDING_ prefix", 32 inputs a request
    "synesis": Profile(
        defaults={"dialect": "synesis", "host": "0.0.0.0", "port": 8400, "max_items": 32},  # noqa: S104 - documented; refused without a key all the same
        variables={
            "EMBEDDING_MODEL_PATH": "models",
            "EMBEDDING_RERANKER_MODEL_PATH": "models",
            "EMBEDDING_TORCH_DTYPE": "dtype",
            "EMBEDDING_DEFAULT_DIMENSION": "default_dims",
            "EMBEDDING_MAX_BATCH_SIZE": "max_items",
            "EMBEDDING_HOST": "host",
            "EMBEDDING_PORT": "port",
        },
        unused={"EMBEDDING_USE_FLASH_ATTENTION": "the runtime chooses its own attention"},
        file="synesis",
    ),
    # the container listens on 8000 whatever the port outside is called
    "intel": Profile(
        defaults={
            "dialect": "intel",
            "host": "0.0.0.0",  # noqa: S104 - as above
            "port": 8000,
            "media_root": ("/tmp/videoQnA", "/tmp/dataprep"),  # noqa: S108 - where its clients put files
        },
        variables={
            "EMBEDDING_MODEL_NAME": "models",
            "EMBEDDING_DEVICE": "device",
            "EMBEDDING_SERVER_PORT": "port",
            "DEFAULT_START_OFFSET_SEC": "video_start",
            "DEFAULT_CLIP_DURATION": "video_duration",
            "DEFAULT_NUM_FRAMES": "video_frames",
        },
        families=("MobileCLIP", "CLIP", "CN-CLIP", "SigLIP", "Blip2", "QwenText"),
        # its GPU and NPU are Intel's, of which no runtime here knows
        words={"EMBEDDING_DEVICE": {"gpu": "auto", "npu": "auto"}},
        unused={
            "EMBEDDING_USE_OV": "choose with --runtime openvino or --runtime torch",
            **dict.fromkeys(("MODEL_NAME", "VCLIP_MODEL"), "set EMBEDDING_MODEL_NAME"),
            **dict.fromkeys(
                ("INFER_BATCH_SIZE", "VIDEO_FRAME_BATCH_SIZE"),
                "batches are formed by tokens: --max-batch-tokens",
            ),
            **dict.fromkeys(
                ("EMBEDDING_OV_MODELS_DIR", "EMBEDDING_OV_CACHE_DIR", "OV_CACHE_DIR"),
                "no converted model is kept on disk",
            ),
            **dict.fromkeys(
                ("PREPROCESS_WORKERS", "VIDEO_FRAME_DECODER_WORKERS", "OV_PERFORMANCE_MODE"),
                "the engine divides the cores itself",
            ),
            **dict.fromkeys(
                (
                    "VIDEO_FRAME_QUEUE_SIZE",
                    "VIDEO_FRAME_SHM_POOL_BLOCK_SIZE",
                    "VIDEO_FRAME_SHM_POOL_BLOCKS_MULTIPLIER",
                ),
                "frames are not kept in shared memory",
            ),
            **dict.fromkeys(
                ("EMBEDDING_STATIC_SEQ_LEN", "EMBEDDING_CHUNK_LONG_TEXT"),
                "a long text is cut at the model's window: --overflow",
            ),
        },
    ),
    "runpod": Profile(
        defaults={
            "dialect": "runpod",
            "host": "0.0.0.0",  # noqa: S104 - as above
            "port": 8000,
            "queue": 48000,
            "jobs": "~/.local/state/omnivec/jobs.sqlite",
        },
        variables={
            "MODEL_NAMES": "models",
            "DTYPES": "dtype",
            "BACKEND": "runtime",
            "INFINITY_QUEUE_SIZE": "queue",
            "RUNPOD_MAX_CONCURRENCY": "max_jobs",
        },
        unused={
            "BATCH_SIZES": "batches are formed by tokens: --max-batch-tokens",
        },
    ),
    "sie": Profile(
        defaults={"dialect": "sie", "host": "0.0.0.0", "port": 8080, "on_demand": True},  # noqa: S104 - as above
        variables={"SIE_PRELOAD_MODELS": "models"},
    ),
}
