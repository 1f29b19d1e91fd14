"""Settings to a running whole: the one place that sees every room."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from omnivec.core.nouns import Card
from omnivec.core.plugins import discover
from omnivec.core.seams import Watch
from omnivec.core.settings import Settings
from omnivec.engine import hub
from omnivec.engine.catalog import Catalog
from omnivec.engine.local import LocalEngine
from omnivec.engine.resident import Opener, Resident
from omnivec.engine.vocabulary import Vocabulary
from omnivec.engine.work import Splitter

log = logging.getLogger("omnivec")
