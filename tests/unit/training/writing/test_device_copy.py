"""Copies from a device: what is saved is what the device held at the call, or nothing is saved and it is
said.

On the CPU a fake runtime stands for the driver. Where there is a CUDA device, the fake's promises are checked
on it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from safetensors.torch import load

import trainerd
from tests.support.fake_cuda import ALREADY_REGISTERED, FakeCuda
from trainerd.checkpoint.host_memory import address_of
from trainerd.errors import DeviceCopyError
from trainerd.training.engine import checkpoint_manager
from trainerd.training.state.rank_files import read_verified
from trainerd.training.state.snapshot import Snapshot, take_snapshot
from trainerd.training.writing.checksum import checksum_of, word_bytes_of, words_of
from trainerd.training.writing.device_copy import CUDA, Copy, damaged
from trainerd.training.writing.host_buffer import HostBuffer
from trainerd.training.writing.staging_buffer import Arena
from trainerd.training.writing.writer import CheckpointWriter

pytestmark = pytest.mark.torch

SIZE = 1 << 16


class Fake:
    """A device, as the tests of what the fake promises use it."""

    def __init__(self):
        self.runtime = FakeCuda()
        self.tensor = self.runtime.tensor
        self.launch = self.runtime.launch

    @contextlib.contextmanager
    def capture(self):
        self.runtime.is_capturing = True
        yield
        self.runtime.is_capturing = False


class FakeWithRoom(Fake):
    """The same, with room to gather what is copied."""

    def __init__(self):
        super().__init__()
        self.runtime.is_gathering = True


class Real:
    def __init__(self):
        self.runtime = CUDA
        self.tensor = lambda values: values.cuda()
        self.launch = lambda: torch.ones(1, device="cuda").mul_(2).item()

    @contextlib.contextmanager
    def capture(self):
        number = torch.zeros(1, device="cuda")
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            number.add_(1)
            yield
            number.add_(1)


@pytest.fixture(params=[False, True], ids=["one by one", "gathered"])
def cuda(request):
    return FakeCuda(is_gathering=request.param)


@pytest.fixture(
    params=[
        Fake,
        FakeWithRoom,
        pytest.param(
            Real,
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ]
)
def device(request):
    return request.param()


def snapshot_of(**tensors: torch.Tensor) -> Snapshot:
    return Snapshot({}, tensors)


def filled(arena: Arena, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    filling = arena.fill(snapshot_of(**tensors))
    content = load(b"".join(bytes(piece) for piece in filling.pieces())[: filling.image.size])
    assert filling.damaged() == []
    return content


def octets(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())


# -------------------------------------------------------------- what the fake and the driver have in common


def test_memory_that_is_registered_is_refused_until_it_is_unregistered(device):
    buffer = HostBuffer(SIZE, device.runtime)
    address = address_of(buffer.memory)
    assert device.runtime.register(address, SIZE) == 0
    assert device.runtime.register(address, SIZE) == ALREADY_REGISTERED
    device.runtime.clear_error()
    device.launch()
    assert device.runtime.unregister(address) == 0
    assert device.runtime.register(address, SIZE) == 0
    assert device.runtime.unregister(address) == 0


def test_a_refusal_leaves_an_error_that_the_next_launch_raises(device):
    buffer = HostBuffer(SIZE, device.runtime)
    assert buffer.pin()
    assert device.runtime.register(address_of(buffer.memory), SIZE) == ALREADY_REGISTERED
    with pytest.raises(RuntimeError, match=r"712|already mapped|AlreadyRegistered|already registered"):
        device.launch()
    device.launch()


@pytest.mark.parametrize("is_pinned", [True, False])
def test_copies_have_the_values_of_the_call_and_their_checksums(device, is_pinned):
    buffer = HostBuffer(SIZE, device.runtime)
    assert not is_pinned or buffer.pin()
    target = torch.frombuffer(buffer.memory, dtype=torch.float32, count=1000)
    expected = torch.randn(1000)
    source = device.tensor(expected)
    transfer = device.runtime.start_copies([Copy("a", target, source)], is_pinned=is_pinned)
    source.zero_()
    if is_pinned:
        transfer.wait()
    assert torch.equal(target, expected)
    transfer.wait()
    transfer.wait()
    assert damaged(transfer, {"a": target}) == []
    target[17] += 1
    assert damaged(transfer, {"a": target}) == ["a"]


def test_a_thread_that_ignores_the_captures_of_others_may_wait_during_one(device):
    buffer = HostBuffer(SIZE, device.runtime)
    assert buffer.pin()
    target = torch.frombuffer(buffer.memory, dtype=torch.float32, count=1000)
    expected = torch.randn(1000)
    transfer = device.runtime.start_copies([Copy("a", target, device.tensor(expected))], is_pinned=True)
    found = []

    def work():
        device.runtime.ignore_captures_of_others()
        transfer.wait()
        found.append(damaged(transfer, {"a": target}))

    with device.capture():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
    assert found == [[]]
    assert torch.equal(target, expected)


KINDS = {
    "float": torch.randn(1001),
    "half": torch.randn(7).to(torch.bfloat16),
    "bytes": torch.arange(13, dtype=torch.uint8),
    "flags": torch.tensor([True, False, True]),
    "double": torch.randn(3, dtype=torch.float64),
    "complex": torch.randn(5, dtype=torch.complex64),
    "eighth": torch.randn(9).to(torch.float8_e4m3fn),
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 3),
    "matrix": torch.randn(8, 6),
}


def test_tensors_of_every_kind_arrive_and_are_verified(device):
    sources = {name: device.tensor(value) for name, value in KINDS.items()}
    sources["slice"] = device.tensor(torch.randn(100))[3:98]
    sources["transposed"] = device.tensor(torch.randn(8, 6)).t()
    sources["conjugated"] = device.tensor(torch.randn(5, dtype=torch.complex64)).conj().resolve_conj()
    content = filled(Arena(device.runtime), host=torch.ones(3), **sources)
    for name, source in sources.items():
        assert content[name].shape == source.shape
        assert octets(content[name]) == octets(source.cpu()), name


def test_a_second_buffer_at_the_same_address_gets_what_the_device_held(device):
    """The driver's old registration would send the copies to pages that are no longer there."""
    addresses: set[int] = set()
    for number in range(1, 201):
        arena = Arena(device.runtime)
        expected = torch.full((SIZE,), float(number))
        assert torch.equal(filled(arena, a=device.tensor(expected))["a"], expected)
        assert arena._buffer.is_pinned
        address = address_of(arena._buffer.memory)
        if address in addresses:
            return
        addresses.add(address)
        del arena
    pytest.fail("no address was used twice: this has tested nothing")


