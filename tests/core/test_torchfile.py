"""Files of torch.save: the real ones, and those that somebody made to do harm."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.torchfile import read

FILE = "pytorch_model.bin"


def saved(folder: Path, what: Any, **options: Any) -> Path:
    torch.save(what, folder / FILE, **options)
    return folder / FILE


def written(
    folder: Path, pickled: bytes, data: bytes = bytes(64), how: int = zipfile.ZIP_STORED
) -> Path:
    """As torch.save lays a file out, with this pickle and these bytes of storage 0."""
    with zipfile.ZipFile(folder / FILE, "w", how) as archive:
        for name, content in (("data.pkl", pickled), ("data/0", data)):
            info = zipfile.ZipInfo(f"archive/{name}")
            info.compress_type = how
            # torch aligns the bytes of a storage to 64
            used = archive.fp.tell() + 30 + len(info.filename)  # type: ignore[union-attr]
            info.extra = b"FB" + struct.pack("<H", -(used + 4) % 64) + bytes(-(used + 4) % 64)
            archive.writestr(info, content)
    return folder / FILE


class Storage:
    """Stands for a storage of torch: pickled by its persistent id."""

    def __init__(self, *told: Any) -> None:
        self.told = told


class Pickler(pickle._Pickler):  # type: ignore[name-defined] # the C one cannot take names
    """Writes names that are only words: `Word("torch FloatStorage")`."""

    def persistent_id(self, value: Any) -> Any:
        return value.told if isinstance(value, Storage) else None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, Word):
            module, _, name = value.text.partition(" ")
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        elif isinstance(value, Call):
            self.save(Word(value.name))
            self.save(value.told)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


class Word:
    def __init__(self, text: str) -> None:
        self.text = text


class Call:
    def __init__(self, name: str, *told: Any) -> None:
        self.name, self.told = name, told


def pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


def tensor(
    *layout: Any, kind: str = "torch FloatStorage", key: Any = "0", count: Any = 16
) -> dict[str, Any]:
    """A dict of one tensor, layout being its offset, size and stride."""
    storage = Storage("storage", Word(kind), key, "cpu", count)
    told = (storage, *layout, False, Call("collections OrderedDict"))
    return {"t": Call("torch._utils _rebuild_tensor_v2", *told)}


# ── what torch.save writes ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]
)
def test_every_dtype_comes_back(tmp_path: Path, dtype: str) -> None:
    values = (torch.arange(24).reshape(4, 6) % 5).to(getattr(torch, dtype))
    found = read("m", saved(tmp_path, {"a": values, "b": values[1:, ::2], "c": values.T}))
    for key, expected in (("a", values), ("b", values[1:, ::2]), ("c", values.T)):
        ours = torch.from_numpy(np.ascontiguousarray(found[key].array))
        ours = ours.view(torch.bfloat16) if found[key].dtype == "BF16" else ours
        assert torch.equal(ours, expected)


def test_a_state_dict_and_a_bare_layer(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    found = read("m", saved(tmp_path, torch.nn.Sequential(layer).state_dict()))
    assert found.keys() == {"0.weight", "0.bias"}
    found = read("m", saved(tmp_path, OrderedDict(weight=layer.weight, bias=layer.bias)))
    assert found.keys() == {"linear.weight", "linear.bias"}  # as sentence-transformers says
    np.testing.assert_array_equal(found["linear.weight"].array, layer.weight.detach().numpy())


def test_what_is_read_is_a_view_of_the_file(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.zeros(1000, 10)})
    content = np.memmap(file, np.uint8, "c")
    assert np.shares_memory(read("m", file, content)["a"].array, content)


def test_tensors_that_share_a_storage(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    found = read("m", saved(tmp_path, {"a": whole[:4], "b": whole[6:], "c": torch.tensor(3.0)}))
    assert found["b"].array.tolist() == [6, 7, 8, 9]
    assert float(found["c"].array) == 3


# ── what is refused ──────────────────────────────────────────────────────────────────────


class Evil:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


HOSTILE = {
    "os.system": Evil(os.system, ("touch harm",)),
    "eval": Evil(eval, ("open('harm', 'w')",)),
    "exec": Evil(exec, ("open('harm', 'w')",)),
    "getattr": Evil(getattr, (Evil(__import__, ("os",)), "system")),
    "a module": torch.nn.Linear(2, 2),
    "an object": Path(),
    "a set": {1, 2},
    "a list": [torch.zeros(2)],
    "a number": {"a": 1},
    "nested": {"a": {"b": torch.zeros(2)}},
    "a number for a key": {1: torch.zeros(2)},
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, pickle.dumps({"a": HOSTILE[what]}, protocol))
    with pytest.raises(CheckpointError, match="writes it"):
        read("m", file)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_torch_saves_besides_is_refused(tmp_path: Path) -> None:
    for what in HOSTILE.values():
        with pytest.raises(CheckpointError, match="writes it"):
            read("m", saved(tmp_path, what))


LAYOUTS: dict[str, tuple[Any, ...]] = {
    "too many": (0, (17,), (1,)),
    "an offset behind the end": (16, (1,), (1,)),
    "an end behind the end": (4, (4, 4), (4, 1)),
    "strides behind the end": (0, (2,), (16,)),
    "repeated without end": (0, (1 << 40,), (0,)),
    "a negative offset": (-1, (4,), (1,)),
    "a negative size": (0, (-4, -4), (4, 1)),
    "a negative stride": (15, (4,), (-1,)),
    "a large offset": (1 << 80, (4,), (1,)),
    "nothing of much": (0, (0, 1 << 70), (1, 1)),
    "fewer strides": (0, (4, 4), (1,)),
    "many axes": (0, (1,) * 100, (1,) * 100),
    "a text for a size": (0, ("4",), (1,)),
    "a list for a size": (0, [4], [1]),
    "a fraction": (0, (4.0,), (1,)),
    "true": (True, (4,), (1,)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_lies_is_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(CheckpointError, match="a tensor"):
        read("m", written(tmp_path, pickled(tensor(*LAYOUTS[layout]))))


@pytest.mark.parametrize(
    "told",
    [
        {"kind": "torch ComplexFloatStorage"},
        {"kind": "builtins eval"},
        {"kind": "collections OrderedDict"},
        {"key": "1"},
        {"key": "../../etc/passwd"},
        {"key": 0},
        {"count": 17},
        {"count": -1},
        {"count": 1 << 80},
        {"count": "16"},
    ],
    ids=str,
)
def test_a_storage_that_is_not_there_is_refused(tmp_path: Path, told: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="writes it"):
        read("m", written(tmp_path, pickled(tensor(0, (2,), (1,), **told))))


def test_a_stride_that_no_memory_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="writes it"):
        read("m", written(tmp_path, pickled(tensor(0, (1,), (1 << 80,)))))


def test_what_was_written_by_hand_is_read_where_it_is_right(tmp_path: Path) -> None:
    values = np.arange(16, dtype=np.float32)
    file = written(tmp_path, pickled(tensor(2, (2, 3), (4, 1))), values.tobytes())
    assert read("m", file)["t"].array.tolist() == [[2, 3, 4], [6, 7, 8]]


OPCODES = {
    "nothing": b"",
    "no end": b"\x80\x02}",
    "an end of nothing": b"\x80\x02.",
    "a mark of nothing": b"\x80\x02t.",
    "a mark inside of a mark": b"\x80\x02((u.",
    "a value without a key": b"\x80\x02}(X\x01\x00\x00\x00au.",
    "a dict that is none": b"\x80\x02K\x01(X\x01\x00\x00\x00aK\x01u.",
    "an item of nothing": b"\x80\x02K\x01s.",
    "a memory that is none": b"\x80\x02h\x05.",
    "a huge memory": b"\x80\x02}r\xff\xff\xff\xff.",
    "a call of a number": b"\x80\x02K\x01)R.",
    "a call without arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "a parameter of nothing": b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
    "a name alone": b"\x80\x02ctorch\nFloatStorage\n.",
    "a name with a path": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "a text that is none": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "a text that ends": b"\x80\x02X\xff\xff\x00\x00abc",
    "no opcode": b"\x80\x02\xfe.",
}


@pytest.mark.parametrize("what", OPCODES)
def test_a_pickle_that_is_none_is_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(CheckpointError, match="writes it"):
        read("m", written(tmp_path, OPCODES[what]))


@pytest.mark.parametrize("name", sorted(pickletools.code2op))
def test_any_opcode_at_any_time_is_told_or_taken(tmp_path: Path, name: str) -> None:
    start = pickled(tensor(0, (2,), (1,)))[:-1]
    for rest in (b"", b"\x00" * 9, b"1\n1\n", b"(" * 5):
        file = written(tmp_path, start + name.encode("latin-1") + rest + b".")
        try:
            found = read("m", file)
        except CheckpointError:
            continue
        assert found.keys() <= {"t"}


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: float) -> None:
    file = saved(tmp_path, {"a": torch.zeros(1000)})
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(CheckpointError, match="cut short"):
        read("m", file)


def test_torch_s_older_format_is_refused(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2).state_dict()
    file = saved(tmp_path, layer, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="writes it"):
        read("m", file)


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_swells_is_not_opened(tmp_path: Path, how: int) -> None:
    file = written(tmp_path, pickled(tensor(0, (2,), (1,))), bytes(50_000_000), how)
    assert file.stat().st_size < 200_000
    with pytest.raises(CheckpointError, match="compressed"):
        read("m", file)


def test_a_pickle_without_end_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="sensible size"):
        read("m", written(tmp_path, b"\x80\x02" + b"N" * 9_000_000 + b"."))


def test_deep_nesting_is_no_harm(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="besides tensors"):
        read("m", written(tmp_path, b"\x80\x02)" + b"\x85" * 1_000_000 + b"."))


def test_entries_that_are_not_where_the_zip_says(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.zeros(100)})
    whole = file.read_bytes()
    place = whole.index(b"PK\1\2")  # the first entry of the central directory
    for at, width in ((place + 42, 4), (place + 20, 4), (place + 24, 4)):  # offset, sizes
        for value in (1, 5000, 0x7FFFFFFF, 0xFFFFFFFE):
            broken = bytearray(whole)
            broken[at : at + width] = struct.pack("<I", value)
            file.write_bytes(broken)
            with pytest.raises(CheckpointError, match="writes it"):
                read("m", file)


def test_bytes_that_are_not_aligned_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / FILE, "w") as archive:
        archive.writestr("r/data/0", bytes(64))  # behind a header of 38 bytes
        archive.writestr("r/data.pkl", pickled(tensor(0, (2,), (1,))))
    with pytest.raises(CheckpointError, match="not aligned"):
        read("m", tmp_path / FILE)


def test_numbers_of_the_other_end_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path, pickled(tensor(0, (2,), (1,)))), "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(CheckpointError, match="big-endian"):
        read("m", tmp_path / FILE)


# ── the checkpoint's word on it ──────────────────────────────────────────────────────────


def test_a_pickle_is_taken_only_where_the_model_s_entry_says_so(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"pickle = true"):
        Checkpoint("m", tmp_path).weights()
    told = Checkpoint("m", tmp_path, overrides={"pickle": True})
    assert told.weights() == [file]
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert told.weights() == [tmp_path / "model.safetensors"]


def test_pickled_shards_are_counted(tmp_path: Path) -> None:
    index = '{"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}'
    (tmp_path / f"{FILE}.index.json").write_text(index)
    (tmp_path / "pytorch_model-1.bin").write_bytes(b"")
    told = Checkpoint("m", tmp_path, overrides={"pickle": True})
    with pytest.raises(CheckpointError, match=r"pytorch_model-2\.bin is missing \(1 of 2"):
        told.weights()
