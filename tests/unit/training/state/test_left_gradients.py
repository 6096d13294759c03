"""Gradients that a step leaves for the next one are kept where that one needs them, and not elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainerd.training.state import left_gradients
from trainerd.training.state.kept_gradients import KeptGradients
from trainerd.training.state.left_gradients import LeftGradients
from trainerd.training.state.objects import TrackedObjects

pytestmark = pytest.mark.torch


class Loop:
    """A model, its optimizer and what is noted of their gradients."""

    def __init__(self, parameters=None):
        self.model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        self.optimizer = torch.optim.SGD(
            self.model.parameters() if parameters is None else parameters(self), 0.1
        )
        self.objects = TrackedObjects()
        self.objects.track("model", self.model)
        self.objects.track("optimizer", self.optimizer)
        self.reasons = []
        self.left = LeftGradients(self.objects, self.reasons.append)
        self.left.watch()

    def backward(self):
        self.model(torch.ones(1, 2)).square().sum().backward()

    def step(self, *, clears="before", by_zeros=False):
        if clears == "before":
            self.optimizer.zero_grad(set_to_none=not by_zeros)
        self.backward()
        self.optimizer.step()
        if clears == "after":
            self.optimizer.zero_grad(set_to_none=not by_zeros)
        self.left.boundary_passed()

    def kept(self):
        return self.left.state_dict().get("gradients", {})

    def zeros(self):
        return self.left.state_dict().get("zeros", [])


@pytest.fixture
def loop():
    made = []

    def make(**options):
        made.append(Loop(**options))
        return made[-1]

    yield make
    for each in made:
        each.left.close()


@pytest.mark.parametrize("clears", ["before", "after"])
@pytest.mark.parametrize("by_zeros", [False, True], ids=["none", "zeros"])
def test_gradients_that_the_next_step_clears_are_not_kept(loop, clears, by_zeros):
    it = loop()
    for _ in range(3):
        it.step(clears=clears, by_zeros=by_zeros)
    assert it.kept() == {}
    assert len(it.zeros()) == (4 if by_zeros else 0)


def walks(it, monkeypatch):
    """Return the number of times that the parameters are gone through at ten more boundaries."""
    count = []
    owners = it.left._owners
    monkeypatch.setattr(it.left, "_owners", lambda: count.append(1) or owners())
    for _ in range(10):
        it.left.boundary_passed()
    return len(count)


def test_a_step_costs_no_walk_through_the_parameters_once_the_habit_is_known(loop, monkeypatch):
    it = loop()
    for _ in range(3):
        it.step()
    assert walks(it, monkeypatch) == 0


def test_parameters_that_never_get_a_gradient_are_not_asked_for_ever(loop, monkeypatch):
    it = loop(parameters=lambda it: it.model[1].parameters())
    it.model[0].requires_grad_(False)
    for _ in range(left_gradients._ASKED_MAX + 1):
        it.step()
    assert walks(it, monkeypatch) == 0


@pytest.mark.parametrize("clears", ["before", "after"])
def test_gradients_without_a_step_of_the_optimizer_are_kept(loop, clears):
    it = loop()
    for _ in range(3):
        it.step(clears=clears)
    it.optimizer.zero_grad()
    it.backward()
    assert set(it.kept()) == {"model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"}


def test_gradients_that_no_step_clears_are_kept_though_they_were_used(loop):
    it = loop()
    for _ in range(3):
        it.step(clears="never")
        assert len(it.kept()) == 4


def test_gradients_of_what_no_optimizer_steps_are_kept_as_they_add_up(loop):
    it = loop(parameters=lambda it: it.model[1].parameters())
    for _ in range(3):
        it.step()
    assert set(it.kept()) == {"model.0.weight", "model.0.bias"}


def test_they_come_back_with_zeros_and_without_those_that_were_not_there(loop):
    it, other = loop(), loop()
    it.model[0].weight.grad = torch.full((3, 2), 7.0)
    it.model[0].bias.grad = torch.zeros(3)
    other.backward()  # as a script does that tries its model before the loop
    other.left.load_state_dict(it.left.state_dict())
    assert torch.equal(other.model[0].weight.grad, torch.full((3, 2), 7.0))
    assert torch.equal(other.model[0].bias.grad, torch.zeros(3))
    assert other.model[1].weight.grad is other.model[1].bias.grad is None
    other.model[0].weight.grad.zero_()
    assert it.model[0].weight.grad.max() == 7, "it is a copy"


def test_a_checkpoint_without_such_state_leaves_gradients_alone(loop):
    it = loop()
    it.backward()
    it.left.load_state_dict(None)
    assert it.model[0].weight.grad is not None


def test_what_was_left_out_before_it_was_known_that_it_counts_is_said(loop, monkeypatch):
    monkeypatch.setattr(left_gradients, "UNKNOWN_BYTES_MAX", 0)
    it, other = loop(), loop()
    it.step(clears="never")
    assert it.kept() == {}
    other.left.load_state_dict(it.left.state_dict())
    other.step(clears="never")
    assert other.reasons == []
    other.step(clears="never")
    assert [(each.kind, each.where) for each in other.reasons] == [("gradients-not-kept", "optimizer")]


def test_a_gradient_without_a_form_on_disk_is_said_at_the_resume(loop):
    class Strange(torch.Tensor):
        pass

    it, other = loop(), loop()
    it.model[0].bias.grad = torch.ones(3).as_subclass(Strange)
    assert it.kept() == {}
    other.left.load_state_dict(it.left.state_dict())
    assert [(each.kind, each.where) for each in other.reasons] == [("gradients-not-kept", "model.0.bias")]


def test_what_a_framework_keeps_is_not_kept_twice(loop):
    it = loop()
    it.backward()
    it.objects.track("gradients", KeptGradients([it.optimizer]))
    assert it.left.state_dict() == {}


def test_what_is_known_of_a_loop_goes_on_in_the_next_attempt(loop):
    it, other = loop(), loop()
    for _ in range(3):
        it.step()
    other.left.load_state_dict(it.left.state_dict())
    other.step()
    assert other.left.state_dict() == it.left.state_dict()


class Sharded(torch.Tensor):
    """A gradient with no form on disk, as FSDP2 sets them: not through autograd, so that no hook runs."""


def set_sharded(it, *, adds=False):
    for each in it.model.parameters():
        former = each.grad
        if adds and former is not None:
            former.add_(1)
        else:
            each.grad = torch.ones_like(each).detach().as_subclass(Sharded)
    it.optimizer.step()
    it.left.boundary_passed()


def test_gradients_set_past_autograd_are_seen_to_be_cleared(loop):
    it = loop()
    for _ in range(2):
        set_sharded(it)
        saved = it.left.state_dict()
        assert "lost" not in saved
        it.optimizer.zero_grad()
    assert saved["habits"]["optimizer"] == [True, False]
    it.left.load_state_dict(saved)
    assert it.reasons == []


def test_gradients_set_past_autograd_that_no_step_clears_are_told(loop):
    """Saved before that was known: the first step of the resumed run begins without them."""
    it = loop()
    set_sharded(it, adds=True)
    saved = it.left.state_dict()
    assert saved["unknown"] == ["optimizer"]
    resumed = loop()
    resumed.left.load_state_dict(saved)
    assert resumed.reasons == []
    for _ in range(2):
        set_sharded(resumed, adds=True)
    assert [each.kind for each in resumed.reasons] == ["gradients-not-kept"]
    set_sharded(it, adds=True)
    assert it.left.state_dict()["lost"], "known now"
