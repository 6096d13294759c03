"""To ask for the length of a loader, as progress bars do, changes no pass over it."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from tests.support.in_process import disturbed, undisturbed

pytestmark = pytest.mark.torch


class Turning(Sampler):
    """Begins each pass one sample later, and notes what the last one was."""

    def __init__(self):
        self.passes = 0

    def __len__(self):
        return 8

    def __iter__(self):
        self.passes += 1
        self.last = (self.passes + 7) % 8
        return iter([(number + self.passes) % 8 for number in range(8)])


def loop_of(asks):
    def loop(session, tick):
        loader = DataLoader(torch.arange(8.0), 2, sampler=Turning())
        session.track(model=nn.Linear(1, 1))
        if asks == "before the epochs":
            session.length(loader)
        for _ in session.epochs(2):
            if asks == "before the loop":
                session.length(loader)
            batches = session.batches(loader)
            if asks == "of the loop":
                len(batches)
            for x in batches:
                session.log(first=x[0])
                tick()
            tick()

    return loop


@pytest.mark.parametrize("asks", ["before the epochs", "before the loop", "of the loop"])
def test_a_run_that_asks_for_lengths_is_exact_after_each_kill(tmp_path, saved_each_time, asks):
    expected = undisturbed(tmp_path / "not-asked", loop_of(None), steps=1)
    assert [row["first"] for row in expected.rows] == [1, 3, 5, 7, 2, 4, 6, 0]
    for crashes in ((), (3, 3), (5, 2), (7, 3), (8, 2)):
        run_dir = tmp_path / "-".join(map(str, crashes or ("none",)))
        assert disturbed(run_dir, loop_of(asks), crashes, steps=1).rows == expected.rows
