"""Putting a checkpoint back: all of it or none of it, and a misfit is told field by field."""

from __future__ import annotations

import pytest
import torch

from tests.support.exact import Box, assert_same, through_disk
from trainerd.errors import MismatchError, UserError
from trainerd.training.checkpointer import Checkpointer
from trainerd.training.state import restore, snapshot
from trainerd.training.state.copied_state import copied_state

pytestmark = pytest.mark.torch


def network(*, hidden: int = 3, seed: int | None = None) -> torch.nn.Sequential:
    if seed is not None:
        torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(2, hidden), torch.nn.BatchNorm1d(hidden), torch.nn.Linear(hidden, 1)
    )


def saved(folder, objects) -> Checkpointer:
    """Return a Checkpointer on a folder in which `objects` are saved."""
    with Checkpointer(folder, objects) as checkpointer:
        checkpointer.save(step=1)
    return checkpointer


def load(folder, objects, **how):
    return Checkpointer(folder, objects).load("step-1", **how)


# --------------------------------------------------------------------- models


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.out = torch.nn.Linear(3, 5, bias=False)
        self.out.weight = self.embedding.weight


class WithExtraState(torch.nn.Module):
    def __init__(self, extra=None):
        super().__init__()
        self.extra = extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, extra):
        self.extra = extra


def weight_normed():
    return torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2))


def spectral_normed():
    return torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 2))


def batch_normed():
    model = torch.nn.BatchNorm2d(3)
    model(torch.randn(2, 3, 4, 4))
    return model


