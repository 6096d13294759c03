"""What a script draws before a loop, such as the order of an epoch, is drawn the same after a resume."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.in_process import disturbed, undisturbed

pytestmark = pytest.mark.torch

POINTS = torch.arange(6.0)


def train(session, tick, order, *, leaves_at=None):
    for number in session.batches(range(3)):
        session.log(loss=POINTS[order[number]])
        tick()
        if number == leaves_at:
            break


def orders_by_epoch(session, tick):
    """an order for each epoch, and one between two loops"""
    for _ in session.epochs(2):
        first, shift = torch.randperm(6), random.randrange(6)
        train(session, tick, (first + shift) % 6)
        second = np.random.permutation(6)
        train(session, tick, first[torch.from_numpy(second)])


def orders_after_breaks(session, tick):
    """loops that are left in the middle"""
    for _ in session.epochs(2):
        train(session, tick, torch.randperm(6), leaves_at=1)
        train(session, tick, torch.randperm(6))
        torch.rand(1)


def orders_in_plain_epochs(session, tick):
    """``for epoch in range(n)``"""
    for _ in range(3):
        train(session, tick, torch.randperm(6))


@pytest.mark.parametrize("crashes", [(3, 2), (5, 2)])
@pytest.mark.parametrize("script", [orders_by_epoch, orders_after_breaks, orders_in_plain_epochs])
def test_an_order_that_was_drawn_before_the_loop_is_drawn_again(tmp_path, saved_each_time, script, crashes):
    def loop(session, tick):
        session.track(model=nn.Linear(1, 1))
        script(session, tick)

    expected = undisturbed(tmp_path / "left-alone", loop, steps=1, seed=0)
    assert disturbed(tmp_path / "struck", loop, crashes, steps=1, seed=0) == expected
