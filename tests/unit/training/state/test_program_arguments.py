"""The arguments in a fingerprint are those of the script."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")

from trainerd.training.state.program_fingerprint import take_fingerprint

pytestmark = pytest.mark.torch

WORKER = "/venv/lib/python3.11/site-packages/ray/_private/workers/default_worker.py"


def arguments_of(monkeypatch, *argv: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", list(argv))
    return take_fingerprint({}, seed=0, world_size=1)["config"]["arguments"]


def test_arguments_of_a_script_count(monkeypatch):
    assert arguments_of(monkeypatch, "train.py", "--lr", "0.1") == ["--lr", "0.1"]
    assert arguments_of(monkeypatch, "default_worker.py", "--lr") == ["--lr"]
    assert arguments_of(monkeypatch) == []


def test_those_that_ray_gives_each_of_its_processes_do_not(monkeypatch):
    assert arguments_of(monkeypatch, WORKER, "--startup-token=3") == []
