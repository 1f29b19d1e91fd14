"""Plug-ins of other packages: found, listed, and left out when they are broken."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from omnivec.core import plugins

GOOD = "class Mine:\n    name = 'mine'\n    rank = -1\nPLUGIN = Mine()\n"
FAKE = "class Fake:\n    name = 'fake'\nPLUGIN = Fake()\n"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place on the path with a package that adds four runtimes, three of them badly."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "strange_mine.py").write_text(GOOD)
    (tmp_path / "strange_fake.py").write_text(FAKE)
    (tmp_path / "strange_raises.py").write_text("raise OSError('no such driver')\n")
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    points = {
        "mine": "strange_mine",
        "fake": "strange_fake",
        "gone": "strange_gone",
        "raises": "strange_raises",
    }
    lines = (f"{name} = {module}:PLUGIN\n" for name, module in points.items())
    (info / "entry_points.txt").write_text("[omnivec.runtimes]\n" + "".join(lines))
    return tmp_path


def test_a_broken_plug_in_is_left_out_and_told(
    packages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "omnivec"):
        found = plugins.discover("runtimes")
    built_in = plugins.built_in("runtimes").values()
    ranked = [one.name for one in sorted(built_in, key=lambda one: one.rank)]
    assert list(found) == ["mine", *ranked]
    assert (ranked[0], ranked[-1]) == ("openvino", "fake")
    assert type(found["fake"]).__name__ == "FakeRuntime"
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "plug-in gone (runtimes) of package strange is left out: ModuleNotFoundError" in told
    assert "plug-in raises (runtimes) of package strange is left out: OSError" in told
    assert "plug-in fake (runtimes) of package strange is left out: that name is taken" in told
    assert len(caplog.records) == 3


def test_the_names_need_no_import(packages: Path) -> None:
    added = {"gone", "mine", "raises"}
    assert plugins.names("runtimes") == tuple(sorted({*plugins.built_in("runtimes"), *added}))


def test_what_is_installed_is_listed(packages: Path) -> None:
    listed = {one.name: one for one in plugins.installed("runtimes")}
    assert listed["mine"].package == "strange"
    assert listed["mine"].broken is None
    assert listed["gone"].broken is not None
    assert plugins.installed("dialects") == []


def test_a_broken_built_in_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import omnivec.dialects

    (tmp_path / "broken.py").write_text("raise OSError('broken')\n")
    monkeypatch.setattr(omnivec.dialects, "__path__", [*omnivec.dialects.__path__, str(tmp_path)])
    with pytest.raises(OSError, match="broken"):
        plugins.discover("dialects")
