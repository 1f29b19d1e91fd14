"""Where a model's files come from: a folder, the Hugging Face cache, a package, the hub.

The network is asked last, only for what is missing, and never when offline is set.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.engine.catalog import Spec, holds_model
from omnivec.engine.entries import Entry, Package

Progress: TypeAlias = Callable[[int, int], None]  # bytes done, bytes in all (0: not known yet)

# What is worth downloading: descriptions, tokenizers, safetensors and the heads that some models
# keep beside them, not the same weights again in other formats.
WANTED = (
    *("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"),
    *("artifact.metadata", "sparse_linear.pt", "colbert_linear.pt"),
)
PICKLED = ("pytorch_model*.bin",)  # for a model whose entry says `pickle`
UNWANTED = (
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "runs/*",
    "checkpoint-*",
    "original/*",
    "consolidated*",
    ".*",
)
PIP = f"{sys.executable} -m pip install"  # into this very environment
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*/tokenizer.json")

log = logging.getLogger("omnivec.hub")


def locate(spec: Spec, *, offline: bool = False, progress: Progress | None = None) -> Checkpoint:
    """The model's files on this disk, downloaded if need be. Blocks: call it on a thread.

    `progress` is told from other threads. Raises CheckpointError with the remedy.
    """
    folder, revision = _find(spec, offline=offline, progress=progress)
    return Checkpoint(
        spec.name,
        folder,
        revision=revision,
        overrides=spec.overrides,
        options=spec.options,
        adapters=spec.adapters,
    )


def locate_here(spec: Spec) -> Checkpoint | None:
    """As `locate`, without network and for what is whole: None where it is not on this disk.

    Raises CheckpointError for files that are there and wrong.
    """
    if spec.kind == "hub" and _whole(spec) is None and not _is_installed(spec.package):
        return None
    return locate(spec, offline=True)


def _find(spec: Spec, *, offline: bool, progress: Progress | None) -> tuple[Path, str | None]:
    if spec.kind == "folder":
        return _folder(spec), None
    if spec.entry is not None and spec.entry.converted:
        raise _unconverted(spec, spec.entry)
    whole = _whole(spec)
    if whole is not None:
        return whole, whole.name
    if spec.package is not None and _is_installed(spec.package):
        return _packaged(spec.package), None
    if offline:
        return _cached_anyhow(spec)
    try:
        folder = download(spec, progress)
    except CheckpointError as error:
        return _despite(error, spec)
    return folder, folder.name


# ── a folder ─────────────────────────────────────────────────────────────────────────────


def _folder(spec: Spec) -> Path:
    folder = Path(spec.source).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise CheckpointError(
            f"{spec.name}: {folder} {what}; accepted: a model's folder", "NOT_FOUND"
        )
    if holds_model(folder):
        return folder
    inside = _snapshot(folder, spec.revision or "main")  # the folder of a hub cache
    if inside is not None and holds_model(inside):
        return inside
    raise CheckpointError(
        f"{spec.name}: {folder} has neither config.json nor modules.json; accepted: a folder as "
        "the Hugging Face hub has it, with config.json, tokenizer.json and model.safetensors"
    )


def _unconverted(spec: Spec, entry: Entry) -> CheckpointError:
    name = (entry.aliases or (entry.id,))[-1].rpartition("/")[2]
    return CheckpointError(
        f"{spec.source} cannot be served as it is on the hub; run `omnivec convert {entry.id} "
        f"./{name}`, then `omnivec serve ./{name}`",
        "NOT_FOUND",
    )


# ── the cache ────────────────────────────────────────────────────────────────────────────


def cache_folder() -> Path:
    """Hugging Face's own, as HF_HOME and HF_HUB_CACHE say."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_ids() -> list[str]:
    """The models that have a snapshot in the cache, whole or not, by id."""
    found = cache_folder().glob("models--*/snapshots")
    return sorted(path.parent.name.removeprefix("models--").replace("--", "/") for path in found)


def _snapshot(repository: Path, revision: str) -> Path | None:
    """The folder of a revision (branch, tag or commit) in a repository of the cache."""
    named = repository / "refs" / revision
    try:
        commit = named.read_text(encoding="utf-8").strip() if named.is_file() else revision
    except (OSError, UnicodeDecodeError):
        return None
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None


def snapshot(spec: Spec) -> Path | None:
    """The folder of the cache that has the model's revision, or some of it."""
    repository = cache_folder() / f"models--{spec.source.replace('/', '--')}"
    return _snapshot(repository, spec.revision or "main") if repository.is_dir() else None


def _whole(spec: Spec) -> Path | None:
    """The cached snapshot, when it is certain that nothing of it is missing."""
    folder = snapshot(spec)
    if folder is None or next(_gaps(folder, spec), None) is not None:
        return None
    # other libraries fetch a model that is pickled without the heads beside it
    told = _says_all(folder) and not spec.overrides.get("pickle")
    return folder if told or _is_listed_whole(spec) else None


def _wanted(spec: Spec) -> list[str]:
    """The patterns of the files to download."""
    return [*WANTED, *(PICKLED if spec.overrides.get("pickle") else ())]


