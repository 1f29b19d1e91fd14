"""`omnivec embed` and `omnivec rerank`: a file in, a file out, without a server."""

import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Self, TypeVar

import typer

from omnivec.cli.command import at_least
from omnivec.cli.options import COMPUTE, settings, takes_settings
from omnivec.cli.texts import InputError, JsonLines, Npy, Record, Texts, output
from omnivec.core.errors import Fault
from omnivec.core.settings import Loaded
from omnivec.hosts.progress import Progress

T = TypeVar("T")
CHUNK = 256
AHEAD = 3  # chunks under way, so that the model never waits for a file

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help='One text a line, or JSON lines: a string or {"text": …, "id": …}. '
        "Standard input is -.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "--model-id",
        "-m",
        help="As for `omnivec serve`; without it the first of the settings, else its default.",
        metavar="MODEL",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", help="The file to write; standard output without it.", metavar="FILE"
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="What to write; by default what the output's name says, else jsonl.",
        metavar="jsonl|npy",
    ),
]
Input = Annotated[
    str,
    typer.Option(
        "--input",
        help="What FILE has in it; auto: what its name or its first line says. [default: auto]",
        metavar="auto|text|jsonl",
        show_default=False,
    ),
]


class Stop:
    """The first Ctrl-C asks for an end after the chunks under way, the second ends at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("omnivec: stopping, what is done will be kept", file=sys.stderr, flush=True)


@takes_settings(COMPUTE)
def embed(
    file: File,
    model: Model = None,
    to: Output = None,
    format_: Format = None,
    input_: Input = "auto",
    dims: Annotated[
        int | None,
        typer.Option(
            "--dims",
            parser=at_least(1, "a whole number"),
            help="Cut vectors to N numbers and normalise them again.",
            metavar="N",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            help="Embed as query or as document, or with a prompt of the model's, by its name.",
            metavar="ROLE",
        ),
    ] = None,
    *,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Embed the texts of a file.

    JSON lines out: {"index", "id" where there was one, "embedding"}. With -o NAME.npy: a
    float32 array, one row a text. Ctrl-C leaves a valid file with what was done.

    \b
    Examples:
      omnivec embed texts.txt -o vectors.npy
      omnivec embed docs.jsonl -m BAAI/bge-small-en-v1.5 --role document -o vectors.jsonl
      echo "hello" | omnivec embed -
    """
    source = _source(file, input_)
    path, kind = output(to, format_, source)
    loaded = settings(flags, config, [model] if model else [])
    with Stop() as stop, _engine(loaded) as engine, _writer(path, kind) as writer:
        index = 0
        for chunk, vectors in _work(
            source, "embedding", stop, lambda texts: engine.embed(texts, role=role, dims=dims)
        ):
            writer.write(vectors if kind == "npy" else _vectors(chunk, vectors, index))
            index += len(chunk)
        if not index:
            _leave(stop)  # with nothing done, an earlier output stays
            _note_empty(source)
            if kind == "npy":  # as wide as others of this model
                writer.write(engine.embed([], role=role, dims=dims))
    _leave(stop)


