"""What training does to an optimizer itself comes back exactly, or is said: not found out at the resume."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import trainerd
from tests.support.struck import StruckRun
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume
from trainerd.errors import UserError
from trainerd.training.state.optimizer_changes import OptimizerChanges
from trainerd.training.state.optimizer_names import Matching, match

pytestmark = pytest.mark.torch

DATA = [torch.randn(4, 3, generator=torch.Generator().manual_seed(number)) for number in range(10)]
CHANGED_AT, STRUCK_AT = 3, 7


class Twice(torch.optim.SGD):
    """Has the fields of another class, and other steps."""

    def step(self, closure=None):
        super().step(closure)
        super().step(closure)


def replaces_all(model, optimizer):
    for layer in (model[0], model[2]):
        layer.weight = nn.Parameter(layer.weight.detach() * 0.5)
        layer.bias = nn.Parameter(layer.bias.detach().clone())
    optimizer.param_groups[0]["params"] = list(model.parameters())


def replaces_one(model, optimizer):
    model[2].weight = nn.Parameter(model[2].weight.detach() * 0.5)
    optimizer.param_groups[0]["params"][2] = model[2].weight


def takes_out(model, optimizer):
    optimizer.param_groups[0]["params"].pop()


def takes_out_all(model, optimizer):
    optimizer.param_groups[0]["params"] = []


def takes_out_the_group(model, optimizer):
    del optimizer.param_groups[0]


def lists_twice(model, optimizer):
    optimizer.param_groups[0]["params"].append(model[2].bias)


def divides(model, optimizer):
    first, *others = model.parameters()
    optimizer.param_groups[0]["params"] = [first]
    optimizer.add_param_group({"params": others, "lr": 0.01})


def turns_round(model, optimizer):
    optimizer.param_groups[0]["params"].reverse()


def copies_the_groups(model, optimizer):
    optimizer.param_groups = [{**group} for group in optimizer.param_groups]


def begins_again(model, optimizer):
    optimizer.__init__(model.parameters(), lr=0.01, momentum=0.5)


def trained(change, *, kind=torch.optim.SGD, when="in the middle", **settings):
    """Return a run that makes a change, in the middle or each time before the loop."""

    def shape(session, tick):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
        optimizer = kind(model.parameters(), lr=0.05, **settings)
        session.track(model=model, optimizer=optimizer)
        if when == "before":
            change(model, optimizer)
        for number, batch in session.enumerate(DATA):
            if number == CHANGED_AT and when != "before":
                change(model, optimizer)
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            session._run.saves.wait()
            tick()

    return shape


COMES_BACK = [
    replaces_all,
    replaces_one,
    takes_out,
    takes_out_all,
    takes_out_the_group,
    lists_twice,
    divides,
    turns_round,
    copies_the_groups,
    begins_again,
]


@pytest.mark.parametrize("change", COMES_BACK)
def test_a_change_of_the_groups_comes_back_exactly(change, tmp_path, monkeypatch):
    shape = trained(change, momentum=0.9)
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    for kind in ("SIGKILL", "SIGTERM"):
        assert StruckRun(monkeypatch, tmp_path / kind, shape).result(kind, STRUCK_AT) == expected, kind


def test_it_does_so_with_the_state_of_adam(tmp_path, monkeypatch):
    shape = trained(replaces_one, kind=torch.optim.AdamW)
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    assert StruckRun(monkeypatch, tmp_path / "killed", shape).result("SIGKILL", STRUCK_AT) == expected


def test_a_change_that_the_head_of_an_epoch_makes_again_is_made_once(tmp_path, monkeypatch):
    def shape(session, tick):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        session.track(model=model, optimizer=optimizer)
        for _ in session.epochs(3):
            takes_out(model, optimizer)
            for batch in session.batches(DATA[:4]):
                model.zero_grad()
                loss = model(batch).square().mean()
                loss.backward()
                optimizer.step()
                session.log(loss=loss)
                session._run.saves.wait()
                tick()

    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    for at in (6, 7, 8):
        assert StruckRun(monkeypatch, tmp_path / f"{at}", shape).result("SIGKILL", at) == expected, at


def test_a_program_that_lists_other_parameters_is_refused_as_before(tmp_path, monkeypatch):
    """Training has changed the groups, and so has the program: neither is guessed at."""
    run = StruckRun(monkeypatch, tmp_path, trained(takes_out, momentum=0.9))
    run.attempt("SIGKILL", STRUCK_AT)
    run._shape = trained(turns_round, momentum=0.9, when="before")
    with pytest.raises(UserError, match=r"model.2.bias here, not in the checkpoint"):
        run.attempt()


def test_groups_of_training_are_taken_over_only_by_the_same_program():
    state = {"state": {}, "param_groups": [{"params": [0]}]}
    saved, live, known = [["m.a"]], [["m.a", "m.b"]], {"m.a", "m.b"}
    assert match("o", state, saved, live, known).differences
    assert match("o", state, saved, live, known, is_same_program=True) == Matching(state, regrouped=[["m.a"]])
    assert match("o", state, [["m.c"]], live, known, is_same_program=True).differences
    assert match("o", state, [[None]], live, known, is_same_program=True).regrouped is None


# --------------------------------------------------------------------- what cannot come back


def alien(model, optimizer):
    optimizer.param_groups[0]["params"] = [nn.Parameter(each.detach().clone()) for each in model.parameters()]


def replaces_a_module(model, optimizer):
    model[2] = nn.Linear(3, 1)


def replaces_a_parameter(model, optimizer):
    model[2].weight = nn.Parameter(torch.ones(1, 3))


def replaces_the_class(model, optimizer):
    optimizer.__class__ = Twice


ERRORS = {
    alien: r"optimizer.param_groups\[0\]\['params'\]\[0\]: was put there during training .*shape \[3, 3\]",
    replaces_a_module: r"optimizer.param_groups\[0\]\['params'\]\[2\]: is what model.2.weight was",
    replaces_a_parameter: r"optimizer.param_groups\[0\]\['params'\]\[2\]: is what model.2.weight was",
    replaces_the_class: r"optimizer: was a torch.optim.sgd.SGD when training began and is a .*Twice now",
}


@pytest.mark.parametrize("change", ERRORS)
def test_what_a_resumed_program_would_do_otherwise_is_an_error_after_that_step(change, tmp_path, monkeypatch):
    run = StruckRun(monkeypatch, tmp_path, trained(change), every={"steps": 100})
    with pytest.raises(UserError, match=rf"after step {CHANGED_AT + 1}, {ERRORS[change]}") as raised:
        run.attempt()
    assert raised.value.hint


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("when", ["in the middle", "before"])
@pytest.mark.parametrize("kind", ["generator", "Parameter"])
def test_groups_without_a_list_of_parameters_are_an_error(kind, when, tmp_path, monkeypatch):
    def change(model, optimizer):
        parameters = model.parameters() if kind == "generator" else model[2].weight
        optimizer.param_groups[0]["params"] = parameters

    place = r"optimizer.param_groups\[0\]\['params'\]"
    with pytest.raises(UserError, match=rf"{place} is a {kind}, not a list of parameters") as raised:
        StruckRun(monkeypatch, tmp_path, trained(change, when=when)).attempt()
    assert "= list(model.parameters())" in raised.value.hint


@pytest.mark.parametrize("change", ERRORS)
def test_without_strictness_it_is_a_suspicion(change, tmp_path, monkeypatch):
    said = []
    run = StruckRun(monkeypatch, tmp_path, trained(change), strict=False)

    def shape(session, tick):
        trained(change)(session, tick)
        said.extend(each.kind for each in session._run.suspicions.reasons)

    run._shape = shape
    assert run.attempt()
    assert said[0] in {"replaced-parameter", "optimizer-class"}


def converts(model, optimizer):
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def test_parameters_that_a_conversion_replaces_are_an_error_at_the_next_save(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"after step 4, .* is what model.0.weight was"):
        StruckRun(monkeypatch, tmp_path, trained(converts)).attempt()


def prunes(model, optimizer):
    prune.l1_unstructured(model[2], "weight", amount=1)


def widens(model, optimizer):
    model[2].bias.data, model[2].weight.data = torch.ones(2), torch.ones(2, 3)
    model.zero_grad()


def halves(model, optimizer):
    model[2].register_buffer("scale", torch.ones(1))


@pytest.mark.parametrize(
    ("change", "where"),
    [(prunes, "model.2.weight"), (widens, "model.2.weight"), (halves, "model.2.scale")],
)
def test_another_structure_is_a_suspicion_when_it_is_made(change, where, tmp_path, monkeypatch):
    found = []

    def shape(session, tick):
        trained(change)(session, tick)
        found.extend((each.kind, each.where) for each in session._run.suspicions.reasons)

    assert StruckRun(monkeypatch, tmp_path, shape).attempt()
    assert ("structure-changed", where) in found


def patches(model, optimizer):
    step = optimizer.step

    def twice(closure=None):
        step(closure)
        step(closure)

    optimizer.step = twice


@pytest.mark.parametrize("when", ["in the middle", "before"])
def test_a_step_that_training_replaces_is_said_at_the_resume(when, tmp_path, monkeypatch):
    shape = trained(patches, when=when)
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    found = StruckRun(monkeypatch, tmp_path / "killed", shape).result("SIGKILL", STRUCK_AT)
    record = read_resume(RunPaths(tmp_path / "killed").resume)
    named = [each.where for each in record.reasons if each.kind == "optimizer-step"]
    assert named == ([] if when == "before" else ["optimizer.step"])
    assert (record.verdict == "suspect") == (when != "before")
    assert (found == expected) == (when == "before")


def test_a_scheduler_made_during_training_replaces_no_step(tmp_path):
    with trainerd.session(tmp_path) as session:
        model = nn.Linear(3, 1)
        optimizer = Twice(model.parameters(), lr=0.1)
        session.track(model=model, optimizer=optimizer)
        for number in session.steps(4):
            model(DATA[number]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if number == 1:
                torch.optim.lr_scheduler.StepLR(optimizer, 2)
        assert session._run.suspicions.reasons == ()


@pytest.mark.parametrize("change", [replaces_a_module, replaces_a_parameter, alien])
def test_an_optimizer_that_is_older_than_the_parameters_is_told_so_at_the_first_step(
    change, tmp_path, monkeypatch
):
    with pytest.raises(UserError, match=r"no optimizer has model") as raised:
        StruckRun(monkeypatch, tmp_path, trained(change, when="before")).attempt()
    assert "make the optimizer after the model has all its parameters" in raised.value.hint


def test_nothing_is_gone_through_without_a_sign():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    changes = OptimizerChanges({"model": model, "optimizer": optimizer}, dict)
    changes.begin()
    try:
        assert not changes.show()
        nn.Linear(2, 1).bias = None
        model.note = "plain attributes are none"
        assert not changes.show()
        model.bias = nn.Parameter(torch.ones(1))
        assert changes.show()
        assert not changes.show(), "told once"
    finally:
        changes.close()
    model.weight = nn.Parameter(torch.ones(1, 2))
    assert not changes.show(), "nothing is watched any more"
