"""A checkpoint of format 1 is read for ever. The files beside this one were written once and never change.

It is read three times: by the store, by a reader that knows nothing but `docs/formats.md`, and by the
safetensors library. And what is written today is what was written then, byte for byte.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
from safetensors import safe_open

from chaos import second_reader
from trainerd.checkpoint.manifest import FileEntry, Manifest
from trainerd.checkpoint.safetensors import layout, parse_header
from trainerd.checkpoint.store import CheckpointStore
from trainerd.checkpoint.tree import decode_tree, encode_tree

FIXTURE = Path(__file__).parent / "checkpoint-1"
FOLDER = FIXTURE / "step-000000120"
TENSORS, TREE = "rank-00000.safetensors", "rank-00000.json"

DATA = {
    "model.fc.weight": ("F32", (2, 3), struct.pack("<6f", 0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324)),
    "model.fc.bias": ("BF16", (2,), bytes.fromhex("803f 00c0")),
    "optimizer.state[0].exp_avg": ("F64", (1, 2), struct.pack("<2d", 0.1, -1e300)),
    "optimizer.state[0].step": ("I64", (), struct.pack("<q", -(2**62))),
    "model.mask": ("BOOL", (3,), b"\1\0\1"),
    "model.nothing": ("F32", (0, 7), b""),
}


class Tensor:
    """Stands for a tensor: a name in the other file."""

    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        return isinstance(other, Tensor) and other.name == self.name

    def __hash__(self):
        return hash(self.name)


STATE = {
    "model": OrderedDict([("fc.weight", Tensor("model.fc.weight")), ("tied", Tensor("model.fc.weight"))]),
    "optimizer": {"state": {0: {"exp_avg": Tensor("optimizer.state[0].exp_avg")}}, "betas": (0.9, 0.999)},
    "floats": [0.1, -0.0, 1e-300, math.inf, -math.inf, 1.0],
    "ints": [1, -(2**63) + 1, 2**200, True, None],
    "texts": ["naïve 💥", "half \ud83d", "$dollar"],
    "keys": {"$dollar": 1, (1, "a"): 2, None: 3},
    "bytes": [b"\0\xff", bytearray(b"ab")],
    "sets": [{3, 1, 2}, frozenset({"b", "a"})],
    "others": [1 - 2j, range(3, 9, 2), slice(None, 4, None)],
}

MANIFEST = Manifest(
    job="mnist",
    lineage="0123456789abcdef0123456789abcdef",
    parent="step-000000100",
    step=120,
    epoch=2,
    batch=20,
    reason="periodic",
    scores={"accuracy": 0.1 + 0.2, "loss": math.inf},
    world_size=1,
    attempt=3,
    fingerprint={"torch": "2.13.0", "shapes": {"fc.weight": (2, 3)}, "limit": math.inf},
    history_bytes=4096,
    files=(
        FileEntry(TREE, 744, "xxh3-128:e0d1c892ca8022998f2c1fbe6cf6adeb"),
        FileEntry(TENSORS, 4151, "xxh3-128:ad1251e927410021fa9ba2124cd58fc2"),
    ),
    created_wall_s=1_800_000_000.25,
    trainerd_version="0.1.0",
    is_final=False,
)


def encoded_tree():
    plain = encode_tree(STATE, leaf=lambda value, _: {"$tensor": value.name})
    document = {"format": "trainerd.tree/1", "objects": plain}
    return json.dumps(document, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()


def encoded_tensors():
    header, entries = layout([(name, dtype, shape) for name, (dtype, shape, _) in DATA.items()])
    return header + b"".join(DATA[entry.name][2] for entry in entries)


@pytest.fixture
def store(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "checkpoints")
    return CheckpointStore(tmp_path / "checkpoints")


def test_the_store_reads_it(store):
    checkpoint = store.newest_verified()
    assert checkpoint.manifest == MANIFEST
    assert (checkpoint.name, store.problems(), store.quarantined()) == ("step-000000120", (), ())


def test_the_tree_decodes_to_what_it_was():
    document = json.loads((FOLDER / TREE).read_bytes())
    state = decode_tree(document["objects"], leaf=lambda _tag, name: Tensor(name))
    assert state == STATE
    assert repr(state["floats"]) == repr(STATE["floats"])


def test_the_header_parses_to_what_it_was():
    data = (FOLDER / TENSORS).read_bytes()
    offset, entries, _ = parse_header(data)
    found = {
        entry.name: (entry.dtype, entry.shape, data[offset + entry.begin : offset + entry.end])
        for entry in entries
    }
    assert found == DATA


def test_what_is_written_today_is_the_same_to_the_byte():
    assert encoded_tree() == (FOLDER / TREE).read_bytes()
    assert encoded_tensors() == (FOLDER / TENSORS).read_bytes()


def test_the_safetensors_library_reads_it():
    with safe_open(FOLDER / TENSORS, framework="np") as file:
        assert set(file.keys()) == DATA.keys()
        assert file.get_tensor("optimizer.state[0].exp_avg").tolist() == [[0.1, -1e300]]


def test_a_second_reader_that_knows_only_the_documentation_reads_it():
    content = second_reader.read(FOLDER)
    manifest, (tensors,), (tree,) = content.manifest, content.tensors, content.trees
    assert (manifest["format"], manifest["step"], manifest["scores"]["loss"]) == (
        "trainerd.checkpoint/1",
        120,
        "inf",
    )
    assert tensors == DATA
    objects = tree["objects"]
    assert objects["model"] == {
        "$ordered": [["fc.weight", {"$tensor": "model.fc.weight"}], ["tied", {"$tensor": "model.fc.weight"}]]
    }
    assert objects["optimizer"]["betas"] == {"$tuple": [0.9, 0.999]}
    assert objects["floats"][3:5] == [{"$float": "inf"}, {"$float": "-inf"}]
    assert int(objects["ints"][2]["$int"], 16) == 2**200


def test_the_second_reader_notices_a_flipped_bit_in_every_file(tmp_path):
    for name in ("manifest.json", TENSORS, TREE):
        folder = shutil.copytree(FOLDER, tmp_path / name)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises((second_reader.UnsoundError, ValueError)):
            second_reader.read(folder)