@takes_settings(COMPUTE)
def rerank(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is looked for.")],
    file: File,
    model: Model = None,
    to: Output = None,
    format_: Format = None,
    input_: Input = "auto",
    top: Annotated[
        int | None,
        typer.Option(
            "--top-n",
            parser=at_least(1, "a whole number"),
            help="Write only the N best.",
            metavar="N",
        ),
    ] = None,
    *,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Score the texts of a file against a query.

    JSON lines out, best first: {"index", "id" where there was one, "score", "text"}. With
    -o NAME.npy: float32 scores in the order of the file. Ctrl-C leaves a valid file with what
    was done. A model that only embeds scores by cosine.

    \b
    Examples:
      omnivec rerank "capital of France" docs.txt --top-n 3
      omnivec rerank "capital of France" docs.jsonl -m BAAI/bge-reranker-base -o scores.npy
    """
    if not query.strip():
        raise InputError("QUERY is empty; accepted: a text that says what is looked for")
    source = _source(file, input_)
    path, kind = output(to, format_, source)
    if kind == "npy" and top is not None:
        raise InputError("--top-n is for JSON lines: an array has the score of every text")
    loaded = settings(flags, config, [model] if model else [])
    with Stop() as stop, _engine(loaded) as engine, _writer(path, kind) as writer:
        done = 0
        scored: list[tuple[float, int, Record]] = []
        for chunk, scores in _work(
            source, "scoring", stop, lambda texts: engine.rerank(query, texts)
        ):
            done += len(chunk)
            if kind == "npy":
                writer.write(scores)
                continue
            pairs = zip(scores, chunk, strict=True)
            scored += [(float(s), len(scored) + i, r) for i, (s, r) in enumerate(pairs)]
        if not done:
            _leave(stop)
            _note_empty(source)
        scored.sort(key=lambda one: (-one[0], one[1]))
        if kind == "jsonl":
            writer.write(list(_ranked(scored[:top])))
    _leave(stop)


def _writer(path: Path | None, kind: str) -> Any:
    return Npy(path) if kind == "npy" and path else JsonLines(path)


def _note_empty(source: Texts) -> None:
    name = "standard input" if source.path is None else source.name
    print(f"omnivec: no texts in {name}", file=sys.stderr)


def _source(file: str, kind: str) -> Texts:
    if kind not in ("auto", "text", "jsonl"):
        raise InputError("--input accepts auto, text and jsonl")
    return Texts(file, kind)


def _engine(loaded: Loaded) -> Any:
    """With those settings alone that somebody gave: the others are the engine's own."""
    from omnivec import Engine

    given = {
        name: getattr(loaded.settings, name)
        for name, origin in loaded.origins.items()
        if origin != "default" and name != "models"
    }
    return Engine(*loaded.settings.models, **given)


def _work(
    source: Texts, what: str, stop: Stop, run: Callable[[list[str]], Any]
) -> Iterator[tuple[list[Record], Any]]:
    """Each chunk with its results, in order, until there is no more or a stop was asked."""
    done, total = 0, source.count()
    chunks = source.chunks(CHUNK)
    with Progress(what, "texts") as progress:
        for chunk, result in _ahead(_until(stop, chunks), lambda one: _run(source, one, run)):
            yield chunk, result
            done += len(chunk)
            progress.update(done, total)


def _until(stop: Stop, chunks: Iterable[T]) -> Iterator[T]:
    for chunk in chunks:
        if stop.asked:
            return
        yield chunk


def _run(source: Texts, chunk: list[Record], run: Callable[[list[str]], Any]) -> Any:
    try:
        return run([record.text for record in chunk])
    except Fault as fault:
        at = re.search(r"\[(\d+)\]", fault.param or "")
        if at is None or int(at[1]) >= len(chunk):
            raise
        place = chunk[int(at[1])].place
        raise InputError(f"{source.name}, line {place}: {fault.message}") from fault


def _ahead(chunks: Iterable[T], run: Callable[[T], Any]) -> Iterator[tuple[T, Any]]:
    """Results in order, with a few chunks always under way."""
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(AHEAD, thread_name_prefix="chunk") as pool:
        waiting: deque[tuple[T, Future[Any]]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(run, chunk)))
                if len(waiting) >= AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _vectors(chunk: list[Record], vectors: Any, index: int) -> list[dict[str, Any]]:
    return [
        {"index": index + i, **_identity(record), "embedding": vectors[i]}
        for i, record in enumerate(chunk)
    ]


def _ranked(scored: list[tuple[float, int, Record]]) -> Iterator[dict[str, Any]]:
    for score, index, record in scored:
        yield {"index": index, **_identity(record), "score": score, "text": record.text}


def _identity(record: Record) -> dict[str, object]:
    return {} if record.id is None else {"id": record.id}


def _leave(stop: Stop) -> None:
    if stop.asked:
        raise typer.Exit(130)
