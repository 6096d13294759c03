"""What one attempt finds to be in no checkpoint is said at the next resume, before that finds it again."""

import numpy as np
import pytest
from torch import nn
from torch.utils.data import DataLoader

from tests.support.in_process import attempt
from tests.support.struck import struck_reasons

pytestmark = pytest.mark.torch


def with_a_loader_beside(session, tick):
    beside = iter(DataLoader(range(8), 1))
    for number in session.batches(range(8)):
        session.log(loss=next(beside).float().sum() + number)
        tick()


def with_a_generator_beside(session, tick):
    rng = np.random.default_rng(0)
    for number in session.batches(range(8)):
        session.log(loss=float(rng.normal()) + number)
        tick()


@pytest.mark.parametrize(
    ("script", "kind"),
    [(with_a_loader_beside, "loader-beside"), (with_a_generator_beside, "untracked-generator")],
)
def test_a_resume_that_dies_at_its_first_step_has_said_what_is_not_kept(
    tmp_path, saved_each_time, script, kind
):
    def loop(session, tick):
        session.track(model=nn.Linear(1, 1))
        script(session, tick)

    attempt(tmp_path, loop, crash_at=6, steps=1)
    attempt(tmp_path, loop, crash_at=1, steps=1)
    assert kind in struck_reasons(tmp_path)
