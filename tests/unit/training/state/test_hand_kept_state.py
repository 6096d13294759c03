"""A momentum that a script keeps by hand is named at the second step; buffers that carry nothing are not."""

from __future__ import annotations

import collections
import copy
import types

import pytest
import torch
from torch import nn

import trainerd
from tests.support.struck import StruckRun
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume
from trainerd.training.state.combinations import depends_on
from trainerd.training.state.tensor_leaves import leaves_of

pytestmark = pytest.mark.torch

DATA = [torch.randn(4, 4, generator=torch.Generator().manual_seed(number)) for number in range(8)]


def zeros(model):
    return [torch.zeros_like(each) for each in model.parameters()]


def heavy_ball(velocities, model):
    for each, velocity in zip(model.parameters(), velocities, strict=True):
        velocity.mul_(0.9).add_(each.grad)
        each.data.add_(velocity, alpha=-0.05)


def named_zeros(model):
    return {name: torch.zeros_like(each) for name, each in model.named_parameters()}


def new_in_a_dict(velocity, model):
    for name, each in model.named_parameters():
        velocity[name] = 0.9 * velocity[name] + each.grad + 0.01 * each.detach()
        each.data -= 0.05 * velocity[name]


def adam(state, model):
    state["t"] += 1
    for each, (first, second) in zip(model.parameters(), state["moments"], strict=True):
        first.lerp_(each.grad, 0.1)
        second.mul_(0.99).addcmul_(each.grad, each.grad, value=0.01)
        each.data.addcdiv_(first, second.sqrt().add_(1e-8), value=-0.01)


def second_moment(squares, model):
    for each, square in zip(model.parameters(), squares, strict=True):
        square.mul_(0.99).addcmul_(each.grad, each.grad, value=0.01)
        each.data.addcdiv_(each.grad, square.sqrt().add_(1e-8), value=-0.01)


def all_at_once(velocities, model):
    parameters = list(model.parameters())
    torch._foreach_mul_(velocities, 0.9)
    torch._foreach_add_(velocities, [each.grad for each in parameters])
    with torch.no_grad():
        torch._foreach_add_(parameters, velocities, alpha=-0.05)


def one_vector(vector, model):
    vector.mul_(0.9).add_(torch.cat([each.grad.flatten() for each in model.parameters()]))
    at = 0
    for each in model.parameters():
        each.data.sub_(0.05 * vector[at : at + each.numel()].view_as(each))
        at += each.numel()


def of_numpy(velocities, model):
    for velocity, each in zip(velocities, model.parameters(), strict=True):
        velocity[:] = 0.9 * velocity + each.grad.numpy()
        each.data.sub_(0.05 * torch.from_numpy(velocity))


def sums(kept, model):
    for total, each in zip(kept, model.parameters(), strict=True):
        total.add_(each.grad)
        each.data.sub_(0.01 * total)


def clipped(velocities, model):
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    heavy_ball(velocities, model)


def in_the_gradient(velocities, model):
    for each, velocity in zip(model.parameters(), velocities, strict=True):
        velocity.mul_(0.9).add_(each.grad)
        each.grad.copy_(velocity)
        each.data.sub_(0.05 * each.grad)


class Momentum:
    def __init__(self, model):
        self.velocities = zeros(model)


CARRIED = {
    "list": (zeros, heavy_ball),
    "dict": (named_zeros, new_in_a_dict),
    "adam": (lambda model: {"t": 0, "moments": [(a, a.clone()) for a in zeros(model)]}, adam),
    "squares": (zeros, second_moment),
    "foreach": (zeros, all_at_once),
    "vector": (lambda model: torch.cat([each.flatten() for each in zeros(model)]), one_vector),
    "numpy": (lambda model: [each.numpy() for each in zeros(model)], of_numpy),
    "sums": (zeros, sums),
    "clipped": (zeros, clipped),
    "in the gradient": (zeros, in_the_gradient),
    "attribute": (Momentum, lambda own, model: heavy_ball(own.velocities, model)),
    "namespace": (
        lambda model: types.SimpleNamespace(deep=Momentum(model)),
        lambda own, model: heavy_ball(own.deep.velocities, model),
    ),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))


