"""Token ids back to text: what LangChain sends is cl100k_base, whatever the model is.

Only decoding is needed, so the table (one line for each token: base64 bytes, rank) is all;
it is OpenAI's `cl100k_base.tiktoken`. tiktoken and the packages that carry the table keep it
under the SHA-1 of its address, and so is it looked for here.
"""

from __future__ import annotations

import binascii
import threading
from collections.abc import Sequence
from pathlib import Path

from omnivec.core.errors import BadRequest

NAMES = ("9b5ad71b2ce5302211f9c61530b329a4922fc6a4", "cl100k_base.tiktoken")
SPECIAL = {
    100257: b"<|endoftext|>",
    100258: b"<|fim_prefix|>",
    100259: b"<|fim_middle|>",
    100260: b"<|fim_suffix|>",
    100276: b"<|endofprompt|>",
}


class Vocabulary:
    """cl100k_base, read from the first of `folders` that has it, when it is first needed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files = [folder / name for folder in folders for name in NAMES]
        self._table: dict[int, bytes] | None = None
        self._lock = threading.Lock()

    def decode(self, ids: Sequence[int], param: str) -> str:
        """The text of `ids`. Raises BadRequest for an id that is none, and where the table
        is absent; half a character at an end becomes U+FFFD, as in tiktoken."""
        table = self._read()
        if table is None:
            raise BadRequest(
                "Token ids cannot be read here: this server has no cl100k_base table. Send text "
                "(LangChain: check_embedding_ctx_length=False), or set TIKTOKEN_CACHE_DIR to the "
                "table's folder, or set token_ids to the model's own vocabulary.",
                param=param,
            )
        try:
            return b"".join([table[i] for i in ids]).decode("utf-8", errors="replace")
        except KeyError:
            raise BadRequest(
                "A token id is outside cl100k_base, which has 0 to 100276.", param=param
            ) from None

    def _read(self) -> dict[int, bytes] | None:
        with self._lock:
            if self._table is None:
                found = next((file for file in self._files if file.is_file()), None)
                if found is not None:
                    self._table = _parse(found.read_bytes())
            return self._table


def _parse(data: bytes) -> dict[int, bytes]:
    pairs = (line.split() for line in data.splitlines() if line)
    return {int(rank): binascii.a2b_base64(token) for token, rank in pairs} | SPECIAL
