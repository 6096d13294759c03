"""What the page computes from a view and from what was read of its run."""

import dataclasses

import pytest

from tests.support.fake_control import MNIST, job
from trainerd.supervisor.api.web.page_views import left_s


def test_time_left_is_that_of_the_steps_left():
    assert left_s(MNIST, 0.5) == pytest.approx(870 * 0.5)
    accumulating = dataclasses.replace(MNIST, step=65)
    assert left_s(accumulating, 0.5) == pytest.approx(435 * 0.5), "a step of two batches"


@pytest.mark.parametrize(
    ("view", "step_s"),
    [
        (MNIST, None),
        (dataclasses.replace(MNIST, state="draining"), 0.5),
        (dataclasses.replace(MNIST, epochs=None), 0.5),
        (dataclasses.replace(MNIST, step=0, epoch=0, batch=0), 0.5),
        (job("plain"), 0.5),
    ],
    ids=range(5),
)
def test_time_left_is_not_told_where_it_cannot_be(view, step_s):
    assert left_s(view, step_s) is None