MODELS = {
    "batch norm": batch_normed,
    "embedding": lambda: torch.nn.Embedding(4, 2, padding_idx=0, max_norm=1.0),
    "tied": Tied,
    "weight norm": weight_normed,
    "spectral norm": spectral_normed,
    "extra state": lambda: WithExtraState({"seen": [1, 2]}),
    "recurrent": lambda: torch.nn.LSTM(2, 3, num_layers=2),
    "attention": lambda: torch.nn.MultiheadAttention(4, 2),
    "half precision": lambda: network().to(torch.bfloat16),
    "channels last": lambda: torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
    "nothing to learn": torch.nn.ReLU,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back(tmp_path, name):
    former, fresh = MODELS[name](), MODELS[name]()
    if name == "extra state":
        fresh.extra = None
    through_disk(tmp_path, {"model": former}, {"model": fresh})
    assert_same(fresh.state_dict(), former.state_dict())


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    former, fresh = Tied(), Tied()
    through_disk(tmp_path, {"model": former}, {"model": fresh})
    assert fresh.out.weight is fresh.embedding.weight
    assert (tmp_path / "step-000000001" / "rank-00000.safetensors").stat().st_size == 4096 + 5 * 3 * 4


def test_a_lazy_module_takes_its_shape_from_the_checkpoint(tmp_path):
    former, fresh = torch.nn.Linear(3, 2), torch.nn.LazyLinear(2)
    through_disk(tmp_path, {"model": former}, {"model": fresh})
    assert torch.equal(fresh.weight, former.weight)


WRAPPERS = {
    "DataParallel": torch.nn.DataParallel,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "both": lambda model: torch.compile(torch.nn.DataParallel(model), backend="eager"),
    "none": lambda model: model,
}


@pytest.mark.parametrize("to", WRAPPERS)
@pytest.mark.parametrize("source", WRAPPERS)
def test_wrappers_are_looked_through(tmp_path, source, to):
    """A checkpoint of a wrapped model loads into a plain one, and the other way round."""
    former, fresh = network(seed=1), network(seed=2)
    through_disk(tmp_path, {"model": WRAPPERS[source](former)}, {"model": WRAPPERS[to](fresh)})
    assert_same(fresh.state_dict(), former.state_dict())


def test_a_model_under_ddp_is_saved_without_its_wrapper(tmp_path):
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        former, fresh = network(seed=1), network(seed=2)
        through_disk(tmp_path, {"model": torch.nn.parallel.DistributedDataParallel(former)}, {"model": fresh})
        other = network(seed=3)
        load(tmp_path, {"model": torch.nn.parallel.DistributedDataParallel(other)})
    finally:
        torch.distributed.destroy_process_group()
    assert_same(fresh.state_dict(), former.state_dict())
    assert_same(other.state_dict(), former.state_dict())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("source", "to"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_state_moves_between_devices(tmp_path, source, to):
    def trained(device, seed):
        model = network(seed=seed).to(device)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.randn(4, 2, device=device)).sum().backward()
        optimizer.step()
        return {"model": model, "optimizer": optimizer}

    former, fresh = trained(source, 1), trained(to, 2)
    through_disk(tmp_path, former, fresh)
    for name, value in former["model"].state_dict().items():
        found = fresh["model"].state_dict()[name]
        assert found.device.type == to
        assert torch.equal(found.cpu(), value.cpu())
    first = next(iter(fresh["model"].parameters()))
    assert fresh["optimizer"].state[first]["exp_avg"].device.type == to


# --------------------------------------------------------------------- misfits

DIFFERENCES = {
    "renamed": (
        lambda: torch.nn.Sequential(network()),
        ["missing in the checkpoint, here float32 [3, 2]", "unexpected, in the checkpoint float32 [3, 2]"],
    ),
    "another shape": (lambda: network(hidden=4), ["in the checkpoint float32 [3, 2], here float32 [4, 2]"]),
    "another dtype": (lambda: network().double(), ["in the checkpoint float32 [3, 2], here float64 [3, 2]"]),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_misfit_is_told_field_by_field_and_changes_nothing(tmp_path, name):
    build, said = DIFFERENCES[name]
    checkpointer = saved(tmp_path, {"model": network(), "counter": Box({"n": 1})})
    live, counter = build(), Box({"n": 7})
    before = copied_state(live.state_dict())
    with pytest.raises(MismatchError) as caught:
        load(tmp_path, {"model": live, "counter": counter})
    for text in said:
        assert any(text in line and line.startswith("model.") for line in caught.value.differences)
    assert_same(live.state_dict(), before)
    assert counter.tree == {"n": 7}
    assert [checkpoint.step for checkpoint in checkpointer.checkpoints()] == [1]  # a misfit is not damage
    assert checkpointer.store.quarantined() == ()


def test_objects_that_are_on_one_side_only_are_told(tmp_path):
    saved(tmp_path, {"model": network(), "ema": network()})
    with pytest.raises(MismatchError) as caught:
        load(tmp_path, {"model": network(), "scheduler": Box()})
    assert caught.value.differences == (
        "ema: in the checkpoint, not tracked by the program",
        "scheduler: tracked by the program, not in the checkpoint",
    )


def test_something_else_under_an_optimizers_name_is_told(tmp_path):
    saved(tmp_path, {"optimizer": Box({"lr": 0.1})})
    optimizer = torch.optim.SGD(network().parameters())
    with pytest.raises(MismatchError, match="does not hold the state of an optimizer"):
        load(tmp_path, {"optimizer": optimizer})


# --------------------------------------------------------------------- all or nothing


class Picky(Box):
    """Takes its state, and then refuses it."""

    def load_state_dict(self, tree):
        self.tree = tree
        if tree != {"n": 0}:
            raise ValueError("I want n to be 0")


class PickyModel(torch.nn.Linear):
    """Copies its weights, and then refuses them."""

    def load_state_dict(self, state_dict, *args, **options):
        super().load_state_dict(state_dict, *args, **options)
        if float(self.weight.detach()[0, 0]) != 0:
            raise ValueError("I want zeros")


def model_that_refuses_in_a_hook():
    model = torch.nn.Linear(2, 2)

    def refuse(module, _incompatible):
        if float(module.weight.detach()[0, 0]) != 0:
            raise ValueError("I want zeros")

    model.register_load_state_dict_post_hook(refuse)
    return model


class PickyOptimizer(torch.optim.SGD):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        if self.param_groups[0]["lr"] != 0:
            raise ValueError("I want lr to be 0")


def zeroed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def picky_optimizer(lr):
    return PickyOptimizer([torch.nn.Parameter(torch.zeros(2))], lr=lr)


REFUSERS = {
    "an object": (lambda: Box({"n": 1}), lambda: Picky({"n": 0})),
    "a model": (lambda: torch.nn.Linear(2, 2), lambda: zeroed(PickyModel(2, 2))),
    "a hook": (lambda: torch.nn.Linear(2, 2), lambda: zeroed(model_that_refuses_in_a_hook())),
    "an optimizer": (lambda: picky_optimizer(0.5), lambda: picky_optimizer(0.0)),
}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("name", REFUSERS)
def test_one_that_refuses_leaves_all_as_they_were(tmp_path, name, place):
    """Wherever it stands among the others, and though it had taken its state already."""

    def others(seed):
        model = network(seed=seed)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(2, 2)).sum().backward()
        optimizer.step()
        return {"a": Box({"k": seed}), "model": model, "optimizer": optimizer, "z": Box([seed])}

    def placed(picky, objects):
        return {"picky": picky, **objects} if place == "first" else {**objects, "picky": picky}

    build_saved, build_live = REFUSERS[name]
    saved(tmp_path, placed(build_saved(), others(1)))
    live = placed(build_live(), others(2))
    before = {key: copied_state(value.state_dict()) for key, value in live.items()}
    with pytest.raises(
        MismatchError, match=r"picky does not take its state[\s\S]*I want[\s\S]*nothing was changed"
    ):
        load(tmp_path, live)
    for key, value in live.items():
        assert_same(value.state_dict(), before[key], key)


def test_what_was_put_back_and_has_not_changed_is_let_be():
    """A resume puts the state back twice. The second time loads what the script has changed in between."""

    def trained(seed):
        model = network(seed=seed)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(2, 2)).sum().backward()
        optimizer.step()
        return {"model": model, "optimizer": optimizer, "box": Box([seed])}

    former, live = trained(1), trained(2)
    taken = snapshot.take_snapshot(former)
    tree = restore.StateTree(taken.document, copied_state(taken.tensors))
    tree.apply(live, source="it")
    before = {id(each["exp_avg"]) for each in live["optimizer"].state.values()}
    live["box"].tree = ["changed"]
    tree.apply(live, source="it", was_restored=True)
    assert {id(each["exp_avg"]) for each in live["optimizer"].state.values()} == before
    assert live["box"].tree == [1]

    next(live["model"].parameters()).data[0, 0] += 1
    next(iter(live["optimizer"].state.values()))["exp_avg"][0, 0] += 1
    tree.apply(live, source="it", was_restored=True)
    for key, value in live.items():
        assert_same(value.state_dict(), former[key].state_dict(), key)


