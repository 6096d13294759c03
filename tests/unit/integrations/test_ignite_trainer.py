"""An attached Ignite trainer: a crash or a drain anywhere leads to the state of an undisturbed run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

import trainerd
from tests.support.in_process import attempt
from tests.support.in_process_drain import drained_at
from trainerd.errors import UserError

ignite = pytest.importorskip("ignite", reason="pytorch-ignite is not installed")

from ignite.engine import Engine, Events  # noqa: E402
from ignite.handlers import Checkpoint, EarlyStopping, EMAHandler  # noqa: E402
from ignite.metrics import Average, RunningAverage  # noqa: E402

from trainerd.integrations.ignite import StoreSaver, attach  # noqa: E402

pytestmark = pytest.mark.torch


class Noisy(Dataset[Any]):
    def __init__(self, length: int = 10) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index / self.length]) + torch.rand(1) * 0.1 + random.random() * 0.01


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in range(10):
            yield torch.tensor([index / 10]) + torch.rand(1) * 0.1


def program(
    out: Path,
    found: dict[str, Any],
    *,
    epochs: int = 3,
    accumulate: int = 1,
    length: int | None = None,
    is_stream: bool = False,
) -> Callable[[trainerd.Session, Any], None]:
    """Return a training script that notes what it ends with in `found`."""

    def train(session: trainerd.Session, tick: Any) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Dropout(0.4), torch.nn.Linear(3, 1))
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
        epochs_logged: list[Any] = session.value("epochs", []).value

        def step(engine: Any, x: torch.Tensor) -> float:
            tick()
            if (engine.state.iteration - 1) % accumulate == 0:
                optimizer.zero_grad()
            loss = (model(x) - 1).square().mean() / accumulate
            loss.backward()
            if engine.state.iteration % accumulate == 0:
                optimizer.step()
            return loss.item()

        trainer, evaluator = Engine(step), Engine(lambda _engine, x: model(x).mean().item())
        RunningAverage(output_transform=float).attach(trainer, "running")
        Average(output_transform=float).attach(trainer, "average")
        Average(output_transform=float).attach(evaluator, "value")
        ema = EMAHandler(model, momentum=0.1)
        ema.attach(trainer, name="momentum", event=Events.ITERATION_COMPLETED)
        attach(trainer, session, evaluators=[evaluator])

        @trainer.on(Events.EPOCH_COMPLETED)
        def end(engine: Any) -> None:
            tick()
            evaluator.run(DataLoader(Noisy(4), batch_size=2))
            scheduler.step()
            torch.rand(1)
            tick()
            epochs_logged.append(
                [engine.state.epoch, dict(engine.state.metrics), evaluator.state.metrics["value"]]
            )

        stopping = EarlyStopping(50, lambda engine: engine.state.metrics["value"], trainer)
        evaluator.add_event_handler(Events.COMPLETED, stopping)
        best = Checkpoint(
            {"model": model},
            StoreSaver(out / "best", require_empty=False),
            n_saved=2,
            score_function=lambda engine: engine.state.metrics["value"],
            score_name="value",
            global_step_transform=lambda *_: trainer.state.epoch,
        )
        evaluator.add_event_handler(Events.COMPLETED, best)
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)
        data = Stream() if is_stream else Noisy()
        loader = DataLoader(data, batch_size=3, shuffle=None if is_stream else True)
        trainer.run(loader, max_epochs=epochs, epoch_length=length)
        found.update(
            model=[each.tolist() for each in model.state_dict().values()],
            ema=[each.tolist() for each in ema.ema_model.state_dict().values()],
            optimizer=repr(optimizer.state_dict()),
            scheduler=scheduler.state_dict()["_last_lr"],
            stopping=dict(stopping.state_dict()),
            best=sorted(path.name for path in (out / "best").iterdir()),
            saved=[list(each) for each in best.state_dict()["_saved"]],
            epochs=epochs_logged,
            counters=(trainer.state.iteration, trainer.state.epoch),
            random=torch.get_rng_state().tolist()[:40],
        )

    return train


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 4},
    "other-length": {"length": 5},
    "stream": {"is_stream": True},
    "stream-of-length": {"is_stream": True, "length": 3},
}
"""Of a loader with 4 batches: 3 epochs have 12 iterations, or 15."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}

    def of(variant: str) -> dict[str, Any]:
        if variant not in known:
            out = tmp_path_factory.mktemp(variant)
            known[variant] = {}
            assert attempt(out / "run", program(out, known[variant], **VARIANTS[variant]), steps=100)
        return known[variant]

    return of


