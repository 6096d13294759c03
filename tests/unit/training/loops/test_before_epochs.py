"""What a script does between the first call of its session and its epochs counts once in the history."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from tests.support.loop_shapes import Trainee, data
from tests.support.struck import StruckRun


def evaluation_that_sets_the_rate(session, tick):
    """an LR finder over an evaluation loop"""
    it, loader = Trainee(session, tick), data()
    losses = [
        it.model(x).square().mean().item()
        for x in session.batches(DataLoader(loader.dataset, 4), train=False)
    ]
    for group in it.optimizer.param_groups:
        group["lr"] *= 1 + sum(losses)
    session.log(found=sum(losses))
    session.report(first=sum(losses))
    return it, loader


def changes_after_an_evaluation(session, tick):
    """an evaluation, and changes after it"""
    it, loader = Trainee(session, tick), data()
    list(session.batches([torch.ones(2, 3)], train=False))
    with torch.no_grad():
        it.model[0].weight.mul_(1 + torch.rand(1))
    it.schedule.step()
    return it, loader


def a_value_that_counts(session, tick):
    """a value that is changed before the epochs"""
    it, loader = Trainee(session, tick), data()
    starts = session.value("starts", [0])
    list(session.batches([torch.ones(2, 3)], train=False))
    starts.value.append(len(starts.value))
    session.report(starts=len(starts.value))
    return it, loader


@pytest.mark.parametrize(
    ("before", "is_left_early"),
    [
        (evaluation_that_sets_the_rate, False),
        pytest.param(evaluation_that_sets_the_rate, True, marks=pytest.mark.slow),
        pytest.param(changes_after_an_evaluation, False, marks=pytest.mark.slow),
        pytest.param(changes_after_an_evaluation, True, marks=pytest.mark.slow),
        pytest.param(a_value_that_counts, False, marks=pytest.mark.slow),
        pytest.param(a_value_that_counts, True, marks=pytest.mark.slow),
    ],
)
def test_it_is_exact_wherever_an_attempt_ends(before, is_left_early, tmp_path, monkeypatch):
    def shape(session, tick):
        it, loader = before(session, tick)
        tick()
        for epoch in session.epochs(3):
            for x in session.batches(loader):
                it.step(x)
            it.work()
            session.report(score=float(it.model[0].weight.detach().sum()))
            if is_left_early and epoch == 1:
                break
        it.work()

    undisturbed = StruckRun(monkeypatch, tmp_path / "undisturbed", shape)
    expected = undisturbed.result()
    for kind in ("SIGKILL", "SIGTERM"):
        for at in (1, 2, 6, 7, 9, undisturbed.ticks):
            found = StruckRun(monkeypatch, tmp_path / f"{kind}{at}", shape).result(kind, at)
            assert found == expected, (kind, at)


def test_a_run_that_is_made_longer_goes_on_from_its_end(tmp_path, monkeypatch):
    def shape_of(epochs):
        def shape(session, tick):
            it, loader = changes_after_an_evaluation(session, tick)
            for _ in session.epochs(epochs):
                for x in session.batches(loader):
                    it.step(x)

        return shape

    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape_of(3)).result()
    StruckRun(monkeypatch, tmp_path / "longer", shape_of(2)).result()
    assert StruckRun(monkeypatch, tmp_path / "longer", shape_of(3)).result() == expected
