"""Gradients of what is not tracked count in a clipping: they come back at a resume, or that is said."""

from __future__ import annotations

import gc
import types

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import trainerd
from tests.support.struck import StruckRun
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume

pytestmark = pytest.mark.torch

DATA = [torch.randn(4, 3, generator=torch.Generator().manual_seed(number)) for number in range(10)]


def trained(session, tick, features, others, *, clears=lambda: None):
    """Train a head on features of a batch, with the norm of all gradients clipped."""
    head = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05, momentum=0.9)
    session.track(head=head, optimizer=optimizer)
    for batch in session.batches(DATA):
        clears()
        optimizer.zero_grad()
        loss = head(torch.tanh(features(batch))).square().mean()
        loss.backward()
        norm = clip_grad_norm_([*others, *head.parameters()], 0.2)
        optimizer.step()
        session.log(loss=loss, norm=norm)
        session._run.saves.wait()
        tick()


def a_backbone(session, tick):
    torch.manual_seed(0)
    backbone = nn.Linear(3, 3)
    trained(session, tick, backbone, list(backbone.parameters()))


def an_attribute(session, tick):
    torch.manual_seed(0)
    holder = types.SimpleNamespace(nets=[nn.Linear(3, 3)])
    trained(session, tick, holder.nets[0], list(holder.nets[0].parameters()))


def a_whole_of_which_a_part_is_tracked(session, tick):
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Linear(3, 3), "spare": nn.Linear(3, 3)})
    trained(session, tick, model["body"], list(model.parameters()))


def a_single_parameter(session, tick):
    torch.manual_seed(0)
    prompt = torch.zeros(3, requires_grad=True)
    trained(session, tick, lambda batch: batch + prompt, [prompt])


def one_that_is_cleared(session, tick):
    torch.manual_seed(0)
    backbone = nn.Linear(3, 3)
    trained(session, tick, backbone, list(backbone.parameters()), clears=backbone.zero_grad)


SHAPES = [
    a_backbone,
    an_attribute,
    a_whole_of_which_a_part_is_tracked,
    a_single_parameter,
    one_that_is_cleared,
]


@pytest.mark.parametrize("shape", SHAPES)
def test_they_come_back(shape, tmp_path, monkeypatch):
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    for kind in ("SIGKILL", "SIGTERM"):
        for at in (2, 5):
            run = StruckRun(monkeypatch, tmp_path / f"{kind}-{at}", shape)
            assert run.result(kind, at) == expected, (kind, at)
            assert read_resume(RunPaths(tmp_path / f"{kind}-{at}").resume).verdict != "suspect"


def kept_by(shape, folder, monkeypatch):
    kept = []

    def looked_at(session, tick):
        def look():
            kept.append(session._run.state.gradients.state_dict())
            tick()

        shape(session, look)

    StruckRun(monkeypatch, folder, looked_at).attempt()
    return kept[-1]


def test_only_those_that_the_next_step_adds_to_take_room(tmp_path, monkeypatch):
    kept = kept_by(a_backbone, tmp_path / "added", monkeypatch)
    assert set(kept["gradients"]) == {"backbone.weight", "backbone.bias"}
    assert kept["habits"]["backbone (untracked)"] == [False, True]
    assert "gradients" not in kept_by(one_that_is_cleared, tmp_path / "cleared", monkeypatch)


def test_one_that_the_resumed_program_has_no_more_is_said(tmp_path, monkeypatch):
    run = StruckRun(monkeypatch, tmp_path, a_backbone)
    run.attempt("SIGKILL", 5)
    run._shape = lambda session, tick: trained(session, tick, torch.neg, [])
    assert run.attempt()
    found = read_resume(RunPaths(tmp_path).resume).reasons
    named = [each.where for each in found if each.kind == "gradients-not-kept"]
    assert named == ["backbone.bias and 1 more"]


def hidden(network):
    """Return a function that has a network, and no name that leads to it."""

    def features(batch):
        return network(batch)

    return features


@pytest.mark.parametrize("is_frozen", [False, True])
def test_one_that_nothing_has_a_name_for_is_said(is_frozen, tmp_path):
    features = hidden(nn.Linear(3, 3).requires_grad_(not is_frozen))
    with trainerd.session(tmp_path) as session:
        trained(session, lambda: None, features, [])
        found = [each for each in session._run.suspicions.reasons if each.kind == "gradients-not-kept"]
    assert len(found) == (0 if is_frozen else 1)
    for each in found:
        assert "parameter of shape [3] that is not tracked" in each.detail
        assert "requires_grad_(False)" in each.hint


def test_what_stays_of_another_model_in_the_process_is_passed_over(tmp_path):
    other = [nn.Linear(3, 3)]
    other[0](DATA[0]).sum().backward()
    get = hidden(other[0])
    del other
    gc.collect()
    with trainerd.session(tmp_path) as session:
        trained(session, lambda: None, torch.neg, [])
        assert session._run.suspicions.reasons == ()
    assert get(DATA[0]).requires_grad
