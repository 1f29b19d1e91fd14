"""SIE's SDK 0.3.1, which the API reference was written beside. See ../shared/sie_checks.py.

Its wheel asks for Python 3.12; nothing in it needs that, so it is installed for any.
"""

from __future__ import annotations

import checks
import sie_checks
from checks import FOX, MODEL
from sie_checks import client
from sie_sdk import SIEClient


def check_the_server_is_of_no_other_version():
    """It would warn about a server whose minor version is far from its own."""
    assert client.encode(MODEL, {"text": FOX})["dense"].shape == (checks.DIMS,)
    assert SIEClient._version_warning_logged is False


if __name__ == "__main__":
    checks.main({**vars(sie_checks), **globals()})