# --------------------------------------------------------------------- the life of a registration


def test_a_registration_ends_before_a_larger_buffer_takes_the_place(cuda):
    arena = Arena(cuda)
    filled(arena, a=cuda.tensor(torch.ones(10)))
    filled(arena, a=cuda.tensor(torch.ones(SIZE)))
    assert cuda.leaked() == []
    assert list(cuda.registrations) == [address_of(arena._buffer.memory)]


def test_a_registration_ends_when_the_arena_is_released(cuda):
    arena = Arena(cuda)
    filled(arena, a=cuda.tensor(torch.ones(10)))
    arena.release()
    assert cuda.registrations == {}
    assert torch.equal(filled(arena, a=cuda.tensor(torch.ones(10)))["a"], torch.ones(10))


def test_a_registration_ends_when_the_garbage_collector_finds_the_arena(cuda):
    arena = Arena(cuda)
    filled(arena, a=cuda.tensor(torch.ones(10)))
    arena.cycle = arena
    del arena
    gc.collect()
    assert cuda.registrations == {}


def test_a_registration_lasts_as_long_as_something_looks_at_the_memory(cuda):
    arena = Arena(cuda)
    filling = arena.fill(snapshot_of(a=cuda.tensor(torch.ones(10))))
    del arena
    assert cuda.leaked() == []
    assert load(b"".join(map(bytes, filling.pieces()))[: filling.image.size])["a"].sum() == 10
    del filling
    gc.collect()
    assert cuda.registrations == {}


