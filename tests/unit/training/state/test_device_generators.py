"""The generators of CUDA devices, put back on as many devices, on fewer, on more and on none."""

import pytest
import torch

from tests.support.fake_generators import FakeGenerators
from trainerd.training.state.device_generators import device_states, put_back_states
from trainerd.training.state.generators import generator_state, set_generator_state, take_reseeded
from trainerd.training.state.rng import capture_rng, restore_rng


def seed_of(device):
    return 1000 + device


def saved(count):
    """Return the states of so many devices, and what is drawn from them next."""
    devices = FakeGenerators(count)
    devices.draw()
    states = device_states(devices)
    return states, devices.draw()


@pytest.mark.parametrize("here", range(4))
@pytest.mark.parametrize("there", range(4))
def test_generators_that_both_machines_have_go_on_and_the_others_are_seeded(there, here):
    states, expected = saved(there)
    drawn = []
    for _ in range(2):
        devices = FakeGenerators(here)
        devices.draw()
        seeded = put_back_states(states, devices, seed_of=seed_of)
        assert (seeded is None) == (there == here)
        drawn.append(devices.draw())
    assert drawn[0] == drawn[1]
    assert drawn[0][:there] == expected[:here]
    others = drawn[0][there:]
    assert len(set(others)) == len(others)


def test_the_seeds_of_the_others_are_those_that_were_asked_for():
    devices, expected = FakeGenerators(2), FakeGenerators(2)
    put_back_states([], devices, seed_of=seed_of)
    for number in range(2):
        expected.seed(number, seed_of(number))
    assert devices.draw() == expected.draw()


def test_devices_that_neither_the_checkpoint_nor_the_program_has_used_are_left_alone():
    devices = FakeGenerators(2, is_initialised=False)
    expected = FakeGenerators(2).draw()
    assert device_states(devices) == []
    assert put_back_states([], devices, seed_of=seed_of) is None
    assert devices.draw() == expected


@pytest.mark.parametrize(
    ("there", "here", "text"),
    [
        (1, 0, "1 CUDA generator and no device is here: none restored; what was random on a device draws"),
        (8, 1, "8 CUDA generators and 1 device is here: 1 restored; what is random there draws other"),
        (2, 3, "2 CUDA generators and 3 devices are here: 2 restored, 1 seeded from the run's seed"),
        (0, 1, "no CUDA generator and 1 device is here: none restored, 1 seeded from the run's seed"),
    ],
)
def test_what_is_said_is_what_was_done(there, here, text):
    assert text in str(put_back_states(saved(there)[0], FakeGenerators(here), seed_of=seed_of))


def test_the_other_generators_are_restored_whatever_the_devices_are():
    state = capture_rng(FakeGenerators(99))
    expected = torch.rand(3).tolist()
    assert restore_rng(state, seed_of=seed_of) is not None  # no device is asked for
    assert torch.rand(3).tolist() == expected


CUDA_STATE = torch.tensor([*(7).to_bytes(8, "little"), *(400).to_bytes(8, "little")], dtype=torch.uint8)


@pytest.mark.parametrize("note", [{"device": "cuda"}, {}], ids=["noted", "by size"])
def test_a_generator_whose_state_is_of_a_device_is_seeded_from_it(note):
    drawn = []
    for _ in range(2):
        generator = torch.Generator()
        set_generator_state(generator, {"kind": "torch", "state": CUDA_STATE, **note})
        assert take_reseeded() == ["a generator of device cuda is one of cpu here"]
        assert take_reseeded() == []
        drawn.append(torch.rand((), generator=generator).item())
    assert drawn[0] == drawn[1]
    other = torch.Generator()
    set_generator_state(other, {"kind": "torch", "state": CUDA_STATE.flip(0)})
    take_reseeded()
    assert torch.rand((), generator=other).item() != drawn[0]


def test_a_generator_of_the_same_device_takes_its_state():
    generator = torch.Generator().manual_seed(5)
    state = generator_state(generator)
    expected = torch.rand(3, generator=generator).tolist()
    for each in (state, {key: value for key, value in state.items() if key != "device"}):
        set_generator_state(generator, each)
        assert torch.rand(3, generator=generator).tolist() == expected
    assert take_reseeded() == []
