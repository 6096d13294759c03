"""A plain loader whose iterator goes on from step to step is a reason not to be exact."""

import pytest

torch = pytest.importorskip("torch")

import trainerd  # noqa: E402 - only where torch is
from tests.support.loop_shapes import Points  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture

pytestmark = pytest.mark.torch


def reasons(tmp_path, before, draw):
    loader = torch.utils.data.DataLoader(Points(), 2)
    with trainerd.session(tmp_path, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(3, 1)
        session.track(model=model)
        beside = before(torch.utils.data.DataLoader(Points(1), 2))
        for _ in session.epochs(1):
            for _ in session.batches(loader):
                draw(beside)
        return [reason for reason in session._run.suspicions.reasons if reason.kind == "loader-beside"]


def test_an_iterator_that_goes_on_is_said_with_its_dataset(tmp_path):
    (reason,) = reasons(tmp_path, iter, next)
    assert reason.where == "Points"
    assert "session.batches(loader, other)" in reason.hint


@pytest.mark.parametrize(
    ("before", "draw"),
    [
        (lambda loader: loader, list),
        (lambda loader: loader, lambda loader: next(iter(loader))),
        (lambda loader: [iter(loader), next(iter(loader))], lambda _: None),
    ],
    ids=["whole passes", "first batches", "a look before"],
)
def test_passes_within_a_step_are_none(tmp_path, before, draw):
    assert not reasons(tmp_path, before, draw)
