"""Runs on a device, each compared with the same run killed and drained. The same bodies run on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import trainerd
from tests.support.in_process import Loop, Tick, attempt, disturbed, undisturbed
from tests.support.in_process_drain import drained_at
from tests.support.training_runs import result_of

HAS_CUDA = torch.cuda.is_available()
ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device")]
DEVICES = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=ON_CUDA)]
"""Where a test makes sense on both: on the CPU it rehearses what CI cannot run on a device."""

Step = Callable[[torch.Tensor], Any]
Make = Callable[[str], tuple[dict[str, Any], Step]]
"""Given a device, returns what is tracked and what makes one step of a batch and returns the loss."""

STEPS = 8


def loop_of(make: Make, device: str, *, steps: int = STEPS) -> Loop:
    """Return a run of two epochs whose batches are noise of the generator of the device."""

    def loop(session: trainerd.Session, tick: Tick) -> None:
        torch.manual_seed(5)
        tracked, step = make(device)
        session.track(**tracked)
        for _ in session.epochs(2):
            for _ in session.batches(range(steps // 2)):
                session.log(loss=step(torch.randn(4, 6, device=device)))
                tick()

    return loop


def check_exact(tmp_path: Path, make: Make, device: str) -> None:
    """Compare a run left alone with one that is killed twice, and with one that is drained and killed."""
    loop = loop_of(make, device)
    with _deterministic():
        expected = undisturbed(tmp_path / "left-alone", loop)
        assert disturbed(tmp_path / "killed", loop, (5, 2)) == expected
        run = tmp_path / "drained"
        drained_at(run, loop, 3)
        assert not attempt(run, loop, crash_at=3, steps=2)
        assert attempt(run, loop)
        assert result_of(run) == expected


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def network(device: str, **options: Any) -> torch.nn.Module:
    """Return a small network with dropout."""
    return torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1)
    ).to(device, **options)


def plain_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """Return a step that needs nothing but these two."""

    def step(batch: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(batch).float().pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step
