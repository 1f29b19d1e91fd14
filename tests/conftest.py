"""What every test needs: no hub, one thread a library, and where the real data is."""

from __future__ import annotations

import os

os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", NO_COLOR="1"
)

from adapters import tiny_adapters  # noqa: F401 - as above
from checkpoints import tiny_checkpoints  # noqa: F401 - the environment comes first
from sparse_checkpoints import sparse_checkpoints  # noqa: F401
