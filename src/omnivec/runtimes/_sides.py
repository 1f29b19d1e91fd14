"""To which sides a decoder's tokens look, where config.json says it in words that its
architecture has no settled meaning for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

IS_CAUSAL, BOTH_WAYS = "is_causal", "use_bidirectional_attention"
# of models whose windows, or masks, transformers makes by one word and not by the other
_UNSETTLED = {
    "gemma": (BOTH_WAYS,),
    "gemma2": (IS_CAUSAL, BOTH_WAYS),
    "gemma3_text": (IS_CAUSAL,),
}


def reason(architecture: str, config: Mapping[str, Any]) -> str | None:
    """Why no runtime opens it, or None. No model of the hub is known to say such a thing."""
    for key in _UNSETTLED.get(architecture, ()):
        told = config.get(key)
        if told is False if key == IS_CAUSAL else told:
            return f"{architecture} has no attention to both sides by {key!r} of config.json"
    return None
