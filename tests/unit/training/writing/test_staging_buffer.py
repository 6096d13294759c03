"""The image of a tensor file: the bytes in the arena and in the ring are those of the file."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch
from safetensors.torch import load

from trainerd.checkpoint.direct_io import BLOCK_BYTES
from trainerd.training.state.snapshot import Snapshot, take_snapshot
from trainerd.training.writing import host_copy, staging_buffer
from trainerd.training.writing.direct_file import AbandonedError
from trainerd.training.writing.host_copy import (
    COMPARISON_DISTANCE_MAX,
    RECENT,
    FasterWay,
    copy_all,
    is_plain_memory,
    move,
)
from trainerd.training.writing.staging_buffer import Arena, piece_ends
from trainerd.training.writing.streaming import SLOT_BYTES, SLOTS, Ring, streamed

MANY = {
    "weights": torch.arange(7, dtype=torch.float32),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "double": torch.tensor([1e300, float("nan")], dtype=torch.float64),
    "scalar": torch.tensor(3, dtype=torch.int64),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.empty(0, 4),
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
    "expanded": torch.ones(1, 3).expand(4, 3),
    "conjugated": torch.tensor([1 + 2j, 3 - 4j]).conj(),
    "negated": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
}


def snapshot_of(tensors: dict[str, torch.Tensor]) -> Snapshot:
    return Snapshot({}, dict(tensors))


def joined(pieces, size: int) -> bytes:
    return b"".join(bytes(piece) for piece in pieces)[:size]


def filled(arena: Arena, tensors: dict[str, torch.Tensor]) -> bytes:
    filling = arena.fill(snapshot_of(tensors))
    return joined(filling.pieces(), filling.image.size)


def ringed(tensors: dict[str, torch.Tensor]) -> bytes:
    layout, pieces = streamed(snapshot_of(tensors), Ring())
    return joined(pieces, layout.size)


def assert_holds(data: bytes, tensors: dict[str, torch.Tensor]) -> None:
    read = load(data)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert octets(read[name]) == octets(tensor), name


def octets(tensor: torch.Tensor) -> bytes:
    plain = tensor.resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("count", [10, SLOT_BYTES // 4 - 1000, SLOT_BYTES // 4 + 1000, SLOT_BYTES])
def test_a_ring_that_was_used_before_leaves_nothing_of_that(count):
    ring = Ring()
    ring.prepare(count)
    for tensor in (torch.randn(count), torch.randn(10), torch.randn(2 * count)):
        layout, pieces = streamed(snapshot_of({"a": tensor}), ring)
        assert_holds(joined(pieces, layout.size), {"a": tensor})


def test_a_prepared_ring_is_used_as_it_is_and_is_no_larger_than_the_image():
    ring = Ring()
    ring.prepare(5000)
    memory = ring.memory(5000)
    assert len(memory) == 2 * BLOCK_BYTES
    assert ring.memory(4000) is memory
    ring.prepare(SLOT_BYTES * 100)
    assert len(ring.memory(SLOT_BYTES * 50)) == SLOT_BYTES * SLOTS


def test_the_image_is_a_safetensors_file_whatever_the_tensors_are():
    assert_holds(filled(Arena(), MANY), MANY)


def test_the_ring_gives_the_bytes_of_the_arena():
    assert ringed(MANY) == filled(Arena(), MANY)


def test_the_ring_gives_the_bytes_of_the_arena_when_tensors_span_its_slots():
    large = {name: torch.randn(SLOT_BYTES // 4 + 1000) for name in "abc"}
    assert ringed(large) == filled(Arena(), large)


@pytest.mark.parametrize("make", [filled, lambda _, tensors: ringed(tensors)])
def test_nothing_but_a_header_is_an_image_too(make):
    assert load(make(Arena(), {})) == {}
    assert load(make(Arena(), {"empty": torch.empty(0)}))["empty"].numel() == 0


def test_pieces_are_whole_blocks_and_begin_at_a_page(monkeypatch):
    monkeypatch.setattr(staging_buffer, "FIRST_PIECE_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(staging_buffer, "PIECE_BYTES", 2 * BLOCK_BYTES)
    filling = Arena().fill(snapshot_of({"a": torch.randn(5 * BLOCK_BYTES // 4 + 1)}))
    sizes = [len(piece) for piece in filling.pieces()]
    assert sum(sizes) == filling.image.padded_size
    assert sum(sizes) - filling.image.size < BLOCK_BYTES
    assert all(size % BLOCK_BYTES == 0 for size in sizes)
    assert sizes[0] == BLOCK_BYTES


def test_tensors_across_the_borders_of_pieces_arrive_whole(monkeypatch):
    monkeypatch.setattr(staging_buffer, "FIRST_PIECE_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(staging_buffer, "PIECE_BYTES", BLOCK_BYTES)
    tensors = {f"t{index}": torch.randn(count) for index, count in enumerate((3, 5000, 1, 1024, 1023, 9999))}
    assert filled(Arena(), tensors) == ringed(tensors)


def test_piece_ends_cover_an_image_exactly():
    for size in (
        BLOCK_BYTES,
        staging_buffer.FIRST_PIECE_BYTES,
        staging_buffer.FIRST_PIECE_BYTES + BLOCK_BYTES,
        1 << 30,
    ):
        ends = piece_ends(size)
        assert ends[-1] == size
        assert ends == sorted(set(ends))


def test_tensors_changed_after_the_copy_are_saved_as_they_were():
    live = {"a": torch.ones(1000)}
    arena = Arena()
    filling = arena.fill(snapshot_of(live))
    live["a"].zero_()
    assert torch.equal(load(joined(filling.pieces(), filling.image.size))["a"], torch.ones(1000))


def test_the_arena_is_kept_for_the_same_shapes_and_replaced_for_larger_ones():
    arena = Arena()
    filled(arena, {"a": torch.ones(10)})
    buffer = arena._buffer
    assert_holds(filled(arena, {"a": torch.zeros(10)}), {"a": torch.zeros(10)})
    assert arena._buffer is buffer
    larger = {"a": torch.ones(1 << 16), "b": torch.zeros(3)}
    assert_holds(filled(arena, larger), larger)
    assert arena._buffer is not buffer
    assert_holds(filled(arena, {"b": torch.ones(3)}), {"b": torch.ones(3)})


def test_an_arena_that_was_prepared_is_the_one_that_is_filled():
    arena, tensors = Arena(), {"a": torch.ones(1 << 16)}
    arena.prepare(snapshot_of(tensors))
    buffer = arena._buffer
    assert_holds(filled(arena, tensors), tensors)
    assert arena._buffer is buffer


def test_a_piece_can_be_written_while_the_rest_is_being_copied(monkeypatch):
    """The writer gets the first piece before the copy of the second one has begun."""
    monkeypatch.setattr(staging_buffer, "FIRST_PIECE_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(staging_buffer, "PIECE_BYTES", BLOCK_BYTES)
    first_is_out, calls = threading.Event(), []

    def slow_copy_all(targets, sources, way):
        if calls:
            assert first_is_out.wait(10)
        calls.append(way)
        copy_all(targets, sources, way)

    monkeypatch.setattr(staging_buffer, "copy_all", slow_copy_all)
    tensors = {name: torch.randn(BLOCK_BYTES) for name in "ab"}
    filling, copy = Arena().begin(snapshot_of(tensors))
    copier = threading.Thread(target=copy)
    copier.start()
    pieces = filling.pieces()
    parts = [bytes(next(pieces))]
    first_is_out.set()
    parts += [bytes(piece) for piece in pieces]
    copier.join()
    assert_holds(b"".join(parts)[: filling.image.size], tensors)


def test_a_copy_that_fails_ends_the_wait_of_the_writer(monkeypatch):
    def failing(*_):
        raise MemoryError

    monkeypatch.setattr(staging_buffer, "copy_all", failing)
    filling, copy = Arena().begin(snapshot_of({"a": torch.ones(10)}))
    with pytest.raises(MemoryError):
        copy()
    with pytest.raises(AbandonedError):
        list(filling.pieces())


@pytest.mark.parametrize("way", ["team", "team without _foreach_copy_", "alone"])
def test_both_ways_copy_the_same(way, monkeypatch):
    if way.endswith("_"):
        monkeypatch.delattr(torch, "_foreach_copy_")
        way = "team"
    sources = [tensor for tensor in MANY.values() if tensor.numel()]
    sources.append(torch.randn(3 * host_copy.HOLDING_BYTES_MAX // 4))
    targets = [torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in sources]
    copy_all(targets, sources, way)
    for target, source in zip(targets, sources, strict=True):
        assert octets(target) == octets(source)


def test_memory_is_moved_to_an_address():
    source, target = torch.randn(1000), torch.empty(1000)
    move(target.data_ptr(), source.data_ptr(), 4000)
    assert torch.equal(source, target)


def ways(faster, costs, count):
    """Copy `count` times where each way costs what `costs` says; return the ways that were used."""
    used = []
    for _ in range(count):
        used.append(faster.next())
        faster.took(used[-1], 100, costs[used[-1]])
    return used


def test_both_ways_are_tried_and_the_faster_one_is_used():
    opening = ["team", "team", "team", "alone"]
    assert ways(FasterWay(), {"team": 1.0, "alone": 2.0}, 6) == [*opening, "team", "team"]
    assert ways(FasterWay(), {"team": 9.0, "alone": 2.0}, 6) == [*opening, "alone", "alone"]


def test_what_the_first_copy_took_says_nothing():
    faster = FasterWay()
    ways(faster, {"team": 0.1}, 1)
    assert ways(faster, {"team": 9.0, "alone": 2.0}, 10)[3:] == ["alone"] * 7


def test_one_slow_copy_at_the_beginning_says_nothing_either():
    faster = FasterWay()
    ways(faster, {"team": 50.0}, 2)
    assert ways(faster, {"team": 1.0, "alone": 2.0}, 10)[2:] == ["team"] * 8


def test_the_slower_way_is_tried_rarely_while_nothing_changes():
    used = ways(FasterWay(), {"team": 1.0, "alone": 1.4}, 604)
    trials = [index for index, way in enumerate(used) if way == "alone"]
    gaps = [later - earlier - 1 for earlier, later in itertools.pairwise(trials[1:])]
    assert len(trials) == 1 + 600 // (COMPARISON_DISTANCE_MAX + 1)
    assert set(gaps) == {COMPARISON_DISTANCE_MAX}


def test_one_slow_copy_is_no_reason_to_try_the_other_way():
    faster = FasterWay()
    ways(faster, {"team": 1.0, "alone": 2.0}, 6)
    ways(faster, {"team": 30.0}, 1)
    assert ways(faster, {"team": 1.0}, 10) == ["team"] * 10


def test_a_machine_that_becomes_busy_is_noticed_within_a_few_copies():
    faster = FasterWay()
    ways(faster, {"team": 1.0, "alone": 2.0}, 20)
    busy = ways(faster, {"team": 20.0, "alone": 5.0}, 20)
    assert busy == ["team"] * RECENT + ["alone"] * (20 - RECENT)


def test_a_machine_that_is_no_longer_busy_gets_the_other_way_back():
    faster = FasterWay()
    assert ways(faster, {"team": 20.0, "alone": 5.0}, 20)[-1] == "alone"
    assert ways(faster, {"team": 1.0, "alone": 2.0}, 20) == ["alone"] + ["team"] * 19


def test_a_busy_machine_on_which_the_other_way_is_no_better_is_left_with_the_one():
    faster = FasterWay()
    ways(faster, {"team": 1.0, "alone": 2.0}, 20)
    assert ways(faster, {"team": 5.0, "alone": 9.0}, 30).count("alone") == 1


def test_only_memory_that_is_the_values_is_moved_as_memory():
    assert is_plain_memory(torch.ones(3))
    for name in ("transposed", "expanded", "conjugated", "negated"):
        assert not is_plain_memory(MANY[name]), name


def test_a_snapshot_copies_nothing():
    model = torch.nn.Linear(3, 3)
    snapshot = take_snapshot({"model": model})
    assert snapshot.tensors["model.weight"].data_ptr() == model.weight.data_ptr()
    assert snapshot.tensor_bytes == 12 * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_tensors_changed_after_the_call_are_saved_as_they_were():
    live = {"a": torch.ones(1 << 22, device="cuda"), "b": torch.arange(10.0)}
    arena = Arena()
    filling = arena.fill(snapshot_of(live))
    live["a"].zero_()
    assert torch.equal(load(joined(filling.pieces(), filling.image.size))["a"], torch.ones(1 << 22))
