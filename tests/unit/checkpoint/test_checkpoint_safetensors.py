"""The layout of safetensors files: what we write the library reads, what is wrong is found."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as load_numpy
from safetensors.numpy import save as save_numpy

from trainerd.checkpoint.safetensors import DATA_ALIGNMENT, ITEM_BYTES, layout, parse_header
from trainerd.errors import CorruptError

ARRAYS = {
    "flags": np.array([True, False, True]),
    "model.fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "counter": np.array(7, dtype=np.int64),
    "nothing": np.zeros((0, 4), dtype=np.float16),
    "bytes": np.arange(5, dtype=np.uint8),
    'naïve ["x"]': np.arange(3, dtype=np.float64),
}
NUMPY_DTYPES = {
    "bool": "BOOL",
    "float32": "F32",
    "int64": "I64",
    "float16": "F16",
    "uint8": "U8",
    "float64": "F64",
}


def file_of(arrays, metadata=None):
    tensors = [(name, NUMPY_DTYPES[array.dtype.name], array.shape) for name, array in arrays.items()]
    header, entries = layout(tensors, metadata)
    return header + b"".join(arrays[entry.name].tobytes() for entry in entries), entries


def test_the_library_reads_what_is_laid_out_here():
    data, _ = file_of(ARRAYS, {"made": "by us"})
    loaded = load_numpy(data)
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)


def test_what_the_library_writes_is_read_here():
    data = save_numpy(ARRAYS, {"made": "by them"})
    offset, entries, metadata = parse_header(data)
    assert metadata == {"made": "by them"}
    for entry in entries:
        assert data[offset + entry.begin : offset + entry.end] == ARRAYS[entry.name].tobytes()
        assert entry.shape == ARRAYS[entry.name].shape


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
def test_every_dtype_that_is_laid_out_is_known_to_the_library(dtype, tmp_path):
    header, (entry,) = layout([("x", dtype, (3,))])
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + bytes(entry.end))
    with safetensors.safe_open(path, framework="np") as file:
        assert file.get_slice("x").get_shape() == [3]
        assert file.get_slice("x").get_dtype() == dtype


dtypes = st.sampled_from(sorted(ITEM_BYTES))
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@given(st.lists(st.tuples(dtypes, shapes), max_size=12))
def test_each_tensor_is_aligned_to_its_item_and_nothing_lies_between(kinds):
    tensors = [(f"t{index}", dtype, shape) for index, (dtype, shape) in enumerate(kinds)]
    header, entries = layout(tensors)
    assert len(header) % DATA_ALIGNMENT == 0
    position = 0
    for entry in entries:
        assert entry.begin == position
        assert entry.begin % ITEM_BYTES[entry.dtype] == 0
        position = entry.end
    offset, read, _ = parse_header(header, file_bytes=len(header) + position)
    assert (offset, set(read)) == (len(header), set(entries))


def test_equal_tensors_give_equal_headers_and_keep_their_order():
    tensors = [("b", "F32", (2,)), ("a", "F32", (2,)), ("c", "F64", ())]
    assert layout(tensors) == layout(list(tensors))
    assert [entry.name for entry in layout(tensors)[1]] == ["c", "b", "a"]


@pytest.mark.parametrize("name", ["a", "__metadata__"])
def test_a_taken_name_is_refused(name):
    with pytest.raises(ValueError, match="taken"):
        layout([("a", "F32", ()), (name, "F32", ())])


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="C128"):
        layout([("a", "C128", ())])


def test_every_cut_is_found():
    data, _ = file_of(ARRAYS)
    for length in [*range(0, 600, 7), 4095, 4096, 4097, len(data) - 1]:
        with pytest.raises(CorruptError):
            parse_header(data[:length])
    with pytest.raises(CorruptError):
        parse_header(data + b"\0")


def header_file(header, *, data_bytes=4):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data_bytes)


def tensor(**changes):
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"\xff{}",
        b"[" * 100_000,
        {"a": 1},
        {"a": {}},
        {"a": tensor(dtype="F99")},
        {"a": tensor(dtype=[])},
        {"a": tensor(shape=[2])},
        {"a": tensor(shape=[-1])},
        {"a": tensor(shape=[True])},
        {"a": tensor(shape="1")},
        {"a": tensor(shape=[1.0])},
        {"a": tensor(data_offsets=[0, 8])},
        {"a": tensor(data_offsets=[4, 0])},
        {"a": tensor(data_offsets=[-4, 0])},
        {"a": tensor(data_offsets=[0, 4, 8])},
        {"a": tensor(shape=[2**40, 2**40])},
        {"a": tensor(), "b": tensor()},
        {"__metadata__": {"x": 1}, "a": tensor()},
        {"__metadata__": [], "a": tensor()},
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ],
    ids=lambda header: f"{header!r:.50}",
)
def test_an_ill_formed_header_is_corrupt_and_nothing_worse(header):
    with pytest.raises(CorruptError):
        parse_header(header_file(header))


def test_a_header_that_claims_the_world_is_not_read():
    with pytest.raises(CorruptError, match="beyond the file"):
        parse_header((2**63).to_bytes(8, "little") + b"{}")


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_parse_or_be_corrupt(data):
    with contextlib.suppress(CorruptError):
        parse_header(len(data).to_bytes(8, "little") + data)
