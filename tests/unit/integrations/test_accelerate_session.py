"""A session for an `Accelerator` in one process: crashes anywhere, early ends of loops, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

import trainerd
from tests.support.in_process import Crash
from trainerd.errors import UserError
from trainerd.training.engine.run_saves import RunSaves

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

from accelerate import Accelerator  # noqa: E402
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin  # noqa: E402

from trainerd.integrations.accelerate import session as accelerated_session  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.slow]


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 14

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index / 14]) + 0.1 * torch.rand(1)


class Counted:
    """Something that a script registers for checkpointing."""

    def __init__(self) -> None:
        self.number = 0

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.number = state.get("number", 0)


def crash_if(is_there: bool) -> None:
    if is_there:
        raise Crash


def accelerator_of(steps: int = 1, *, joins_epochs: bool = False, seedable: bool = False) -> Any:
    plugin = GradientAccumulationPlugin(num_steps=steps, sync_with_dataloader=not joins_epochs)
    data = DataLoaderConfiguration(use_seedable_sampler=seedable)
    return Accelerator(cpu=True, gradient_accumulation_plugin=plugin, dataloader_config=data)


def train(
    run: Path,
    *,
    crash_at: int | None = None,
    steps: int = 1,
    joins_epochs: bool = False,
    seedable: bool = False,
    leaves_at: int | None = None,
) -> dict[str, Any] | None:
    """Make one attempt; return what it ends with, None if it crashed."""
    accelerator = accelerator_of(steps, joins_epochs=joins_epochs, seedable=seedable)
    torch.manual_seed(5)
    model: Any = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Dropout(0.4), torch.nn.Linear(3, 1))
    optimizer: Any = torch.optim.Adam(model.parameters(), 0.05)
    scheduler: Any = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.7)
    counted = Counted()
    accelerator.register_for_checkpointing(counted)
    model, optimizer, scheduler, loader = accelerator.prepare(
        model, optimizer, scheduler, DataLoader(Noisy(), batch_size=4, shuffle=True)
    )
    calls, synced = 0, []
    every = {"steps": 1, "seconds": None, "epochs": 1}
    try:
        with (
            mock.patch.object(RunSaves, "flush_held", lambda saves: saves.newest),
            accelerated_session(accelerator, run, every=every) as session,
        ):
            session.track(model=model, optimizer=optimizer, scheduler=scheduler)
            assert session.length(loader) == 4
            for _ in session.epochs(3):
                for x in session.batches(loader):
                    with accelerator.accumulate(model):
                        loss = (model(x) - 1).square().mean()
                        accelerator.backward(loss)
                        optimizer.step()
                        scheduler.step()
                        optimizer.zero_grad()
                    calls += 1
                    counted.number += 1
                    synced.append(accelerator.sync_gradients)
                    crash_if(calls == crash_at)
                    session.log(loss=loss)
                    if session.batch == leaves_at:
                        break
                assert not accelerator.gradient_state.in_dataloader
    except Crash:
        return None
    return {
        "model": [each.tolist() for each in model.state_dict().values()],
        "optimizer": repr(optimizer.state_dict()),
        "scheduler": scheduler.state_dict(),
        "counted": counted.number,
        "step": accelerator.step,
        "steps": session.step,
        "synced": synced,
    }


def assert_crashes_change_nothing(
    tmp_path: Path, crashes: tuple[int, ...], **settings: Any
) -> dict[str, Any]:
    plain = train(tmp_path / "plain", **settings)
    for crash_at in crashes:
        assert train(tmp_path / "crashed", crash_at=crash_at, **settings) is None
    crashed = train(tmp_path / "crashed", **settings)
    assert plain is not None
    assert crashed is not None
    trained = len(crashed.pop("synced"))
    assert crashed == {name: value for name, value in plain.items() if name != "synced"}
    assert trained < len(plain["synced"]), "it has gone on, and not begun again"
    return plain


def test_crashes_within_epochs_change_nothing(tmp_path: Path) -> None:
    plain = assert_crashes_change_nothing(tmp_path, (3, 6))
    assert plain["steps"] == plain["counted"] == 12


def test_a_step_takes_the_batches_that_the_accelerator_says(tmp_path: Path) -> None:
    plain = assert_crashes_change_nothing(tmp_path, (2, 5), steps=3)
    assert plain["synced"] == [False, False, True, True] * 3, "the last batch ends a shorter step"
    assert plain["steps"] == 6


def test_gradients_that_go_over_the_end_of_an_epoch_are_saved(tmp_path: Path) -> None:
    plain = assert_crashes_change_nothing(tmp_path, (2, 4), steps=3, joins_epochs=True)
    assert plain["synced"] == [False, False, True] * 4


def test_a_seedable_sampler_is_resumed_too(tmp_path: Path) -> None:
    assert_crashes_change_nothing(tmp_path, (6,), seedable=True)


def test_a_loop_that_is_left_ends_for_accelerate_as_well(tmp_path: Path) -> None:
    plain = assert_crashes_change_nothing(tmp_path, (2,), leaves_at=1)
    assert plain["steps"] == 6


def test_what_is_saved_fits_a_script_without_accelerate(tmp_path: Path) -> None:
    plain = train(tmp_path)
    model = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Dropout(0.4), torch.nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.7)
    with trainerd.session(tmp_path) as session:
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)
        session.track(accelerator=Counted(), accelerator_custom_0=Counted())
        session.resume()
    assert plain is not None
    assert [each.tolist() for each in model.state_dict().values()] == plain["model"]
    assert repr(optimizer.state_dict()) == plain["optimizer"]


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(torch.arange(6.0).reshape(6, 1))


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (lambda accelerator, session, loader: session.batches(loader, accumulate=3), "accumulate=3"),
        (
            lambda accelerator, session, loader: session.batches(
                accelerate.skip_first_batches(loader, 2), train=False
            ),
            "skip_first_batches",
        ),
        (
            lambda accelerator, session, loader: next(
                iter(session.batches(accelerator.prepare(DataLoader(Endless()))))
            ),
            "__len__",
        ),
    ],
    ids=["accumulate", "skipped", "endless"],
)
def test_what_cannot_be_exact_is_refused(
    use: Callable[[Any, Any, Any], Any], named: str, tmp_path: Path
) -> None:
    accelerator = accelerator_of(2)
    loader = accelerator.prepare(DataLoader(Noisy(), batch_size=4))
    with pytest.raises(UserError) as caught, accelerated_session(accelerator, tmp_path) as session:
        use(accelerator, session, loader)
    assert named in f"{caught.value} {caught.value.hint}"


def test_an_unknown_setting_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="evry"):
        accelerated_session(accelerator_of(), tmp_path, evry=3)


def test_an_accelerator_that_shards_the_model_is_refused(tmp_path: Path) -> None:
    accelerator = mock.Mock(distributed_type=accelerate.DistributedType.FSDP)
    with pytest.raises(UserError, match="FSDP"):
        accelerated_session(accelerator, tmp_path)