@pytest.mark.parametrize("name", ["a model", "a hook"])
@pytest.mark.parametrize(
    "missing", ["_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_load_from_state_dict"]
)
def test_where_torch_hides_its_hooks_every_module_is_put_back(tmp_path, monkeypatch, name, missing):
    """A name that is not there says nothing about the module: it is treated as one that may refuse."""

    def found(of, name, *default):
        return default[0] if name == missing else getattr(of, name, *default)

    monkeypatch.setattr(restore, "getattr", found, raising=False)
    test_one_that_refuses_leaves_all_as_they_were(tmp_path, name, "last")
    assert restore._certainty(network()) == 0


def test_a_model_comes_back_without_the_versions_of_its_modules(tmp_path, monkeypatch):
    """They are an attribute of the state that torch calls `_metadata`."""
    plain = torch.nn.Module.state_dict
    monkeypatch.setattr(torch.nn.Module, "state_dict", lambda self: dict(plain(self)))
    former, fresh = batch_normed(), batch_normed()
    through_disk(tmp_path, {"model": former}, {"model": fresh})
    assert_same(fresh.state_dict(), former.state_dict())


def test_one_that_cannot_be_put_back_is_named(tmp_path):
    class Stubborn(Box):
        def load_state_dict(self, tree):
            raise ValueError("never")

    saved(tmp_path, {"box": Box(1)})
    with pytest.raises(MismatchError, match="box could not be put back"):
        load(tmp_path, {"box": Stubborn(2)})


# --------------------------------------------------------------------- a part of it


def backbone(classes: int):
    return torch.nn.ModuleDict({"body": torch.nn.Linear(2, 3), "head": torch.nn.Linear(3, classes)})


def test_not_strict_takes_what_fits_and_says_what_it_left(tmp_path):
    """Transfer to another number of classes: the body is taken, the head and its optimizer are left."""
    former = backbone(10)
    saved(tmp_path, {"model": former, "optimizer": torch.optim.SGD(former.parameters()), "gone": Box(1)})
    fresh = backbone(3)
    head = copied_state(fresh["head"].state_dict())
    optimizer = torch.optim.Adam(fresh.parameters())
    with pytest.warns(
        UserWarning, match=r"left unchanged:[\s\S]*model.head.weight[\s\S]*optimizer"
    ) as caught:
        load(tmp_path, {"model": fresh, "optimizer": optimizer, "new": Box(2)}, strict=False)
    assert len(caught) == 1
    assert "gone" in str(caught[0].message)
    assert_same(fresh["body"].state_dict(), former["body"].state_dict())
    assert_same(fresh["head"].state_dict(), head)


def test_not_strict_casts_to_the_precision_of_the_program(tmp_path):
    former, fresh = network(seed=1), network(seed=2).double()
    saved(tmp_path, {"model": former})
    load(tmp_path, {"model": fresh}, strict=False)
    assert torch.equal(fresh[0].weight, former[0].weight.double())


