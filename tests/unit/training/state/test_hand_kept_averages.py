"""An average that a script keeps by hand is found at the first step; other copies are left alone."""

import copy

import pytest
import torch
from torch import nn

import trainerd
from trainerd.errors import UnsupportedValueError, UserError
from trainerd.training.state.hand_kept_averages import _few_tensors_in

pytestmark = pytest.mark.torch


class Keeper:
    """Has a copy under a name that says nothing."""

    def __init__(self, model):
        self.slow = copy.deepcopy(model)


def mix(old, new, decay):
    return decay * old + (1 - decay) * new.detach()


def update_module(slow, model, decay=0.99):
    with torch.no_grad():
        for old, new in zip(slow.parameters(), model.parameters(), strict=True):
            old.copy_(mix(old, new, decay))


def train(run, make, update, *, is_kept=False, strict=True):
    """Make one step. `make` returns the copy of the model, `update` takes the copy and the model."""
    with trainerd.session(run, strict=strict) as session:
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer)
        second = make(model)
        if is_kept:
            if isinstance(second, nn.Module):
                session.track(second=second)
            else:
                second = session.value("second", second).value
        for batch in session.batches([torch.arange(8.0).reshape(2, 4)] * 2):
            optimizer.zero_grad()
            model(batch).pow(2).mean().backward()
            optimizer.step()
            second = update(second, model) or second


def shadow_dict(model):
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def update_dict(shadow, model):
    for name, each in model.named_parameters():
        shadow[name] = mix(shadow[name], each, 0.999)


def update_list(shadow, model):
    for old, new in zip(shadow, model.parameters(), strict=True):
        old.lerp_(new.detach(), 0.0001)


def new_list(shadow, model):
    return [mix(old, new, 0.9) for old, new in zip(shadow, model.parameters(), strict=True)]


def update_state(state, model):
    for name, each in model.state_dict().items():
        if each.is_floating_point():
            state[name].mul_(0.9).add_(each, alpha=0.1)


AVERAGES = {
    "module": (copy.deepcopy, update_module),
    "dict": (shadow_dict, update_dict),
    "list": (lambda model: [each.detach().clone() for each in model.parameters()], update_list),
    "new list": (lambda model: [each.detach().clone() for each in model.parameters()], new_list),
    "state": (lambda model: copy.deepcopy(model.state_dict()), update_state),
    "attribute": (Keeper, lambda keeper, model: update_module(keeper.slow, model)),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_by_hand_is_an_error_at_the_first_step(tmp_path, name):
    with pytest.raises(UserError, match=r"second.* averages the parameters of model and is not tracked"):
        train(tmp_path, *AVERAGES[name])


@pytest.mark.parametrize("name", ["module", "dict", "list", "state"])
def test_an_average_that_is_kept_is_none(tmp_path, name):
    train(tmp_path, *AVERAGES[name], is_kept=True)


def copy_gradients(buffers, model):
    for buffer, each in zip(buffers, model.parameters(), strict=True):
        buffer.copy_(each.grad)


def snapshot(kept, model):
    kept.load_state_dict(model.state_dict())


def perturb(kept, model):
    del model
    for each in kept:
        each.add_(torch.randn_like(each))


OTHERS = {
    "gradients": (lambda model: [torch.zeros_like(each) for each in model.parameters()], copy_gradients),
    "reference": (copy.deepcopy, lambda kept, model: None),
    "snapshot": (copy.deepcopy, snapshot),
    "noise": (lambda model: [torch.zeros_like(each) for each in model.parameters()], perturb),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_copies_are_no_average(tmp_path, name):
    train(tmp_path, *OTHERS[name])


def test_a_value_that_no_checkpoint_can_hold_is_refused_when_it_is_made(tmp_path):
    with trainerd.session(tmp_path) as session:
        with pytest.raises(UnsupportedValueError, match=r"values\.lock"):
            session.value("lock", object())
        session.track(model=nn.Linear(1, 1))


def test_an_object_that_no_checkpoint_can_hold_is_refused_after_the_first_step(tmp_path):
    class Odd:
        def state_dict(self):
            return {"callback": object()}

        def load_state_dict(self, state):
            pass

    def one_step():
        with trainerd.session(tmp_path, every={"steps": 100}) as session:
            session.track(odd=Odd())
            for number in session.steps(3):
                assert number == 0

    with pytest.raises(UnsupportedValueError, match=r"odd\.callback"):
        one_step()


class CountedList(list):
    """Counts the items that are looked at."""

    looked = 0

    def __iter__(self):
        for item in super().__iter__():
            self.looked += 1
            yield item


@pytest.mark.parametrize(
    "items",
    [[1] * 10_000, [torch.zeros(1)] * 10_000, [[1, 2]] * 10_000, [(i, "x") for i in range(20)] * 500],
    ids=["ints", "tensors", "pairs", "samples"],
)
def test_the_whole_data_of_a_script_is_not_walked(items):
    data = CountedList(items)
    assert _few_tensors_in(data, 12) is None
    assert _few_tensors_in({"a": data}, 12) is None
    assert data.looked == 0


def test_a_small_container_is_left_at_the_first_element_that_is_no_tensor():
    assert _few_tensors_in([1, 2, 3], 12) is None
    one, two, three = (torch.zeros(n) for n in (1, 2, 3))
    assert _few_tensors_in([[one], two, (three,)], 3) is not None
    found = _few_tensors_in([[one], two, (three,)], 3)
    assert [each.shape for each in found] == [one.shape, two.shape, three.shape]
    found = _few_tensors_in({"decay": 0.9, "slow": {"a": one, "b": two}}, 3)
    assert [each.shape for each in found] == [one.shape, two.shape]


def test_a_list_that_holds_itself_ends():
    data = []
    data += [data, data]
    assert _few_tensors_in(data, 12) is None
