"""Gradients that are left at a boundary count in the next step, in a resumed run as in one left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.loop_shapes import data
from tests.support.struck import StruckRun
from trainerd.contract.paths import RunPaths
from trainerd.contract.resume_record import read_resume

pytestmark = pytest.mark.torch


def made(session):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    session.track(model=model, optimizer=optimizer)
    return model, optimizer


def left_in_an_accumulation(session, tick):
    (model, optimizer), loader = made(session), data(length=10)
    for _ in session.epochs(2):
        for number, x in session.enumerate(loader, accumulate=2):
            loss = model(x).square().mean()
            loss.backward()
            session.log(loss=loss)
            if number % 2 == 1:
                optimizer.step()
                optimizer.zero_grad()
            if number == 2:
                break
        tick()


def exhausted_in_an_accumulation(session, tick):
    (model, optimizer), loader = made(session), data(length=6)
    for _ in session.epochs(2):
        for number, x in session.enumerate(loader, accumulate=2):
            loss = model(x).square().mean()
            loss.backward()
            session.log(loss=loss)
            if number % 2 == 1:
                optimizer.step()
                optimizer.zero_grad()
        tick()


def tried_before_the_loop(session, tick):
    (model, optimizer), loader = made(session), data(length=4)
    model(torch.ones(2, 3)).sum().backward()
    for _ in session.epochs(2):
        for x in session.batches(loader):
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            session.log(loss=loss)
        tick()


@pytest.mark.parametrize(
    "shape", [left_in_an_accumulation, exhausted_in_an_accumulation, tried_before_the_loop]
)
def test_a_resume_at_the_boundary_is_exact(shape, tmp_path, monkeypatch):
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape).result()
    for kind in ("SIGKILL", "SIGTERM"):
        assert StruckRun(monkeypatch, tmp_path / kind, shape).result(kind, 1) == expected, kind


def halves_the_rate(session, optimizer, values):
    optimizer.param_groups[0]["lr"] *= 0.5


def changes_a_value(session, optimizer, values):
    values.scale *= 0.5


def draws(session, optimizer, values):
    torch.rand(3)


def does_so_once(session, optimizer, values):
    if session.resumed_from is None:
        halves_the_rate(session, optimizer, values)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (halves_the_rate, "optimizer.param_groups[0].lr"),
        (changes_a_value, "values.scale"),
        (draws, None),
        (does_so_once, None),
    ],
)
def test_a_change_after_resume_is_named_where_it_is_made_twice(change, place, tmp_path, monkeypatch):
    def shape(session, tick):
        (model, optimizer), loader = made(session), data(length=4)
        values = session.variables(scale=1.0)
        session.resume()
        change(session, optimizer, values)
        for _ in session.epochs(2):
            for x in session.batches(loader):
                optimizer.zero_grad()
                loss = model(x).square().mean() * values.scale
                loss.backward()
                optimizer.step()
                session.log(loss=loss)
            torch.rand(1)
            tick()

    every = {"steps": 100, "seconds": None, "epochs": 1}
    expected = StruckRun(monkeypatch, tmp_path / "undisturbed", shape, every=every).result()
    found = StruckRun(monkeypatch, tmp_path / "killed", shape, every=every).result("SIGKILL", 2)
    record = read_resume(RunPaths(tmp_path / "killed").resume)
    named = [each.where for each in record.reasons if each.kind == "edited-after-resume"]
    assert named == ([place] if place else [])
    assert (found == expected) == (place is None)
    assert (record.verdict == "different") == (place is not None), "steps that were run again are compared"