PARTS = {
    "an object": ({"only": ["model"]}, {"body.weight", "body.bias", "head.weight", "head.bias"}),
    "a submodule": ({"only": ["model.body"]}, {"body.weight", "body.bias"}),
    "a pattern": ({"only": ["*.bias"]}, {"body.bias", "head.bias"}),
    "all but": ({"exclude": ["optimizer", "model.head.*"]}, {"body.weight", "body.bias"}),
    "both": ({"only": ["model"], "exclude": ["*.weight"]}, {"body.bias", "head.bias"}),
}


@pytest.mark.parametrize("name", PARTS)
def test_only_and_exclude_take_a_part(tmp_path, name):
    how, taken = PARTS[name]
    former, fresh = backbone(4), backbone(4)
    saved(tmp_path, {"model": former, "optimizer": Box(1)})
    box = Box(2)
    before = copied_state(fresh.state_dict())
    load(tmp_path, {"model": fresh, "optimizer": box}, **how)
    for key, value in fresh.state_dict().items():
        assert_same(value, (former.state_dict() if key in taken else before)[key], key)
    assert box.tree == 2


def test_what_is_taken_in_part_must_fit_unless_it_is_said_otherwise(tmp_path):
    saved(tmp_path, {"model": backbone(10)})
    with pytest.raises(MismatchError, match=r"model.head.weight: in the checkpoint float32 \[10, 3\]"):
        load(tmp_path, {"model": backbone(3)}, only=["model"])
    load(tmp_path, {"model": backbone(3)}, only=["model"], exclude=["model.head"])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"only": ["modle"]}, "'modle' matches nothing"),
        ({"exclude": ["model.layer9.*"]}, "'model.layer9.\\*' matches nothing"),
        ({"only": ["optimizer.state"]}, "patterns reach into modules only"),
        ({"only": "model"}, r"write only=\['model'\]"),
    ],
)
def test_a_pattern_that_matches_nothing_is_a_mistake(tmp_path, how, said):
    saved(tmp_path, {"model": backbone(2), "optimizer": Box({"state": 1})})
    with pytest.raises(UserError, match=said):
        load(tmp_path, {"model": backbone(2), "optimizer": Box()}, **how)


# --------------------------------------------------------------------- objects of the script's own


class Velocities:
    """Keeps what it is given, as many objects of scripts do: it moves nothing to a device."""

    def __init__(self):
        self.state = {"velocity": torch.ones(3), "count": torch.ones(1), "nested": [torch.ones(2)]}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


@pytest.mark.parametrize(
    ("was_on", "comes_back_on"), [("meta", "meta"), ("meta:3", "meta"), ("cuda:0", "cpu")], ids=str
)
def test_an_object_gets_its_tensors_on_the_devices_that_they_were_on(
    tmp_path, monkeypatch, was_on, comes_back_on
):
    """`meta` stands for a device that is here, `cuda` for one that is not."""
    paths = [("velocity",), ("nested", 0)]
    monkeypatch.setattr(snapshot, "devices_in", lambda state: {was_on: paths} if "velocity" in state else {})
    saved(tmp_path, {"optimizer": Velocities(), "model": network()})
    back = Velocities()
    if comes_back_on == "cpu" and torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    load(tmp_path, {"optimizer": back, "model": network()})
    assert back.state["velocity"].device.type == comes_back_on
    assert back.state["nested"][0].device.type == comes_back_on
    assert back.state["count"].device.type == "cpu"


def test_a_checkpoint_without_a_device_says_nothing_of_devices():
    assert "object_devices" not in snapshot.take_snapshot({"optimizer": Velocities()}).document


# ------------------------------------------------------------ optimizers with a state of another form


class Slow(torch.optim.SGD):
    """Keeps slow weights beside the fast ones, and gives both under names of its own, as Lookahead does."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1, momentum=0.9)
        self.slow = [each.detach().clone() for each in self.param_groups[0]["params"]]

    def state_dict(self):
        fast = super().state_dict()
        return {"fast_state": fast["state"], "slow": self.slow, "param_groups": fast["param_groups"]}

    def load_state_dict(self, state):
        super().load_state_dict({"state": state["fast_state"], "param_groups": state["param_groups"]})
        self.slow = state["slow"]


def test_an_optimizer_with_a_state_of_another_form_goes_on(tmp_path):
    model = network(seed=1)
    optimizer = Slow(model.parameters())
    for each in optimizer.slow:
        each.add_(1)
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    saved(tmp_path, {"model": model, "optimizer": optimizer})
    other = network(seed=2)
    restored = Slow(other.parameters())
    load(tmp_path, {"model": other, "optimizer": restored})
    assert_same(restored.state_dict(), optimizer.state_dict())