def test_a_copy_on_its_way_is_waited_for_before_the_registration_ends(cuda):
    arena = Arena(cuda)
    filling = arena.fill(snapshot_of(a=cuda.tensor(torch.ones(10))))
    transfer = filling._transfer
    assert not transfer.has_arrived
    arena.release()
    assert transfer.has_arrived


def test_a_copy_of_a_write_that_was_called_off_is_waited_for_before_the_memory_is_used_again(cuda):
    arena = Arena(cuda)
    transfer = arena.fill(snapshot_of(a=cuda.tensor(torch.ones(10)), b=torch.zeros(3)))._transfer
    assert not transfer.has_arrived
    arena.begin(snapshot_of(b=torch.zeros(3)))
    assert transfer.has_arrived


def test_a_forked_child_leaves_the_registration_alone(cuda):
    arena = Arena(cuda)
    filled(arena, a=cuda.tensor(torch.ones(10)))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # fork beside threads: the child does next to nothing
        child = os.fork()
    if child == 0:
        arena.release()
        os._exit(len(cuda.registrations))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    arena.release()
    assert cuda.registrations == {}


AT_EXIT = """
import torch
from tests.support.fake_cuda import FakeCuda
from trainerd.training.writing.staging_buffer import Arena
from trainerd.training.state.snapshot import Snapshot

class Told(FakeCuda):
    def unregister(self, address):
        code = super().unregister(address)
        print("unregistered", code, flush=True)
        return code

cuda = Told()
arena = Arena(cuda)
arena.fill(Snapshot({}, {"a": cuda.tensor(torch.ones(10))}))
"""


def test_a_registration_ends_with_the_interpreter():
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "unregistered 0\n"


def test_a_refused_registration_is_no_error_and_the_copies_are_complete_at_once(cuda):
    cuda.refusals = 1
    arena = Arena(cuda)
    filling = arena.fill(snapshot_of(a=cuda.tensor(torch.ones(10))))
    cuda.launch()
    assert filling._transfer.has_arrived
    assert cuda.blocking_copies == 1
    assert torch.equal(filled(arena, a=cuda.tensor(torch.ones(10)))["a"], torch.ones(10))
    assert cuda.registrations == {}  # the driver is not asked again for the same memory


def test_tensors_that_move_to_the_device_later_have_the_memory_pinned_then(cuda):
    arena = Arena(cuda)
    filled(arena, a=torch.ones(10))
    assert cuda.registrations == {}
    filled(arena, a=cuda.tensor(torch.ones(10)))
    assert arena._buffer.is_pinned


# --------------------------------------------------------------------- verified at the source


@pytest.mark.parametrize("name", KINDS)
def test_a_checksum_sees_every_single_bit(name):
    tensor = KINDS[name].clone()
    word_bytes = word_bytes_of(tensor)
    before = checksum_of(tensor, word_bytes)
    assert before == int(words_of(tensor, word_bytes).sum(dtype=torch.int64))
    for index in range(tensor.nbytes):
        octets = tensor.view(-1).view(torch.uint8)
        octets[index] ^= 1 << index % 8
        assert checksum_of(tensor, word_bytes) != before
        octets[index] ^= 1 << index % 8
    assert checksum_of(tensor, word_bytes) == before


def test_words_that_lie_at_any_address_have_the_same_sum():
    octets = torch.randint(0, 256, (1 << 12,), dtype=torch.uint8)
    aligned = octets[4:-4].clone()
    assert checksum_of(octets[4:-4], 8) == checksum_of(aligned, 8)


