"""Every learning-rate scheduler of torch, the gradient scaler and averages go on exactly from a
checkpoint."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

from tests.support.exact import assert_same, through_disk

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")]


class Decay:
    """A rule with a state of its own, which LambdaLR saves."""

    def __init__(self, base: float) -> None:
        self.base = base
        self.calls = 0

    def __call__(self, epoch: int) -> float:
        self.calls += 1
        return self.base**epoch


def sequential(optimizer):
    first = lr_scheduler.LinearLR(optimizer, total_iters=3)
    second = lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    return lr_scheduler.SequentialLR(optimizer, [first, second], milestones=[3])


def chained(optimizer):
    return lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer, total_iters=4), lr_scheduler.ExponentialLR(optimizer, gamma=0.9)]
    )


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "LambdaLR with a state": lambda o: lr_scheduler.LambdaLR(o, Decay(0.9)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.95),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, total_iters=4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, total_iters=6),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=7, power=2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "CyclicLR with a rule": lambda o: lr_scheduler.CyclicLR(
        o, 0.01, 0.1, step_size_up=3, scale_fn=Decay(0.9), scale_mode="iterations"
    ),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=12),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": sequential,
    "ChainedScheduler": chained,
    "SWALR": lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=4),
}


def build(name: str):
    model = torch.nn.Linear(2, 2)
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    return {"model": model, "optimizer": optimizer, "scheduler": SCHEDULERS[name](optimizer)}


def step(objects, losses) -> list[list[float]]:
    """Return the learning rates after each step."""
    rates = []
    for loss in losses:
        objects["optimizer"].step()
        is_judging = isinstance(objects["scheduler"], lr_scheduler.ReduceLROnPlateau)
        objects["scheduler"].step(*([loss] if is_judging else []))
        rates.append([group["lr"] for group in objects["optimizer"].param_groups])
    return rates


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_goes_on_exactly(tmp_path, name):
    """The state comes back the same, and so do the learning rates of all further steps."""
    former, fresh = build(name), build(name)
    step(former, [1.0, 0.5, 0.7])
    through_disk(tmp_path, former, fresh)
    assert_same(fresh["scheduler"].state_dict(), former["scheduler"].state_dict())
    assert_same(fresh["optimizer"].state_dict(), former["optimizer"].state_dict())
    later = [0.8, 0.9, 0.9, 0.3, 0.4]
    assert_same(step(fresh, later), step(former, later))


def test_a_function_in_the_state_of_a_scheduler_stays_the_programs(tmp_path):
    """As `SWALR` of torch 2.6 has one."""

    class WithFunction(lr_scheduler.ExponentialLR):
        def __init__(self, optimizer, anneal):
            super().__init__(optimizer, gamma=0.5)
            self.anneal = anneal

    def scheduler(anneal):
        return WithFunction(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), anneal)

    def before(epoch):
        return epoch

    def now(epoch):
        return -epoch

    former, fresh = scheduler(before), scheduler(now)
    former.step()
    through_disk(tmp_path, {"scheduler": former}, {"scheduler": fresh})
    assert fresh.anneal is now
    assert fresh.last_epoch == 1


def test_every_scheduler_of_torch_is_tried():
    base = lr_scheduler.LRScheduler
    known = {
        name
        for name, kind in vars(lr_scheduler).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base and not name.startswith("_")
    }
    assert known <= SCHEDULERS.keys()


def test_a_gradient_scaler_goes_on_exactly(tmp_path):
    """Its scale, its growth and the steps until the next one."""
    former = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    fresh = torch.amp.GradScaler("cpu")
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def train(scaler, *, is_overflow: bool):
        optimizer.zero_grad()
        scaler.scale((weight * (torch.inf if is_overflow else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        return scaler.get_scale()

    for is_overflow in (False, True, False, False):
        train(former, is_overflow=is_overflow)
    through_disk(tmp_path, {"scaler": former}, {"scaler": fresh})
    assert_same(fresh.state_dict(), former.state_dict())
    assert [train(fresh, is_overflow=False) for _ in range(4)] == [
        train(former, is_overflow=False) for _ in range(4)
    ]


@pytest.mark.parametrize("rule", [None, "ema"], ids=["mean", "ema"])
def test_an_averaged_model_goes_on_exactly(tmp_path, rule):
    """With the count of what was averaged, and batch-norm statistics."""

    def averaged(model):
        average = get_ema_multi_avg_fn(0.9) if rule else None
        return AveragedModel(model, multi_avg_fn=average, use_buffers=True)

    def model(seed):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))

    def train(model, average, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(3):
            model(torch.randn(5, 2, generator=generator))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=generator))
            average.update_parameters(model)

    former, fresh = model(1), model(2)
    former_average, fresh_average = averaged(former), averaged(fresh)
    train(former, former_average, 3)
    through_disk(
        tmp_path, {"model": former, "average": former_average}, {"model": fresh, "average": fresh_average}
    )
    assert fresh_average.n_averaged == 3
    for one, average in ((former, former_average), (fresh, fresh_average)):
        train(one, average, 4)
    assert_same(fresh_average.state_dict(), former_average.state_dict())
    assert_same(fresh.state_dict(), former.state_dict())
