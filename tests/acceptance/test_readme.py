"""The README's examples, run as they stand (but for the port), and those of the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import live
import pages
from omnivec.core.profiles import PROFILES
from omnivec.core.settings import Settings
from omnivec.engine.catalog import catalog

TEXT = pages.text("README.md")
SERVICES = [f"docs/services/{path.name}" for path in (pages.ROOT / "docs/services").iterdir()]
EXAMPLES = [
    (page, number)
    for page in ("README.md", *sorted(SERVICES))
    for number in range(len(pages.blocks(page, "bash")))
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live.serve() as server:
        yield server.url


@pytest.mark.parametrize(("page", "number"), EXAMPLES)
def test_a_shell_example_works_when_pasted(
    page: str, number: int, url: str, tmp_path: Path
) -> None:
    script = pages.blocks(page, "bash")[number]
    assert "127.0.0.1:8400" in script or "omnivec" in script
    printed = pages.curl(page, number, url, tmp_path)
    assert re.search(r"-?\d\.\d{3}", printed)
    assert "error" not in printed


@pytest.mark.parametrize("number", range(len(pages.blocks("README.md", "python"))))
def test_a_python_example_works_when_pasted(number: int, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(pages.blocks("README.md", "python")[number])
    assert pages.run("python example.py", tmp_path).strip() == "(2, 384) 0"


def test_every_kind_of_example_is_there() -> None:
    assert len(pages.blocks("README.md", "bash")) >= 4
    assert len(pages.blocks("README.md", "python")) >= 1
    make, activate, *_ = pages.blocks("README.md", "console")
    assert "make serve" in make
    assert TEXT.index(activate) > TEXT.index("make serve")


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


@pytest.mark.parametrize("field", Settings.__struct_fields__)
def test_every_setting_is_in_the_table(field: str) -> None:
    elsewhere = {
        "models": "MODEL ...",
        "api_keys": "--api-key`",
        "dialect": "--profile`",  # follows from it
        "tiktoken_cache_dir": "--token-ids",
    }
    assert elsewhere.get(field, _flag(field) + "`") in TEXT


def test_each_service_has_a_page_that_names_its_variables() -> None:
    assert {Path(page).stem for page in SERVICES} == set(PROFILES)
    for name, profile in PROFILES.items():
        told = pages.text(f"docs/services/{name}.md")
        assert [one for one in profile.variables if f"`{one}`" not in told] == []


@pytest.mark.parametrize("page", ["docs/operations.md", *sorted(SERVICES)])
def test_a_page_names_no_flag_that_is_not_there(page: str) -> None:
    known = {_flag(field) for field in Settings.__struct_fields__}
    known |= {"--api-key", "--profile", "--insecure-no-auth"}
    known |= {"--test_input", "--rp_serve_api", "--rp_api_port"}  # of RunPod's SDK
    known |= {"--build-arg", "--target"}  # of docker
    named = set(re.findall(r"(?<![-\w])--[a-z][a-z_-]+", pages.text(page)))
    assert named - known == set()


def test_the_catalogue_of_the_page_can_be_used(tmp_path: Path) -> None:
    (example,) = pages.blocks("docs/operations.md", "toml")
    (tmp_path / "own.toml").write_text(example)
    own = catalog(str(tmp_path / "own.toml"))
    card = own.spec("handbook").card()
    assert (card.name, card.max_tokens, card.pooling) == ("acme/handbook", 128, "mean")
    assert set(card.prompts) == {"query", "document"}
    assert card.profiles["short"].dims == 128


def test_the_file_map_names_every_room() -> None:
    rooms = {path.name for path in (pages.ROOT / "src/omnivec").iterdir() if path.is_dir()}
    for room in rooms - {"__pycache__"}:
        assert re.search(rf"^  {room}/ ", TEXT, re.MULTILINE), room
