"""One self-hosted server for embeddings and reranking; see the README.

`Engine` and `AsyncEngine` are the same engine inside your own program. They are imported
when first asked for, so that `omnivec --help` need not load numpy.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnivec.hosts.embedded import AsyncEngine, Engine

__version__ = "0.1.0"
__all__ = ["AsyncEngine", "Engine", "__version__"]

# a library says nothing until its program sets up logging; what goes wrong is raised, too
logging.getLogger("omnivec").addHandler(logging.NullHandler())


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in ("AsyncEngine", "Engine"):
        from omnivec.hosts import embedded

        return getattr(embedded, name)
    raise AttributeError(f"module 'omnivec' has no attribute {name!r}")
