"""What goes into a checkpoint comes out of it, to the last bit; what cannot is refused, and nothing is
written."""

from __future__ import annotations

import math
import struct
import sys
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.exact import Box, assert_same, tree_through_disk
from trainerd.errors import UnsupportedValueError
from trainerd.training.checkpointer import Checkpointer
from trainerd.training.state.copied_state import copied_state
from trainerd.training.state.tensor_layouts import TensorTable
from trainerd.training.state.tensors import encode_state

pytestmark = pytest.mark.torch

# Left out: quantized ones, and names for bits and for parts of bytes, which torch can neither fill nor copy.
DTYPES = sorted(
    name
    for name in dir(torch)
    if isinstance(dtype := getattr(torch, name), torch.dtype)
    and str(dtype) == f"torch.{name}"
    and not name.startswith(("q", "bits"))
    and name.removeprefix("u").removeprefix("int") not in set("1234567")
)


def every_dtype():
    for name in DTYPES:
        dtype = getattr(torch, name)
        octets = torch.arange(1, 1 + 6 * dtype.itemsize, dtype=torch.uint8)
        yield name, (octets % 2 if dtype is torch.bool else octets * 37).view(dtype)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize(("name", "tensor"), list(every_dtype()), ids=DTYPES)
def test_every_dtype_comes_back_bit_for_bit(tmp_path, name, tensor):
    """Alone, with two dimensions, and with none."""
    tree = [tensor, tensor.reshape(2, 3), tensor[0].clone()]
    assert_same(tree_through_disk(tmp_path, tree), tree)


SHAPES = {
    "0-d": lambda: torch.tensor(0.1),
    "empty": lambda: [torch.empty(0), torch.empty(2, 0, 3), torch.empty(0, 4, dtype=torch.complex128)],
    "transposed": lambda: torch.randn(3, 4).t(),
    "every other": lambda: torch.randn(10)[::2],
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
    "a slice": lambda: torch.randn(6, 6)[1:4, 2:5],
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "foreign and transposed": lambda: torch.randn(3, 4, dtype=torch.complex128).t(),
    "conjugate": lambda: [c := torch.randn(3, dtype=torch.complex64), c.conj(), c.conj().imag],
    "conjugate, double": lambda: [c := torch.randn(3, dtype=torch.complex128), c.conj()],
    "requires a gradient": lambda: torch.randn(3, requires_grad=True).detach(),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_and_layout_in_memory_comes_back(tmp_path, name):
    """Also where two tensors share memory and mean different values, as a number and its conjugate do."""
    tree = SHAPES[name]()
    assert_same(tree_through_disk(tmp_path, tree), tree)


def test_the_order_of_dimensions_in_memory_comes_back(tmp_path):
    """Optimizer state of a channels-last model is channels-last again: another order may round otherwise."""
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    back = tree_through_disk(tmp_path, [tensor, tensor])
    assert back[0].stride() == tensor.stride()
    assert back[0] is back[1]


def matrix() -> torch.Tensor:
    return torch.tensor([[0.0, 1.0, 0, 0], [0, 0, 2, -0.0], [0, 0, 0, 0], [3, 0, 0, math.nan]])


SPARSE = {
    "coo": lambda: matrix().to_sparse(),
    "coo, not coalesced": lambda: torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (3, 3)),
    "coo, hybrid": lambda: torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.randn(2, 3), (3, 3)),
    "coo, empty": lambda: torch.sparse_coo_tensor((3, 3)),
    "coo, int64": lambda: torch.sparse_coo_tensor([[1]], torch.tensor([2**62]), (3,)),
    "csr": lambda: matrix().to_sparse_csr(),
    "csc": lambda: matrix().to_sparse_csc(),
    "bsr": lambda: matrix().to_sparse_bsr((2, 2)),
    "bsc": lambda: matrix().to_sparse_bsc((2, 2)),
    "csr, complex128": lambda: matrix().to(torch.complex128).to_sparse_csr(),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", SPARSE)
def test_every_sparse_layout_comes_back(tmp_path, name):
    tree = {"sparse": SPARSE[name]()}
    assert_same(tree_through_disk(tmp_path, tree), tree)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_without_torchs_private_names_only_an_uncoalesced_tensor_is_refused(tmp_path, monkeypatch):
    tree = {name: SPARSE[name]().coalesce() for name in ("coo", "coo, int64")}
    uncoalesced = SPARSE["coo, not coalesced"]()
    with monkeypatch.context() as patch:
        for name in ("_indices", "_values"):
            patch.setattr(torch.Tensor, name, None, raising=False)
        back = tree_through_disk(tmp_path, tree)
        with pytest.raises(UnsupportedValueError) as refused:
            encode_state({"sparse": uncoalesced}, TensorTable(), root="state")
    assert_same(back, tree)
    assert "coalesce() it first" in refused.value.hint


