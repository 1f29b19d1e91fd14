"""Files by name: those below a root, and nothing that leads out of it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnivec.media.files import Forbidden, Roots

MOST = 1000


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A root with honest files, and everything that is none; secrets are beside it."""
    root = tmp_path / "root"
    (root / "inner" / "most").mkdir(parents=True)
    (root / "a.png").write_bytes(b"a")
    (root / "inner" / "most" / "b.png").write_bytes(b"b")
    (root / "ü c.png").write_bytes(b"c")
    (root / "full").write_bytes(b"x" * MOST)
    (root / "over").write_bytes(b"x" * (MOST + 1))
    with (root / "sparse").open("wb") as file:
        file.truncate(10 * 2**30)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root-of-another").mkdir()
    (tmp_path / "root-of-another" / "x").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "link-inside").symlink_to("a.png")
    (root / "link-folder").symlink_to(tmp_path)
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        yield root


def test_files_by_the_whole_path_and_by_the_one_below_a_root(tree: Path) -> None:
    roots = Roots([str(tree)])
    assert roots.read(f"{tree}/a.png", MOST) == b"a"
    assert roots.read("a.png", MOST) == b"a"
    assert roots.read("inner/most/b.png", MOST) == b"b"
    assert roots.read(f"{tree}//inner/./most/b.png", MOST) == b"b"
    assert roots.read("ü c.png", MOST) == b"c"
    assert roots.read("full", MOST) == b"x" * MOST


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "/",
        "{root}",
        "{root}/",
        "{root}/missing",
        "{root}/inner",
        "{root}/a.png/b",
        "{root}/../secret",
        "{root}/inner/../a.png",
        "{root}/../root/a.png",
        "{root}-of-another/x",
        "{outside}/secret",
        "secret",
        "../secret",
        "inner/../../secret",
        "..%2fsecret",
        "{root}/link",
        "link",
        "link-inside",
        "link-folder/secret",
        "link-folder/root/a.png",
        "dangling",
        "fifo",
        "socket",
        "over",
        "sparse",
        "a.png\0.jpg",
        "a.png\udcff",
        "~/a.png",
        "x" * 300,
        "x/" * 4000,
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "/dev/fd/0",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "file:///etc/passwd",
    ],
    ids=lambda path: ascii(path[:30]),
)
def test_what_is_not_read(tree: Path, path: str) -> None:
    named = path.format(root=tree, outside=tree.parent)
    with pytest.raises(Forbidden) as refused:
        Roots([str(tree)]).read(named, MOST)
    assert str(refused.value) == ""


def test_no_root_no_file(tree: Path) -> None:
    with pytest.raises(Forbidden):
        Roots([]).read(f"{tree}/a.png", MOST)


def test_several_roots_and_a_root_that_is_a_link(tree: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.symlink_to(tree)
    roots = Roots([str(tmp_path / "root-of-another"), str(tmp_path / "gone"), str(linked)])
    assert roots.read("x", MOST) == b"secret"
    assert roots.read("a.png", MOST) == b"a"
    assert roots.read(f"{linked}/a.png", MOST) == b"a"
    with pytest.raises(Forbidden):
        roots.read(f"{tree}/a.png", MOST)


def test_devices_below_a_root_are_not_opened() -> None:
    for path in ("/dev/zero", "zero", "null", "stdin", "fd/0"):
        with pytest.raises(Forbidden):
            Roots(["/dev"]).read(path, MOST)
    for path in ("self/environ", "self/fd/0", "1/environ", "self/root/etc/passwd"):
        with pytest.raises(Forbidden):
            Roots(["/proc"]).read(path, MOST)


def test_swapping_a_file_for_a_link_never_shows_the_secret(tree: Path) -> None:
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for what in ("link", "honest"):
                made = tree / "made"
                if what == "link":
                    made.symlink_to(tree.parent / "secret")
                else:
                    made.write_bytes(b"a")
                made.replace(tree / "swapped")

    thread = threading.Thread(target=swap)
    thread.start()
    found = set()
    try:
        for _ in range(2000):
            try:
                found.add(Roots([str(tree)]).read("swapped", MOST))
            except Forbidden:
                found.add(b"refused")
    finally:
        over.set()
        thread.join()
    assert found <= {b"a", b"", b"refused"}  # empty: between its making and its writing


def test_no_descriptor_is_left_open(tree: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("a.png", "inner/most/b.png", "fifo", "link", "over", "missing", "inner", "x/y"):
        try:
            Roots([str(tree)]).read(path, MOST)
        except Forbidden:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
