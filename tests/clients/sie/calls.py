"""SIE's SDK 0.10.1, sync and async, against a running omnivec. See ../shared/sie_checks.py.

Its wheel asks for Python 3.12; nothing in it needs that, so it is installed for any.
"""

from __future__ import annotations

import checks
import sie_checks
from checks import FOX, MODEL
from sie_checks import ITEMS, client


def check_the_result_names_its_model():
    assert client.encode(MODEL, {"text": FOX})["model"] == MODEL


def check_usage_is_counted():
    results = client.encode(MODEL, ITEMS)
    assert len(results) == len(ITEMS)
    assert client.score(MODEL, {"text": FOX}, ITEMS)["usage"]["input_tokens"] > 0


if __name__ == "__main__":
    checks.main({**vars(sie_checks), **globals()})
