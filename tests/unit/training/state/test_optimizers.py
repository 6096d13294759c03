"""Every optimizer of torch goes on from a checkpoint exactly as if nothing had happened."""

from __future__ import annotations

import inspect

import pytest
import torch

from tests.support.exact import assert_same, through_disk
from trainerd.errors import MismatchError
from trainerd.training.checkpointer import Checkpointer
from trainerd.training.state.rank_files import read_verified

pytestmark = pytest.mark.torch

OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
)
VARIANTS = [
    *((name, {}) for name in OPTIMIZERS),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"amsgrad": True, "foreach": False}),
    ("AdamW", {"fused": True}),
    ("AdamW", {"lr": torch.tensor(0.01)}),
    ("Adam", {"capturable": False, "betas": (torch.tensor(0.9), torch.tensor(0.99)), "foreach": False}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("LBFGS", {"line_search_fn": "strong_wolfe", "history_size": 3}),
]


class Trainee:
    """A small model in training with one optimizer."""

    def __init__(self, name: str, options: dict, *, seed: int, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(seed)
        self.is_sparse = name == "SparseAdam"
        if self.is_sparse:
            self.model = torch.nn.Embedding(5, 3, sparse=True)
        elif name == "Muon":  # takes matrices only
            self.model = torch.nn.Sequential(
                torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 2, bias=False)
            )
        else:
            self.model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        self.model.to(dtype)
        self.dtype = dtype
        options = {
            key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in options.items()
        }
        self.optimizer = getattr(torch.optim, name)(self.model.parameters(), **options)

    @property
    def objects(self):
        return {"model": self.model, "optimizer": self.optimizer}

    def train(self, *, seed: int, steps: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            if self.is_sparse:
                data = torch.randint(5, (4,), generator=generator)
            else:
                data = torch.randn(6, 3, generator=generator).to(self.dtype)

            def closure(data=data):
                self.optimizer.zero_grad()
                loss = self.model(data).square().sum()
                loss.backward()
                return loss

            self.optimizer.step(closure)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(VARIANTS)])
def test_an_optimizer_goes_on_exactly(tmp_path, name, options):
    """The state comes back the same, and further steps of both are the same."""
    former, fresh = Trainee(name, options, seed=1), Trainee(name, options, seed=2)
    former.train(seed=3)
    through_disk(tmp_path, former.objects, fresh.objects)
    assert_same(fresh.optimizer.state_dict(), former.optimizer.state_dict())
    for trainee in (former, fresh):
        trainee.train(seed=4)
    assert_same(fresh.model.state_dict(), former.model.state_dict())
    assert_same(fresh.optimizer.state_dict(), former.optimizer.state_dict())


def test_every_optimizer_of_torch_is_tried():
    assert {"SGD", "Adam", "AdamW", "LBFGS", "SparseAdam", "Adafactor"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_state_of_another_precision_than_its_parameter_comes_back_as_it_was(tmp_path, name):
    """torch casts the state of a bf16 parameter to bf16 when it loads it: fp32 moments would lose their
    bits."""
    former, fresh = (Trainee(name, {}, seed=seed, dtype=torch.bfloat16) for seed in (1, 2))
    for parameter in former.model.parameters():
        former.optimizer.state[parameter] = {
            "step": torch.tensor(3.0),
            "exp_avg": torch.full_like(parameter, 0.1, dtype=torch.float32),
            "counts": torch.tensor([2**40 + 1]),
            "history": [torch.full((2,), 0.1)],
        }
    through_disk(tmp_path, former.objects, fresh.objects)
    assert_same(fresh.optimizer.state_dict(), former.optimizer.state_dict())


def test_what_was_loaded_is_not_shared_with_what_is_loaded_next(tmp_path):
    """One checkpoint loaded into two optimizers: neither changes the other's state."""
    former = Trainee("Adam", {}, seed=1)
    former.train(seed=3)
    with Checkpointer(tmp_path, former.objects) as checkpointer:
        checkpointer.save(step=1)
        tree = read_verified(checkpointer.wait(), 0)
    first, second = Trainee("Adam", {}, seed=2), Trainee("Adam", {}, seed=2)
    tree.apply(first.objects, source="the checkpoint")
    first.train(seed=5)
    tree.apply(second.objects, source="the checkpoint")
    assert_same(second.optimizer.state_dict(), former.optimizer.state_dict())


def test_parameter_groups_come_back_with_what_a_scheduler_put_there(tmp_path):
    def build():
        model = torch.nn.Linear(2, 2)
        groups = [{"params": [model.weight], "lr": 0.1, "initial_lr": 1.0}, {"params": [model.bias]}]
        return model, torch.optim.SGD(groups, lr=0.5)

    (model, optimizer), (other, fresh) = build(), build()
    optimizer.param_groups[0]["lr"] = 0.025
    through_disk(tmp_path, {"model": model, "optimizer": optimizer}, {"model": other, "optimizer": fresh})
    assert_same(fresh.state_dict(), optimizer.state_dict())
    assert fresh.param_groups[0]["params"][0] is other.weight


def linear(*, width: int = 2) -> torch.nn.Linear:
    return torch.nn.Linear(3, width)


def groups_of(model):
    return [{"params": [model.weight]}, {"params": [model.bias]}]


MISFITS = {
    "another class": (lambda m: torch.optim.SGD(m.parameters()), "a Adam, here a SGD"),
    "another class with the same fields": (
        lambda m: torch.optim.RAdam(m.parameters()),
        "a Adam, here a RAdam",
    ),
    "more groups": (
        lambda m: torch.optim.Adam(groups_of(m)),
        r"param_groups\[1\]: here with model\.bias, no such group in the checkpoint",
    ),
    "fewer parameters": (
        lambda m: torch.optim.Adam([m.weight]),
        r"param_groups\[0\]: model\.bias in the checkpoint, not here",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_an_optimizer_that_does_not_fit_is_refused_field_by_field(tmp_path, name):
    build, said = MISFITS[name]
    model = linear()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(1, 3)).sum().backward()
    optimizer.step()
    fresh = linear()
    other = build(fresh)
    before = fresh.weight.clone()
    with pytest.raises(MismatchError, match=said) as caught:
        through_disk(tmp_path, {"optimizer": optimizer, "model": model}, {"optimizer": other, "model": fresh})
    assert all(line.startswith("optimizer") for line in caught.value.differences)
    assert torch.equal(fresh.weight, before)
    assert other.state_dict()["state"] == {}


def test_names_of_parameters_are_compared_where_both_sides_have_them(tmp_path):
    """Two parameters of one shape, given in another order: only their names tell."""
    first, second = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.zeros(2))
    saved = torch.optim.SGD([("a", first), ("b", second)], lr=0.1)
    swapped = torch.optim.SGD([("b", second), ("a", first)], lr=0.1)
    with pytest.raises(MismatchError, match=r"params\[0\]: in the checkpoint a, here b"):
        through_disk(tmp_path, {"optimizer": saved}, {"optimizer": swapped})


def test_without_a_noted_class_the_fields_of_the_groups_tell(tmp_path):
    """As in a checkpoint that was written before classes were noted."""
    model = linear()
    objects = {"optimizer": torch.optim.Adam(model.parameters())}
    with Checkpointer(tmp_path, objects) as checkpointer:
        checkpointer.save(step=1)
        tree = read_verified(checkpointer.wait(), 0)
    tree.classes = {}
    with pytest.raises(
        MismatchError, match=r"param_groups\[0\]: in the checkpoint with .*betas.* here with .*momentum"
    ):
        tree.apply({"optimizer": torch.optim.SGD(model.parameters())}, source="the checkpoint")
