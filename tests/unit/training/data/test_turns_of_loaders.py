"""Loaders that a script uses in another order, alone or in step, or makes in each epoch, resumed twice."""

import pytest
import torch
from torch import nn

from tests.support import loop_shapes
from tests.support.in_process import attempt, disturbed, undisturbed
from tests.support.struck import struck_reasons

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("saved_each_time")]


class Counting(loop_shapes.Counting):
    """The same with a length of its own, which its batches tell."""

    def __init__(self, length):
        super().__init__()
        self.length = length

    def __iter__(self):
        while self.at < self.length:
            self.at += 1
            yield torch.tensor(self.at + 10.0 * self.passes + 100.0 * self.length)
        self.at, self.passes = 0, self.passes + 1


def loop_over(turns, *, epochs=5):
    """Return a run over two loaders, and which of them each loop of each epoch is over."""

    def loop(session, tick):
        loaders = (Counting(2), Counting(3))
        session.track(model=nn.Linear(1, 1))
        for epoch in session.epochs(epochs):
            for numbers in turns(epoch):
                for batch in session.batches(*[loaders[number] for number in numbers]):
                    session.log(loss=torch.stack(batch).sum() if isinstance(batch, tuple) else batch)
                    tick()

    return loop


TURNS = {
    "in another order": lambda epoch: ((0,), (1,)) if epoch % 2 == 0 else ((1,), (0,)),
    "in step, then alone": lambda epoch: ((0, 1), (0,)),
    "in step, alone, in step the other way round": lambda epoch: ((0, 1), (1,), (1, 0)),
    "in step in every other epoch": lambda epoch: ((0, 1),) if epoch % 2 == 0 else ((1,),),
    "one in every other epoch, before the other": lambda epoch: ((0,), (1,)) if epoch % 2 == 0 else ((1,),),
}


@pytest.mark.parametrize("crashes", [(3, 2), (6, 2)])
@pytest.mark.parametrize("turns", TURNS)
def test_a_loader_goes_on_from_its_own_state_wherever_it_is_used_next(tmp_path, turns, crashes):
    loop = loop_over(TURNS[turns])
    expected = undisturbed(tmp_path / "left-alone", loop, steps=1)
    found = disturbed(tmp_path / "struck", loop, crashes, steps=1)
    assert (found.rows, found.reports) == (expected.rows, expected.reports)


def test_a_loader_with_a_state_that_is_made_in_each_epoch_is_named(tmp_path):
    def loop(session, tick):
        session.track(model=nn.Linear(1, 1))
        for _ in session.epochs(3):
            for batch in session.batches(Counting(2)):
                session.log(loss=batch)
                tick()

    attempt(tmp_path, loop, crash_at=3, steps=1)
    attempt(tmp_path, loop, steps=1)
    assert struck_reasons(tmp_path)["made-in-epoch"]["where"] == "Counting"


def test_one_that_is_made_before_the_epochs_is_not(tmp_path):
    loop = loop_over(lambda epoch: ((0,),))
    attempt(tmp_path, loop, crash_at=3, steps=1)
    attempt(tmp_path, loop, steps=1)
    assert struck_reasons(tmp_path) == {}
