"""Texts in, vectors or scores out: the files of `omnivec embed` and `omnivec rerank`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

KINDS = {"": "jsonl", ".json": "jsonl", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy"}
Rows = Any  # an array: float32 [n, d] for vectors, [n] for scores


class InputError(Exception):
    """The input cannot be read as texts. The text says where and what is accepted."""


class Record(NamedTuple):
    """`place` counts lines from 1; `id` is the caller's own, of any JSON type."""

    place: int
    text: str
    id: object = None


# ── in ───────────────────────────────────────────────────────────────────────────────────


class Texts:
    """The texts of a file, or of standard input for "-".

    `kind` "text": each line is one, an empty one too. "jsonl": each line is a string, or an
    object with `text` and perhaps `id`; empty lines are skipped. "auto": by the file's name,
    else by its first line. Raises InputError.
    """

    def __init__(self, name: str, kind: str = "auto") -> None:
        self.name, self.kind = name, kind
        self.path = None if name == "-" else Path(name)
        if self.path is not None and not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "does not exist"
            raise InputError(f"{name} {what}; accepted: a file, or - for standard input")

    def count(self) -> int | None:
        """Lines, when the file can be read twice."""
        if self.path is None or not self.path.is_file():
            return None
        with self.path.open("rb") as file:
            blocks = iter(lambda: file.read(1 << 20), b"")
            last, found = b"\n", 0
            for block in blocks:
                found += block.count(b"\n")
                last = block[-1:]
        return found + (last != b"\n")

    def chunks(self, size: int) -> Iterator[list[Record]]:
        """As many records at once, the last time fewer."""
        with self._open() as file:
            records = self._records(file)
            while chunk := list(islice(records, size)):
                yield chunk

    def _open(self) -> IO[bytes]:
        if self.path is None:
            return open(sys.stdin.fileno(), "rb", closefd=False)
        return self.path.open("rb")

    def _records(self, file: IO[bytes]) -> Iterator[Record]:
        kind = self.kind
        if kind == "auto" and self.path and self.path.suffix in {".jsonl", ".ndjson"}:
            kind = "jsonl"
        for place, raw in enumerate(file, 1):
            line = self._text(raw, place)
            if kind == "auto":
                kind = "jsonl" if _is_record(line) else "text"
            if kind == "text":
                yield Record(place, line)
            elif line.strip():
                yield self._record(line, place)

    def _text(self, raw: bytes, place: int) -> str:
        try:
            line = raw.decode("utf-8-sig" if place == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name}, line {place}: not UTF-8; accepted: UTF-8") from error
        return line.removesuffix("\n").removesuffix("\r")

    def _record(self, line: str, place: int) -> Record:
        value = _decoded(line)
        if isinstance(value, str):
            return Record(place, value)
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            return Record(place, value["text"], value.get("id"))
        raise InputError(
            f'{self.name}, line {place}: accepted: a JSON string, or {{"text": "…"}} '
            "and perhaps an id"
        )


def _decoded(line: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def _is_record(line: str) -> bool:
    if not line.lstrip().startswith(("{", '"')):
        return False
    value = _decoded(line)
    return isinstance(value, str) or (isinstance(value, dict) and "text" in value)


# ── out ──────────────────────────────────────────────────────────────────────────────────


class _Results:
    """A file that takes its name only once all is written: until then, and where that failed,
    a good file of that name stays as it is, and what was done is beside it in NAME.part.
    Standard output (None) and what is no plain file (a pipe) are written to at once."""

    least = 0  # bytes of a file with no results in it

    def __init__(self, path: Path | None) -> None:
        plain = path is not None and (path.is_file() or not path.exists())
        self.path = path.resolve() if path is not None and plain else None  # not the link to it
        self.whole = 0
        if self.path is not None:
            self.file: IO[bytes] = self.path.with_name(f"{self.path.name}.part").open("wb")
        elif path is not None:
            self.file = path.open("wb")
        else:
            self.file = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115 - closed in close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(done=kind is None)

    def close(self, *, done: bool = True) -> None:
        """Leaves out what was half written, when writing failed."""
        try:
            self.file.close()
        except OSError:
            if self.path is None or done:
                raise
        if self.path is None:
            return
        part = Path(self.file.name)
        os.truncate(part, self.whole)
        if done:
            part.replace(self.path)
        elif self.whole == self.least:
            part.unlink()
        else:
            print(f"omnivec: what was done is in {part}", file=sys.stderr)


class JsonLines(_Results):
    """One JSON object a line. What is in the file is whole lines, whenever it ends."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import orjson

        option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        block = b"".join(orjson.dumps(row, option=option) for row in rows)
        self.file.write(block)
        self.file.flush()
        self.whole += len(block)


class Npy(_Results):
    """A NumPy file, version 1.0, whose header is rewritten after each block of rows: what is
    in the file is whole rows, even when the process is killed."""

    least = 128

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows, self.shape = 0, "0,"
        self.whole = self.least
        self._head()

    def write(self, rows: Rows) -> None:
        """float32 [n, d] or [n]."""
        import numpy as np

        block = np.ascontiguousarray(rows, dtype="<f4")
        self.file.seek(self.whole)
        self.file.write(block.data)
        self.file.flush()
        self.rows += len(block)
        self.whole += block.nbytes
        self.shape = f"{self.rows}," + (f" {block.shape[1]}" if block.ndim > 1 else "")
        self._head()

    def _head(self) -> None:
        words = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self.shape}), }}"
        start = b"\x93NUMPY\x01\x00" + (self.least - 10).to_bytes(2, "little")
        self.file.seek(0)
        self.file.write((start + words.encode("ascii")).ljust(self.least - 1) + b"\n")
        self.file.flush()


def output(name: str | None, kind: str | None, source: Texts) -> tuple[Path | None, str]:
    """Where results go and as what: by --format, else by the name's ending; JSON lines where it
    has none. Raises InputError, as for a file that is the input itself."""
    path = None if name in (None, "-") else Path(str(name))
    if path is not None and path.exists() and source.path and path.samefile(source.path):
        raise InputError("--output is the input file; give another name")
    if kind is None:
        suffix = "" if path is None else path.suffix.lower()
        if suffix not in KINDS:
            raise InputError(
                f"--output: {suffix} is not written here; accepted: .npy, .jsonl, .ndjson, or "
                "say --format"
            )
        kind = KINDS[suffix]
    if kind not in ("jsonl", "npy"):
        raise InputError("--format accepts jsonl and npy")
    if kind == "npy" and path is None:
        raise InputError("npy needs a file: -o NAME.npy")
    return path, kind