def _gaps(folder: Path, spec: Spec) -> Iterator[str]:
    """What a snapshot lacks, as far as its own files tell."""
    weights = ["*.safetensors", "*/*.safetensors"]
    if spec.overrides.get("pickle"):
        weights += PICKLED
    checkpoint = Checkpoint(folder.name, folder)
    if not holds_model(folder):
        yield "config.json"
    modules = checkpoint.json("modules.json")
    for module in modules if isinstance(modules, list) else ():
        path, kind = str(module.get("path", "")), str(module.get("type", "")).rpartition(".")[2]
        if kind not in {"Normalize", "Dropout"} and path and not (folder / path).is_dir():
            yield f"{path}/"
    if checkpoint.has("model.safetensors.index.json"):
        index = checkpoint.json("model.safetensors.index.json")
        shards = set(index.get("weight_map", {}).values()) if isinstance(index, dict) else set()
        yield from sorted(shard for shard in shards if not checkpoint.has(str(shard)))
    elif not any(_files(folder, *weights)):
        yield "model.safetensors"
    if not any(_files(folder, *TOKENIZERS)):
        yield "tokenizer.json"


def _files(folder: Path, *patterns: str) -> Iterator[Path]:
    for pattern in patterns:
        yield from (path for path in folder.glob(pattern) if path.is_file())


def _says_all(folder: Path) -> bool:
    """Whether a snapshot cannot lack its modules.json without our seeing it.

    Another library may have fetched an encoder's weights alone, and its pooling would then be
    guessed. Classifiers and static models have no such file.
    """
    checkpoint = Checkpoint(folder.name, folder)
    if checkpoint.has("modules.json"):
        return True
    names = checkpoint.config.get("architectures") or ()
    classifier = any(str(name).endswith("ForSequenceClassification") for name in names)
    return classifier or checkpoint.architecture == "model2vec"


def _is_listed_whole(spec: Spec) -> bool:
    """Whether the hub's list of files, kept beside a snapshot, is there and all are present."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    try:
        get_cached_repo_tree(spec.source, revision=spec.revision)
        snapshot_download(
            spec.source,
            revision=spec.revision,
            local_files_only=True,
            allow_patterns=_wanted(spec),
            ignore_patterns=list(UNWANTED),
        )
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return False
    return True


def _cached_anyhow(spec: Spec) -> tuple[Path, str]:
    """Offline: what the cache has, when all that a model needs is there."""
    folder = snapshot(spec)
    if folder is None:
        package = spec.package
        install = f", or `{PIP} --no-deps {package.name}=={package.version}`" if package else ""
        raise CheckpointError(
            f"{spec.source} is not in the cache ({cache_folder()}) and offline is set; run "
            f"`omnivec pull {spec.source}` where there is a network and copy the cache{install}",
            "NOT_FOUND",
        )
    gaps = list(_gaps(folder, spec))
    if gaps:
        raise CheckpointError(
            f"{spec.source} is incomplete in the cache ({', '.join(gaps[:3])} missing) and "
            f"offline is set; run `omnivec pull {spec.source}` where there is a network",
            "NOT_FOUND",
        )
    return folder, folder.name


def _despite(error: CheckpointError, spec: Spec) -> tuple[Path, str]:
    """The hub did not answer: a snapshot that has all we can name is better than none."""
    folder = snapshot(spec)
    if folder is None or next(_gaps(folder, spec), None) is not None:
        raise error
    log.warning("%s; serving the copy in the cache", error)
    return folder, folder.name


# ── a package ────────────────────────────────────────────────────────────────────────────


def _root(package: Package) -> Path | None:
    """Where the package is installed, without importing it: its code is not needed."""
    from importlib.util import find_spec

    found = find_spec(package.module)
    places = found.submodule_search_locations if found else None
    return Path(places[0]) if places else None


def _is_installed(package: Package | None) -> bool:
    return package is not None and _root(package) is not None


def _packaged(package: Package) -> Path:
    """The package's model folder. The weights are hashed at every start: 0.06 s for 88 MB,
    which also brings the file into memory. Raises CheckpointError when they differ."""
    folder = (_root(package) or Path()) / package.folder
    again = f"`{PIP} --no-deps --force-reinstall {package.name}=={package.version}`"
    try:
        with (folder / package.file).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{package.name}: {folder / package.file} cannot be read ({error.strerror}); {again}"
        ) from error
    if found != package.sha256:
        raise CheckpointError(
            f"{package.name}: {folder / package.file} is not the published file (sha256 {found}, "
            f"expected {package.sha256}); {again}"
        )
    return folder


# ── the hub ──────────────────────────────────────────────────────────────────────────────


def download(spec: Spec, progress: Progress | None = None) -> Path:
    """Fetches what is missing of the model into the cache. Raises CheckpointError."""
    folder = collect(spec, _wanted(spec), progress)
    gaps = list(_gaps(folder, spec))
    if gaps:
        raise CheckpointError(
            f"{spec.source} on the hub has no {gaps[0]}; accepted: a repository with config.json, "
            "a tokenizer and safetensors (weights that are only pickled are not opened)"
        )
    return folder


def collect(spec: Spec, patterns: Sequence[str], progress: Progress | None = None) -> Path:
    """Fetches the files that fit `patterns` into the cache. Raises CheckpointError."""
    from huggingface_hub import snapshot_download

    from omnivec.engine._download import Meter, explain

    with Meter.reporting(progress) as meter:
        try:
            return Path(
                snapshot_download(
                    spec.source,
                    revision=spec.revision,
                    allow_patterns=list(patterns),
                    ignore_patterns=list(UNWANTED),
                    tqdm_class=meter,
                )
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise explain(error, spec, cache_folder()) from error


def free_bytes(folder: Path) -> int:
    """On the disk that `folder` is or will be on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
