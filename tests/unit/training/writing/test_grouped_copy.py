"""Tensors that are gathered, moved in runs and summed in blocks. The device is the CPU here."""

import pytest
import torch

from trainerd.training.writing import grouped_copy
from trainerd.training.writing.device_copy import Copy
from trainerd.training.writing.grouped_copy import Gathered, damaged_in

pytestmark = pytest.mark.torch

DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.int64,
    torch.bool,
    torch.uint8,
    torch.complex64,
    torch.float8_e4m3fn,
]


def placed(tensors, *, gap_after=()):
    """Return the copies of tensors into one host memory, one after the other."""
    octets = torch.zeros(sum(each.nbytes + 16 for each in tensors.values()), dtype=torch.uint8)
    copies, at = [], 0
    for name, tensor in tensors.items():
        at = -(-at // tensor.element_size()) * tensor.element_size()
        view = octets[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        copies.append(Copy(name, view, tensor))
        at += tensor.nbytes + (8 if name in gap_after else 0)
    return copies


def octets(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).tolist()


def moved(copies):
    gathered = Gathered(copies)
    expected = {copy.name: octets(copy.source.resolve_conj()) for copy in copies}
    for copy in copies:
        copy.source.zero_()
    runs = gathered.runs
    sums = gathered.move(is_pinned=False)
    assert {copy.name: octets(copy.target) for copy in copies} == expected
    return runs, [each.tolist() for each in sums]


def random(shape, dtype):
    return torch.randint(0, 2, shape).to(dtype)


@pytest.mark.parametrize("has_private_function", [True, False])
def test_what_arrives_is_what_was_there_at_the_call(monkeypatch, has_private_function):
    if not has_private_function:
        monkeypatch.delattr(torch, "_foreach_copy_")
    tensors = {f"{dtype}-{n}": random((n, 3), dtype) for dtype in DTYPES for n in (1, 5, 64)}
    tensors["transposed"] = torch.randn(4, 6).t()
    tensors["channels last"] = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    tensors["conjugated"] = torch.randn(5, dtype=torch.complex64).conj()
    tensors["scalar"] = torch.tensor(3.0)
    tensors["empty"] = torch.empty(0, 3)
    runs, _ = moved(placed(tensors))
    assert {name for run in runs for name in run.names} == tensors.keys() - {"empty"}


def test_a_function_that_does_not_know_a_dtype_is_done_without(monkeypatch):
    def refuse(*_):
        raise NotImplementedError

    monkeypatch.setattr(torch, "_foreach_copy_", refuse)
    moved(placed({"a": torch.randn(5), "b": torch.randn(7)}))


def test_tensors_of_one_dtype_without_a_gap_are_one_run():
    tensors = {name: torch.randn(6) for name in "abcd"} | {"e": torch.arange(3)}
    runs, _ = moved(placed(tensors, gap_after="b"))
    assert [run.names for run in runs] == [("a", "b"), ("c", "d"), ("e",)]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 24])
def test_every_wrong_byte_is_found_in_the_tensors_of_its_block(monkeypatch, size):
    monkeypatch.setattr(grouped_copy, "BLOCK_WORDS", 4)
    copies = placed({name: random((size,), torch.uint8) for name in "abc"})
    targets = {copy.name: copy.target for copy in copies}
    (run,), (sums,) = moved(copies)
    assert damaged_in(run, sums, targets) == []
    for name, target in targets.items():
        for at in range(size):
            target[at] ^= 0x40
            assert name in damaged_in(run, sums, targets)
            target[at] ^= 0x40


def test_tensors_far_from_the_damage_are_not_named(monkeypatch):
    monkeypatch.setattr(grouped_copy, "BLOCK_WORDS", 4)
    copies = placed({name: torch.randn(64) for name in "abc"})
    (run,), (sums,) = moved(copies)
    copies[1].target[30] += 1
    assert damaged_in(run, sums, {copy.name: copy.target for copy in copies}) == ["b"]


def test_a_thousand_saves_have_the_values_of_the_call():
    """Everything is changed in place right after the call, before anything is moved."""
    weights = {str(number): torch.zeros(8) for number in range(6)}
    copies = placed(weights)
    for save in range(1000):
        for weight in weights.values():
            weight.fill_(save)
        gathered = Gathered(copies)
        for weight in weights.values():
            weight.mul_(-1).sub_(1)
        gathered.move(is_pinned=True)
        assert all(copy.target.eq(save).all() for copy in copies), save