def train(session, make, update, *, clears_after=False, keep=lambda session, kept: kept, tick=lambda: None):
    model = network()
    session.track(model=model)
    kept = keep(session, make(model))
    for batch in session.batches(DATA):
        if not clears_after:
            model.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        update(kept, model)
        if clears_after:
            model.zero_grad()
        session.log(loss=loss)
        session._run.saves.wait()
        tick()
    return [each for each in session._run.suspicions.reasons if each.kind == "hand-kept-state"]


@pytest.mark.parametrize("clears_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CARRIED)
def test_what_goes_on_from_what_it_was_is_named(name, clears_after, tmp_path):
    with trainerd.session(tmp_path) as session:
        found = train(session, *CARRIED[name], clears_after=clears_after)
    assert len(found) == 1
    expression = {"attribute": "kept.velocities", "namespace": "kept.deep.velocities"}.get(name, "kept")
    assert found[0].detail.startswith(f"{expression} (")
    assert f"{expression} = session.value(" in found[0].hint
    assert found[0].where.startswith("tests/unit/training/state/test_hand_kept_state.py:")


def copies_gradients(buffers, model):
    for buffer, each in zip(buffers, model.parameters(), strict=True):
        buffer.copy_(each.grad)
        each.data.sub_(0.05 * buffer)


def fills(buffers, model):
    for buffer, each in zip(buffers, model.parameters(), strict=True):
        buffer.zero_().add_(each.grad).add_(each, alpha=0.1)
        each.data.sub_(0.05 * buffer)


def adds_noise(buffers, model):
    for buffer, each in zip(buffers, model.parameters(), strict=True):
        buffer.add_(torch.randn_like(buffer))
        each.data.sub_(0.05 * each.grad)


def copies_parameters(buffers, model):
    for buffer, each in zip(buffers, model.parameters(), strict=True):
        buffer.copy_(each)
        each.data.sub_(0.05 * each.grad)


def leaves_alone(buffers, model):
    for each in model.parameters():
        each.data.sub_(0.05 * each.grad)


OTHERS = {
    "gradients": (zeros, copies_gradients),
    "filled": (zeros, fills),
    "noise": (zeros, adds_noise),
    "former parameters": (zeros, copies_parameters),
    "constants": (zeros, leaves_alone),
    "signs": (
        zeros,
        lambda kept, model: [b.copy_(p.grad.sign()) for b, p in zip(kept, model.parameters(), strict=True)],
    ),
    "data": (lambda model: [torch.randn(4, 4) for _ in range(100)], leaves_alone),
    "gradients themselves": (
        lambda model: types.SimpleNamespace(),
        lambda own, model: setattr(own, "last", [each.grad for each in model.parameters()]),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_carries_nothing_is_not(name, tmp_path):
    with trainerd.session(tmp_path) as session:
        assert train(session, *OTHERS[name]) == []


def in_a_value(session, kept):
    return session.value("velocities", kept).value


@pytest.mark.parametrize("name", ["list", "dict", "adam", "numpy"])
def test_what_the_session_keeps_is_not_and_comes_back(name, tmp_path, monkeypatch):
    """The line to add is the one that the hint says."""

    def shape(session, tick):
        assert train(session, *CARRIED[name], keep=in_a_value, tick=tick) == []

    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    for kind in ("SIGKILL", "SIGTERM"):
        assert StruckRun(monkeypatch, tmp_path / kind, shape).result(kind, 5) == expected, kind


def test_what_a_tracked_module_keeps_as_an_attribute_is_not(tmp_path, monkeypatch):
    def shape(session, tick):
        model = network()
        model.velocities = zeros(model)
        session.track(model=model)
        for batch in session.batches(DATA):
            model.zero_grad()
            model(batch).square().mean().backward()
            heavy_ball(model.velocities, model)
            session._run.saves.wait()
            tick()
        assert session._run.suspicions.reasons == ()

    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    assert StruckRun(monkeypatch, tmp_path / "killed", shape).result("SIGKILL", 5) == expected


def test_a_run_that_loses_it_is_suspect(tmp_path, monkeypatch):
    def shape(session, tick):
        train(session, *CARRIED["list"], tick=tick)

    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    assert StruckRun(monkeypatch, tmp_path / "killed", shape).result("SIGKILL", 5) != expected
    record = read_resume(RunPaths(tmp_path / "killed").resume)
    assert record.verdict == "suspect"
    assert "hand-kept-state" in [each.kind for each in record.reasons]


@pytest.mark.parametrize(("begins", "is_named"), [(6, True), (8, False)])
def test_what_begins_later_is_named_later_and_once(begins, is_named, tmp_path):
    """It is looked again after the eighth step, and at modules after the sixteenth too."""
    with trainerd.session(tmp_path) as session:
        model = network()
        session.track(model=model)
        velocities, average = zeros(model), copy.deepcopy(model).requires_grad_(False)
        for number, batch in session.enumerate([*DATA, *DATA]):
            model.zero_grad()
            model(batch).square().mean().backward()
            if number >= begins:
                heavy_ball(velocities, model)
                for old, new in zip(average.parameters(), model.parameters(), strict=True):
                    old.lerp_(new.detach(), 0.1)
        found = [(each.kind, each.detail) for each in session._run.suspicions.reasons]
        assert sum("average" in detail for _, detail in found) == 1
        assert [detail.partition(" ")[0] for kind, detail in found if kind == "hand-kept-state"] == (
            ["velocities"] if is_named else []
        )


class WithKeys(nn.Module):
    """A network with an average of itself, as MoCo's and BYOL's."""

    def __init__(self):
        super().__init__()
        self.query = network()
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def forward(self, x):
        return self.query(x) + self.key(x)


class Average:
    """An average whose state is a copy."""

    def __init__(self, model):
        self.module = copy.deepcopy(model).requires_grad_(False)

    def state_dict(self):
        return copy.deepcopy(self.module.state_dict())

    def load_state_dict(self, state):
        self.module.load_state_dict(state)


@pytest.mark.parametrize("where", ["inside", "beside", "views", "wrapped"])
def test_an_average_that_is_tracked_is_not_named_later(where, tmp_path):
    with trainerd.session(tmp_path) as session:
        model = WithKeys()
        wrapped = Average(model.query) if where == "wrapped" else None
        average = model.key if wrapped is None else wrapped.module
        slow = [each.data for each in average.parameters()] if where == "views" else None
        if where == "inside":
            session.track(model=model)
        else:
            session.track(model=model.query, average=wrapped or average)
        for batch in session.batches([*DATA, *DATA]):
            model.zero_grad()
            model(batch).square().mean().backward()
            for old, new in zip(slow or average.parameters(), model.query.parameters(), strict=True):
                new.data.sub_(0.05 * new.grad)
                old.data.lerp_(new.detach(), 0.1)
        assert not session._run.suspicions.reasons


def test_a_resume_is_suspect_from_its_beginning_if_the_attempt_before_knew_it(tmp_path, monkeypatch):
    """The steps after a resume may show nothing: here the momentum is begun again each time."""

    def shape(session, tick):
        model = network()
        session.track(model=model)
        velocities = zeros(model)
        for number, batch in session.enumerate(DATA):
            model.zero_grad()
            model(batch).square().mean().backward()
            if number > 4:
                for each in velocities:
                    each.zero_()
            heavy_ball(velocities, model)
            session._run.saves.wait()
            tick()

    StruckRun(monkeypatch, tmp_path, shape).result("SIGTERM", 5)
    record = read_resume(RunPaths(tmp_path).resume)
    assert (record.verdict, [each.kind for each in record.reasons]) == ("suspect", ["hand-kept-state"])


def test_values_of_low_precision_are_told_apart_too(tmp_path):
    def run(folder, update):
        with trainerd.session(folder) as session:
            model = nn.Linear(4, 8, dtype=torch.bfloat16)
            session.track(model=model)
            kept = zeros(model)
            for batch in session.batches(DATA):
                model.zero_grad()
                model(batch.bfloat16()).square().mean().backward()
                update(kept, model)
            return [each.kind for each in session._run.suspicions.reasons]

    assert run(tmp_path / "momentum", heavy_ball) == ["hand-kept-state"]
    assert run(tmp_path / "buffer", copies_gradients) == []
    assert run(tmp_path / "noise", adds_noise) == []


class Kept(Momentum):
    """Saves copies."""

    def state_dict(self):
        return {"velocities": [each.copy() for each in self.velocities]}

    def load_state_dict(self, state):
        self.velocities = state["velocities"]


def test_what_a_tracked_object_saves_copies_of_is_not(tmp_path):
    def tracked(session, kept):
        kept.velocities = [each.numpy() for each in kept.velocities]
        session.track(kept=kept)
        return kept

    with trainerd.session(tmp_path) as session:
        assert not train(session, Kept, lambda own, model: of_numpy(own.velocities, model), keep=tracked)


class Lazy(collections.OrderedDict):
    """Imports what it has when it is gone through, as the mappings of transformers do."""

    def values(self):
        raise AssertionError

    __iter__ = items = values


def test_a_container_of_another_kind_is_not_gone_through():
    kept = torch.zeros(3)
    assert leaves_of({"models": Lazy(), "kept": [kept]}) == [kept]


class Own(torch.optim.Optimizer):
    """Keeps its momentum outside of its state, which it saves nothing of."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        self.velocities = [torch.zeros_like(each) for each in self.param_groups[0]["params"]]

    def step(self, closure=None):
        for each, velocity in zip(self.param_groups[0]["params"], self.velocities, strict=True):
            velocity.mul_(0.9).add_(each.grad)
            each.data.add_(velocity, alpha=-0.05)


def test_a_tracked_optimizer_that_keeps_it_beside_its_state_is_named(tmp_path):
    with trainerd.session(tmp_path) as session:
        model = network()
        optimizer = Own(model.parameters())
        session.track(model=model, optimizer=optimizer)
        for batch in session.batches(DATA):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
        assert [each.kind for each in session._run.suspicions.reasons] == ["hand-kept-state"]


def test_after_the_second_step_no_hook_is_left(tmp_path):
    with trainerd.session(tmp_path) as session:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        velocities = zeros(model)
        session.track(model=model, optimizer=optimizer)
        for number, batch in session.enumerate(DATA):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
            if number > 2:
                assert not any(each._backward_hooks for each in model.parameters())
        assert velocities


# --------------------------------------------------------------------- the decision


def vectors(seed, count, size=20):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, dtype=torch.float64, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("size", [3, 20])
def test_a_combination_with_what_it_was_depends_on_it(size):
    former, gradient, noise = vectors(1, 3, size)
    columns = [[gradient, gradient.square()]]
    assert depends_on(former, 0.9 * former + gradient, columns, 1e-6)
    assert depends_on(former, 0.9 * former + 0.1 * gradient.square(), columns, 1e-6)
    assert not depends_on(former, 0.9 * former, columns, 1e-6), "as one batch of equal numbers is of the next"
    assert not depends_on(former, gradient.clone(), columns, 1e-6)
    assert not depends_on(former, 3 * gradient, columns, 1e-6)
    assert not depends_on(former, noise, columns, 1e-6)
    assert not depends_on(torch.zeros_like(former), gradient, columns, 1e-6)
    assert not depends_on(2 * gradient, 2.8 * gradient, columns, 1e-6), "it may be the gradient alone"


def test_values_that_are_not_finite_depend_on_nothing():
    former, gradient = vectors(2, 2)
    after = 0.9 * former + gradient
    assert not depends_on(former, after * float("nan"), [[gradient]], 1e-6)
    assert not depends_on(former, after, [[gradient * float("inf")]], 1e-6)
