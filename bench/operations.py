"""What the models of the benchmark have to compute, to set their rates beside the ceiling."""

from __future__ import annotations

# layers, width, inner width, whether of the last layer only one token is asked for
SHAPES = {
    "default": (6, 384, 1536, False),
    "base": (12, 768, 3072, True),
    "large": (24, 1024, 4096, True),
    "clip": (12, 768, 3072, True),
    "qwen3": (28, 1024, 3072, True),
}
QUERIES = 2048  # the width of Qwen3's queries, and half of them that of its keys


def flop(model: str, tokens: float) -> float:
    """Multiplications and additions of the encoder's layers for one text, unpadded, as far as
    its vector depends on them: of a last layer whose first token alone is pooled, keys and
    values and no more."""
    layers, width, inner, first = SHAPES[model]
    products = 4 * width * width + 2 * width * inner + 2 * tokens * width  # for each token
    last = 2 * width * width if first else products
    if model == "qwen3":  # a gate besides; and a token sees half of the others, in the mean
        last = width * QUERIES
        products = 3 * width * QUERIES + 3 * width * inner + tokens * QUERIES
    return 2.0 * tokens * ((layers - 1) * products + last)