@pytest.fixture
def checkpointer(tmp_path, cuda, monkeypatch):
    """A Checkpointer of one device tensor."""

    class OnFake(CheckpointWriter):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options, runtime=cuda)

    monkeypatch.setattr(checkpoint_manager, "CheckpointWriter", OnFake)
    box = Box(cuda.tensor(torch.ones(1000)))
    with trainerd.Checkpointer(tmp_path / "checkpoints", {"box": box}) as checkpointer:
        checkpointer.box = box
        yield checkpointer


class Box:
    def __init__(self, tensor):
        self.tensor = tensor

    def state_dict(self):
        return {"tensor": self.tensor}

    def load_state_dict(self, state):
        self.tensor.copy_(state["tensor"])


def saved_values(checkpointer) -> dict[int, float]:
    found = {}
    for checkpoint in checkpointer.checkpoints():
        tree = read_verified(checkpoint, 0)
        fresh = Box(torch.zeros(1000))
        tree.apply({"box": fresh}, source=checkpoint.name)
        found[checkpoint.step] = float(fresh.tensor.mean())
    return found


def test_a_save_whose_tensor_arrives_damaged_is_not_committed_and_the_next_one_is_blocking(
    checkpointer, cuda
):
    checkpointer.save(step=1)
    checkpointer.wait()
    cuda.damages = 1
    checkpointer.box.tensor.fill_(2)
    checkpointer.save(step=2)
    with pytest.warns(UserWarning, match=r"box\.tensor arrived in host memory with other bytes"):
        checkpointer.save(step=3)
    assert checkpointer.wait().step == 3
    assert saved_values(checkpointer) == {1: 1.0, 3: 2.0}
    assert cuda.blocking_copies == 1
    assert cuda.registrations == {}


def test_a_save_is_written_while_the_script_captures_a_graph(checkpointer, cuda):
    checkpointer.save(step=1)
    checkpointer.wait()
    checkpointer.box.tensor.fill_(2)
    checkpointer.save(step=2)
    cuda.is_capturing = True
    assert checkpointer.wait().step == 2
    cuda.is_capturing = False
    assert saved_values(checkpointer)[2] == 2.0


def test_a_second_damaged_save_is_an_error(checkpointer, cuda):
    cuda.damages = 2
    checkpointer.save(step=1)
    with pytest.warns(UserWarning, match="the save is made again now"):
        checkpointer.save(step=2)
    with pytest.raises(DeviceCopyError, match="nvidia-smi"):
        checkpointer.save(step=3)
    assert checkpointer.checkpoints() == ()


def test_who_waits_for_a_damaged_save_is_told(checkpointer, cuda):
    cuda.damages = 1
    checkpointer.save(step=1)
    with pytest.raises(DeviceCopyError, match=r"not saved: box\.tensor"):
        checkpointer.wait()
    assert checkpointer.checkpoints() == ()


def test_a_save_that_is_waited_for_is_repeated_at_once(checkpointer, cuda):
    checkpointer._is_asynchronous = False
    cuda.damages = 1
    with pytest.warns(UserWarning, match="blocking copies"):
        checkpointer.save(step=1)
    assert saved_values(checkpointer) == {1: 1.0}


@pytest.mark.parametrize("damages", [0, 1, 2])
def test_an_urgent_save_copies_a_damaged_tensor_once_more(checkpointer, cuda, damages):
    cuda.damages = damages
    snapshot = take_snapshot(checkpointer.objects)
    manifest = checkpointer._manager.lineage.manifest(step=1, epoch=0, scores={}, reason="drain")
    with pytest.raises(DeviceCopyError) if damages > 1 else contextlib.nullcontext():
        checkpointer._manager.writer.write_now(snapshot, manifest)
    assert saved_values(checkpointer) == ({1: 1.0} if damages < 2 else {})
