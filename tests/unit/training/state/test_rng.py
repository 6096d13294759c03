"""The generators: captured as plain values, restored exactly."""

import random

import numpy as np
import torch

from trainerd.training.state.rng import capture_rng, isolated_cpu_generators, restore_rng, seed_everything


def draw():
    return (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist())


def test_what_is_restored_draws_the_same_numbers():
    seed_everything(3)
    draw()
    state = capture_rng()
    expected = draw()
    draw()
    restore_rng(state)
    assert draw() == expected


def test_a_pending_second_gaussian_is_part_of_the_state():
    random.seed(1), np.random.seed(1)
    random.gauss(0, 1), np.random.randn()  # each keeps a second value for the next call
    state = capture_rng()
    expected = (random.gauss(0, 1), np.random.randn())
    restore_rng(state)
    assert (random.gauss(0, 1), np.random.randn()) == expected


def test_an_isolated_block_leaves_no_trace():
    expected_state = capture_rng()
    with isolated_cpu_generators(5):
        inside = draw()
    with isolated_cpu_generators(5):
        assert draw() == inside
    after = capture_rng()
    assert torch.equal(after["torch"], expected_state["torch"])
    assert torch.equal(after["python"]["words"], expected_state["python"]["words"])
    assert torch.equal(after["numpy"]["key"], expected_state["numpy"]["key"])