def test_special_floats_keep_their_bits(tmp_path):
    """The payloads of NaNs, quiet and signalling, the sign of zero, infinities and denormal numbers."""
    patterns = torch.tensor([0x7FC00001, 0x7F800001, -1, -(2**31), 0x7F800000, 1], dtype=torch.int32)
    unusual_nan = struct.unpack("<d", bytes.fromhex("0100000000000cfff"[:16]))[0]
    odd = struct.unpack(">d", bytes.fromhex("fff8000000000abc"))[0]
    tree = [
        patterns.view(torch.float32),
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        odd,
        unusual_nan,
        5e-324,
        0.1 + 0.2,
    ]
    assert_same(tree_through_disk(tmp_path, tree), tree)


ARRAYS = {
    "order of memory": lambda: np.arange(6.0).reshape(2, 3).T,
    "backwards": lambda: np.arange(5, dtype=np.int16)[::-1],
    "broadcast": lambda: np.broadcast_to(np.arange(3), (2, 3)),
    "read only": lambda: np.frombuffer(b"abcd", dtype=np.uint8),
    "0-d": lambda: np.array(3),
    "empty": lambda: np.zeros((0, 2)),
    "complex": lambda: [np.array([1j]), np.array([1j], dtype=np.complex64)],
    "scalars": lambda: [
        np.float32(0.1),
        np.float64(-0.0),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.complex64(1j),
    ],
    "a generator": lambda: np.random.Generator(np.random.PCG64(1)).bit_generator.state,
    "an old generator": lambda: np.random.RandomState(1).get_state(),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_arrays_and_scalars_come_back(tmp_path, name):
    tree = ARRAYS[name]()
    back = tree_through_disk(tmp_path, tree)
    assert_same(
        back, list(tree) if isinstance(tree, np.ndarray) and not isinstance(back, np.ndarray) else tree
    )


def test_plain_values_of_all_kinds_come_back(tmp_path):
    tree = {
        "big": [2**63, -(2**200), 10**30],
        1: "int key",
        (1, None): {2.5: b"\0\xff", "half": "\ud83d", "": ""},
        "kinds": [
            (1,),
            [2],
            {3},
            frozenset({4}),
            deque([1], maxlen=3),
            range(3),
            slice(1, None),
            1j,
            bytearray(b"a"),
        ],
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "counter": Counter({1: 2, "x": 0}),
        "default": defaultdict(list, {"a": [torch.ones(2)]}),
        "no default": defaultdict(None, {"a": 1}),
        "torch": [torch.float8_e5m2, torch.device("cpu"), torch.Size([1, 2])],
    }
    back = tree_through_disk(tmp_path, tree)
    assert_same(back, tree)
    assert back["default"].default_factory is list
    assert back["no default"].default_factory is None


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path):
    shared = torch.randn(1000)
    back = tree_through_disk(tmp_path, {"a": shared, "b": [shared], "c": shared[:500]})
    assert back["a"] is back["b"][0]
    stored = load_file(tmp_path / "step-000000001" / "rank-00000.safetensors")
    assert sorted(tensor.numel() for tensor in stored.values()) == [500, 1000]


def test_the_file_opens_with_the_safetensors_library(tmp_path):
    """Under the paths of the tree, with the values and shapes that they have there."""
    model = torch.nn.Linear(3, 2).to(memory_format=torch.contiguous_format)
    tree_through_disk(
        tmp_path, {"weight": model.weight.detach().t(), "half": torch.ones(2, dtype=torch.bfloat16)}
    )
    stored = load_file(tmp_path / "step-000000001" / "rank-00000.safetensors")
    assert stored.keys() == {"box.weight", "box.half"}
    assert torch.equal(stored["box.weight"], model.weight.t())


class NotPlain(torch.Tensor):
    pass


def cyclic_state():
    state = {"around": []}
    state["around"].append(state)
    return state


