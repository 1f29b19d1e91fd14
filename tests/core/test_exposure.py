"""Which folders a server may be told to read its clients' files from."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnivec.core.exposure import check_roots
from omnivec.core.settings import SettingsError, load


def test_a_media_root_is_a_folder_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert check_roots(load({"media_root": (str(tmp_path),)}, {})) is None
    with pytest.raises(SettingsError, match=r"media_root \(flag --media-root\): .* not a folder"):
        check_roots(load({"media_root": (str(tmp_path), str(file))}, {}))
    with pytest.raises(SettingsError, match=r"OMNIVEC_MEDIA_ROOT\): .* does not exist; accepted"):
        check_roots(load({}, {"OMNIVEC_MEDIA_ROOT": str(tmp_path / "absent"), "HOME": "/"}))
    with pytest.raises(SettingsError, match="does not exist"):
        check_roots(load({"profile": "intel", "media_root": (str(tmp_path / "absent"),)}, {}))


def test_the_media_roots_of_a_profile_may_be_absent() -> None:
    assert check_roots(load({"profile": "intel"}, {})) is None
