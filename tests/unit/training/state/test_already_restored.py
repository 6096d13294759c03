"""What holds a state already is told from what has changed, and whatever is not certain is loaded."""

from __future__ import annotations

import copy

import pytest
import torch

from trainerd.training.state.already_restored import is_already_restored


def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(12, 2)
    )


def trained():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(torch.randn(2, 2, 4, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def saved_state(target):
    """Return its state as it comes from a file: other tensors with the same bytes."""
    return copy.deepcopy(target.state_dict())


def moments(optimizer):
    return next(iter(optimizer.state.values()))


def test_a_model_and_an_optimizer_that_nothing_has_touched_hold_their_state():
    for target in trained():
        assert is_already_restored(target, saved_state(target))


def test_values_that_are_not_numbers_and_the_signs_of_zeros_count_bit_for_bit():
    model, _ = trained()
    with torch.no_grad():
        model[3].bias[:] = torch.tensor([float("nan"), 0.0])
    state = saved_state(model)
    assert is_already_restored(model, state)
    state["3.bias"][1] = -0.0
    assert not is_already_restored(model, state)


CHANGES = {
    "a weight through .data": lambda model, _: model[3].weight.data[0, 0].add_(1),
    "a weight through NumPy": lambda model, _: model[3].weight.detach().numpy().__setitem__((0, 0), 7.0),
    "a buffer": lambda model, _: model[1].running_mean.add_(1),
    "a counter": lambda model, _: model[1].num_batches_tracked.add_(1),
    "a moment": lambda _, optimizer: moments(optimizer)["exp_avg"].view(-1)[-1].add_(1),
    "a learning rate": lambda _, optimizer: optimizer.param_groups[0].update(lr=2e-3),
    "the type of a learning rate": lambda _, optimizer: optimizer.param_groups[0].update(
        lr=torch.tensor(1e-3)
    ),
    "an option that is new": lambda _, optimizer: optimizer.param_groups[0].update(note=1),
    "an entry of a parameter that is new": lambda _, optimizer: moments(optimizer).update(own=1),
    "the state of a parameter": lambda model, optimizer: optimizer.state.pop(model[3].weight),
    "the precision of a moment": lambda _, optimizer: moments(optimizer).update(
        exp_avg=moments(optimizer)["exp_avg"].double()
    ),
    "the order in memory of a moment": lambda _, optimizer: moments(optimizer).update(
        exp_avg=moments(optimizer)["exp_avg"].contiguous(memory_format=torch.channels_last)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_seen(name):
    model, optimizer = trained()
    states = [saved_state(model), saved_state(optimizer)]
    CHANGES[name](model, optimizer)
    assert not all(map(is_already_restored, (model, optimizer), states))


class OwnModule(torch.nn.Linear):
    def state_dict(self, *args, **kwargs):
        return super().state_dict(*args, **kwargs)


class OwnLoading(torch.nn.Linear):
    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self.loads = getattr(self, "loads", 0) + 1


class OwnExtraState(torch.nn.Linear):
    def get_extra_state(self):
        return 1

    def set_extra_state(self, state):
        self.extra = state


class OwnOptimizer(torch.optim.SGD):
    def __setstate__(self, state):
        super().__setstate__(state)
        self.loads = getattr(self, "loads", 0) + 1


class OwnParameter(torch.nn.Parameter):
    pass


def hooked(register, value):
    getattr(value, register)(lambda *_: None)
    return value


def with_own_method(value, name):
    setattr(value, name, getattr(value, name))
    return value


def of_a_subclass():
    model = torch.nn.Linear(2, 2)
    model.weight = OwnParameter(model.weight.detach())
    return model


UNCERTAIN = {
    "a module's own state_dict": lambda: OwnModule(2, 2),
    "a module's own loading": lambda: torch.nn.Sequential(OwnLoading(2, 2)),
    "extra state": lambda: OwnExtraState(2, 2),
    "a hook of a part, before loading": lambda: torch.nn.Sequential(
        hooked("register_load_state_dict_pre_hook", torch.nn.Linear(2, 2))
    ),
    "a hook after loading": lambda: hooked("register_load_state_dict_post_hook", torch.nn.Linear(2, 2)),
    "a hook before saving": lambda: hooked("register_state_dict_pre_hook", torch.nn.Linear(2, 2)),
    "a method of the instance": lambda: with_own_method(torch.nn.Linear(2, 2), "load_state_dict"),
    "an optimizer's own loading": lambda: OwnOptimizer([torch.ones(1)], lr=0.1),
    "an optimizer's hook": lambda: hooked(
        "register_load_state_dict_post_hook", torch.optim.SGD([torch.ones(1)], lr=0.1)
    ),
    "an optimizer's method": lambda: with_own_method(
        torch.optim.SGD([torch.ones(1)], lr=0.1), "load_state_dict"
    ),
    "another kind of object": lambda: torch.optim.lr_scheduler.StepLR(
        torch.optim.SGD([torch.ones(1)], lr=0.1), 2
    ),
    "a tensor of a class of its own": of_a_subclass,
}


@pytest.mark.parametrize("name", UNCERTAIN)
def test_what_other_code_than_torchs_loads_is_never_left_out(name):
    target = UNCERTAIN[name]()
    assert not is_already_restored(target, target.state_dict())