REFUSED = {
    "box.callback": lambda: {"callback": lambda: 1},
    "box.groups[1].log": lambda: {"groups": [1, {"log": sys.__stderr__}]},
    "box.around[0]": cyclic_state,
    "box.weight": lambda: torch.nn.LazyLinear(3).state_dict(),
    "box[0]": lambda: [torch.empty(2, device="meta")],
    "box[1]": lambda: [1, torch.ones(2).as_subclass(NotPlain)],
    "box.q": lambda: {"q": torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.quint8)},
    "box.bits": lambda: {"bits": torch.zeros(2, dtype=torch.uint8).view(torch.bits8)},
    "box.n": lambda: {"n": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])},
    "box.array": lambda: {"array": np.arange(3, dtype=">f4")},
    "box.names": lambda: {"names": np.array(["a"])},
    "box.objects": lambda: {"objects": np.array([object()])},
    "box.factory": lambda: {"factory": defaultdict(lambda: 1)},
    "box.error": lambda: {"error": ValueError("x")},
    "box.float": lambda: {"float": type("Loss", (float,), {})(1.0)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", REFUSED)
def test_what_has_no_exact_form_is_refused_by_path_and_nothing_is_written(tmp_path, path):
    """At the call of save, not later in the background; the checkpoint before it stays, and the next save
    works."""
    box = Box({"fine": 1})
    with Checkpointer(tmp_path, box_of(box)) as checkpointer:
        checkpointer.save(step=1)
        box.tree = REFUSED[path]()
        with pytest.raises(UnsupportedValueError) as caught:
            checkpointer.save(step=2)
        assert caught.value.path == path
        assert caught.value.hint
        box.tree = {"fine": 2}
        checkpointer.save(step=3)
    assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [1, 3]
    assert not list(tmp_path.glob(".staging*"))


def box_of(box):
    return {"box": box}


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_copied_state_shares_nothing_and_keeps_ties():
    shared = torch.randn(3, requires_grad=True) * 2
    tree = {"a": shared, "b": (shared, [matrix().to_sparse_csr()]), "array": np.arange(3)}
    copied = copied_state(tree)
    assert_same(copied, {**tree, "a": shared.detach()})
    assert copied["a"] is copied["b"][0]
    assert copied["a"].data_ptr() != shared.data_ptr()
    assert copied["array"] is not tree["array"]


def resized(tensor, size_bytes):
    tensor.untyped_storage().resize_(size_bytes)
    return tensor


def escaped_from_vmap():
    kept = []
    torch.vmap(lambda each: (kept.append(each), each)[1])(torch.ones(2, 3))
    return kept[0]


WITHOUT_VALUES = {
    "a storage that was freed": (lambda: resized(torch.ones(1000), 0), "its storage of 0 bytes"),
    "a storage that was cut": (lambda: resized(torch.ones(1000), 100), "its storage of 100 bytes"),
    "a transposed one that was cut": (lambda: resized(torch.ones(9, 9).t(), 99), "its storage of 99 bytes"),
    "a slice beyond its storage": (lambda: resized(torch.ones(9, 9)[:, 8], 99), "its storage of 99 bytes"),
    "a parameter without storage": (
        lambda: torch.nn.Parameter(resized(torch.ones(9), 0)),
        "its storage of 0",
    ),
    "mkldnn": (lambda: torch.ones(2, 2).to_mkldnn(), "MKL-DNN"),
    "out of a vmap": (escaped_from_vmap, "torch does not show its values"),
}


@pytest.mark.parametrize("name", WITHOUT_VALUES)
def test_a_tensor_without_values_in_memory_is_refused_by_name(tmp_path, name):
    """Reading the memory of some would end the process."""
    make, hint = WITHOUT_VALUES[name]
    with pytest.raises(UnsupportedValueError, match=hint) as raised:
        tree_through_disk(tmp_path, {"weights": [make()]})
    assert "weights[0]" in str(raised.value)


def test_a_tensor_within_a_vmap_is_refused():
    def look(each):
        with pytest.raises(UnsupportedValueError, match="belongs to a vmap"):
            encode_state({"each": each}, TensorTable(), root="state")
        return each

    torch.vmap(look)(torch.ones(2, 3))


PARAMETERS = {
    "a parameter": lambda: torch.nn.Parameter(torch.randn(3)),
    "a frozen one": lambda: torch.nn.Parameter(torch.randn(3), requires_grad=False),
    "a leaf": lambda: torch.randn(3, requires_grad=True),
    "a transposed parameter": lambda: torch.nn.Parameter(torch.randn(2, 3).t()),
    "a leaf of another dtype": lambda: torch.randn(3, dtype=torch.complex128, requires_grad=True),
    "a sparse leaf": lambda: torch.eye(3).to_sparse().requires_grad_(),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_and_a_leaf_come_back_as_such(tmp_path, name):
    tensor = PARAMETERS[name]()
    back = tree_through_disk(tmp_path, [tensor, tensor, tensor.detach()])
    assert [type(each) for each in back] == [type(tensor), type(tensor), torch.Tensor]
    assert [each.requires_grad for each in back] == [tensor.requires_grad, tensor.requires_grad, False]
    assert back[0] is back[1] or tensor.is_sparse
    assert all(each.is_leaf for each in back)
    dense = [each.detach().to_dense() for each in (back[0], back[2], tensor)]
    assert dense[0].equal(dense[2])
    assert dense[1].equal(dense[2])
    assert back[0].stride() == tensor.stride() if tensor.layout is torch.strided else True


def test_a_node_of_a_graph_comes_back_by_its_value(tmp_path):
    (back,) = tree_through_disk(tmp_path, [torch.ones(2, requires_grad=True) * 2])
    assert back.tolist() == [2, 2]
    assert not back.requires_grad


def test_a_copy_of_a_tree_keeps_parameters_and_leaves():
    tree = [torch.nn.Parameter(torch.ones(1)), torch.ones(1, requires_grad=True), torch.ones(1)]
    copied = copied_state(tree)
    assert [type(each) for each in copied] == [torch.nn.Parameter, torch.Tensor, torch.Tensor]
    assert [each.requires_grad for each in copied] == [True, True, False]