# Of the six calls of an epoch of four batches, four are steps; the fifth and the sixth are in its end.
@pytest.mark.parametrize(
    ("variant", "crashes"),
    [
        ("plain", (4,)),
        pytest.param("plain", (5,), marks=pytest.mark.slow),
        pytest.param("plain", (6,), marks=pytest.mark.slow),
        ("plain", (10, 4, 3)),
        pytest.param("plain", (18,), marks=pytest.mark.slow),
        pytest.param("accumulated", (7, 9), marks=pytest.mark.slow),
        pytest.param("other-length", (4, 6), marks=pytest.mark.slow),
        ("stream", (3,)),
        pytest.param("stream", (6, 5), marks=pytest.mark.slow),
        ("stream-of-length", (3,)),
        pytest.param("stream-of-length", (7, 4), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_crashes_change_nothing(
    variant: str, crashes: tuple[int, ...], tmp_path: Path, undisturbed: Any
) -> None:
    found: dict[str, Any] = {}
    train = program(tmp_path, found, **VARIANTS[variant])
    for crash_at in crashes:
        assert not attempt(tmp_path / "run", train, crash_at=crash_at, steps=2)
    assert attempt(tmp_path / "run", train, steps=2)
    assert found == undisturbed(variant)
    assert verdict(tmp_path) != "different"


@pytest.mark.parametrize(
    ("variant", "call"),
    [
        ("plain", 1),
        pytest.param("plain", 4, marks=pytest.mark.slow),
        ("plain", 5),
        pytest.param("plain", 6, marks=pytest.mark.slow),
        pytest.param("plain", 17, marks=pytest.mark.slow),
        ("accumulated", 8),
        pytest.param("other-length", 13, marks=pytest.mark.slow),
        ("stream", 3),
        ("stream-of-length", 3),
        pytest.param("stream-of-length", 12, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_drain_changes_nothing(variant: str, call: int, tmp_path: Path, undisturbed: Any) -> None:
    found: dict[str, Any] = {}
    train = program(tmp_path, found, **VARIANTS[variant])
    drained_at(tmp_path / "run", train, call)
    assert attempt(tmp_path / "run", train, steps=100)
    assert found == undisturbed(variant)
    assert verdict(tmp_path) != "different"


def verdict(out: Path) -> str:
    return str(json.loads((out / "run" / "resume.json").read_text())["verdict"])


def test_more_epochs_continue_and_a_finished_run_trains_nothing(tmp_path: Path, undisturbed: Any) -> None:
    ticks: list[int] = []
    found: dict[str, Any] = {}
    for epochs in (2, 2, 3):
        calls = [0]

        def train(session: Any, tick: Any, epochs: int = epochs, calls: list[int] = calls) -> None:
            def count() -> None:
                calls[0] += 1
                tick()

            program(tmp_path, found, epochs=epochs)(session, count)

        assert attempt(tmp_path / "run", train, steps=100)
        ticks.append(calls[0])
    assert ticks == [12, 0, 6]
    assert found == undisturbed("plain")
    assert verdict(tmp_path) != "different"


def test_a_trainer_is_attached_once(tmp_path: Path) -> None:
    trainer = Engine(lambda _engine, _batch: None)
    with trainerd.session(tmp_path, strict=False) as session:
        attach(trainer, session)
        with pytest.raises(UserError, match="attached to a session already"):
            attach(trainer, session)
        trainer.run([1, 2], max_epochs=1)
