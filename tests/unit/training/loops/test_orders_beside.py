"""Lists, arrays and tensors that training shuffles in place are named, unless a checkpoint holds them."""

import random

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402 - only where torch is
from torch.utils.data import DataLoader, Subset  # noqa: E402

import trainerd  # noqa: E402
from tests.support.loop_shapes import Points  # noqa: E402
from tests.support.training_fixtures import one_thread  # noqa: E402, F401 - a fixture

pytestmark = pytest.mark.torch

mix = random.shuffle
"""By a name that the analysis of the source does not follow, like a function of another file."""


def mix_rows(tensor):
    tensor[:] = tensor.clone()[torch.randperm(len(tensor))]


def reasons(folder, before, at_the_top, batches):
    """Run two epochs, and return what was said of orders.

    Args:
        folder: For the run.
        before: Makes what is shuffled, given the session.
        at_the_top: Is given it at the top of each epoch. What it returns takes its place.
        batches: Returns what a loop draws from, given that.
    """
    with trainerd.session(folder, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(3, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer)
        order = before(session)
        for _ in session.epochs(2):
            used = at_the_top(order) or order
            for _ in session.batches(batches(used)):
                optimizer.zero_grad()
                model(torch.ones(3)).sum().backward()
                optimizer.step()
        return [each for each in session._run.suspicions.reasons if each.kind == "untracked-order"]


def numbers(_session):
    return list(range(8))


def fixed(_order):
    return range(2)


@pytest.mark.parametrize(
    ("before", "at_the_top", "batches"),
    [
        (numbers, mix, fixed),
        (lambda _: np.arange(8), mix, fixed),
        (lambda _: np.array(["a", "b", "c", "d"]), np.random.shuffle, fixed),
        (lambda _: torch.randn(64, 4), mix_rows, fixed),
        (lambda _: [torch.ones(2), torch.zeros(2), torch.ones(3)] * 3, mix, fixed),
        (numbers, mix, list),
        (numbers, mix, lambda order: DataLoader(order, 4)),
        (numbers, mix, lambda order: DataLoader(Subset(Points(), order), 4)),
    ],
    ids=[
        "list",
        "numbers",
        "texts",
        "rows",
        "tensors",
        "drawn from",
        "dataset",
        "part of a dataset of an epoch",
    ],
)
def test_one_that_no_checkpoint_holds_is_said(tmp_path, before, at_the_top, batches):
    (reason,) = reasons(tmp_path, before, at_the_top, batches)
    assert reason.detail.startswith("training puts order (")
    assert 'order = session.value("order", order).value before the loop' in reason.hint


def shuffled_copy(order):
    copy = list(order)
    mix(copy)
    return copy


def new_values(order):
    order[:] = [str(number) for number in range(8)]


@pytest.mark.parametrize(
    ("before", "at_the_top"),
    [
        (lambda session: session.value("order", list(range(8))).value, mix),
        (lambda session: session.value("order", np.arange(8)).value, mix),
        (lambda session: session.value("order", torch.randn(8, 2)).value, mix_rows),
        (lambda session: session.value("all", {"order": list(range(8))}).value["order"], mix),
        (numbers, shuffled_copy),
        (numbers, new_values),
        (numbers, lambda order: order.append(8)),
        (numbers, sorted),
    ],
    ids=["value", "array value", "tensor value", "within a value", "copy", "new values", "longer", "left"],
)
def test_one_that_is_kept_or_has_no_other_order_is_fine(tmp_path, before, at_the_top):
    assert not reasons(tmp_path, before, at_the_top, fixed)


@pytest.mark.parametrize("part", ["sampler", "subset"])
def test_one_that_is_kept_with_a_loader_is_fine(tmp_path, part):
    order = list(range(8))
    loader = DataLoader(Points(), 4, sampler=order)
    if part == "subset":
        loader = DataLoader(Subset(Points(), order), 4)
    assert not reasons(tmp_path, lambda _: order, mix, lambda _: loader)


def test_a_run_that_is_killed_in_its_first_epoch_knows_it(tmp_path):
    """The checkpoint at its end is one between two epochs: the next attempt has the order of no epoch."""
    with trainerd.session(tmp_path, seed=0, every={"steps": 1}) as session:
        model = torch.nn.Linear(3, 3)
        session.track(model=model)
        order = list(range(8))
        for _ in session.epochs(1):
            mix(order)
            for _ in session.batches(range(2)):
                pass
            assert [each.kind for each in session._run.state.not_kept] == ["untracked-order"]
