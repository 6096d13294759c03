"""Objects that raise errors when they are looked into end no training, and are a reason not to be exact."""

from __future__ import annotations

import pytest
import torch

import trainerd
from tests.support.training_fixtures import one_thread  # noqa: F401 - a fixture

pytestmark = pytest.mark.torch


class Proxy:
    """As one of a web framework, outside of a request."""

    def __getattribute__(self, name):
        raise RuntimeError("outside of its context")


class WithoutClass:
    @property
    def __class__(self):
        raise RuntimeError("no class")


class WithoutText:
    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


class WithoutEquality:
    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError("not to be compared")


class Lazy(dict):
    def items(self):
        raise RuntimeError("not opened")

    values = items


class WithoutLength:
    def __len__(self):
        raise RuntimeError("no length")


def kinds(folder, odd):
    """Train with an odd object in a variable, a list and a dictionary; return the kinds of the reasons."""
    with trainerd.session(folder, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer)
        rows, table = [odd] * 4, {"odd": odd}

        def use():
            return odd, rows, table

        for _ in session.epochs(2):
            for x in session.batches([torch.ones(2)] * 3):
                use()
                optimizer.zero_grad()
                model(x).sum().backward()
                optimizer.step()
        assert session.step == 6
        return {each.kind for each in session._run.suspicions.reasons}


@pytest.mark.parametrize("kind", [Proxy, WithoutClass, Lazy])
def test_what_cannot_be_looked_into_is_said(kind, tmp_path, capsys):
    assert kinds(tmp_path, kind()) == {"not-observed"}
    assert "test_observing.py:" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [WithoutText, WithoutEquality, WithoutLength])
def test_what_needs_no_such_look_is_fine(kind, tmp_path):
    assert kinds(tmp_path, kind()) == set()


def test_a_key_without_a_text_is_passed_over(tmp_path):
    """As the members of an enumeration of Ignite's on Python 3.11.2."""
    assert kinds(tmp_path, {WithoutText(): 1}) == set()


@pytest.mark.parametrize("kind", [Proxy, WithoutClass, Lazy])
def test_so_is_one_that_a_variable_alone_has(kind, tmp_path, capsys):
    with trainerd.session(tmp_path, seed=0, every={"seconds": None}) as session:
        model = torch.nn.Linear(2, 1)
        session.track(model=model)
        odd = kind()
        for x in session.batches([torch.ones(2)] * 3):
            model(x).sum().backward()
            model.zero_grad()
        del odd
        assert "not-observed" in {each.kind for each in session._run.suspicions.reasons}
    assert "raises an error when it is looked into" in capsys.readouterr().err
