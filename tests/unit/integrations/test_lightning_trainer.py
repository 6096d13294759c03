"""A Lightning trainer with the callback: a crash or a drain anywhere leads to an undisturbed run's state."""

from __future__ import annotations

import copy
import gc
import json
import logging
import pickle
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

import trainerd
from tests.support.in_process import attempt
from tests.support.in_process_drain import drained_at
from tests.support.lightning_packages import lightning_or_skip
from trainerd.errors import UserError

pl = lightning_or_skip("lightning")

from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from torchmetrics import MeanSquaredError  # noqa: E402

from trainerd.integrations.lightning import TrainerdCallback  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


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


class Drawn(Stream):
    """Draws from a generator of its own, which goes on from pass to pass."""

    def __init__(self) -> None:
        self.generator = random.Random(4)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for x in super().__iter__():
            yield x + self.generator.random()


class Placed(Stream):
    """Goes back to its beginning once it is asked for a sample that it does not have."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.at < 10:
            self.at += 1
            yield torch.tensor([self.at / 10])
        self.at = 0


class Counting(Noisy):
    """Counts its reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def __getitem__(self, index: int) -> torch.Tensor:
        self.reads += 1
        return super().__getitem__(index) + self.reads / 50


class Turning(Sampler[int]):
    """Begins each pass one sample later."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter([(3 * number + self.passes) % 10 for number in range(10)])


class Module(pl.LightningModule):
    def __init__(self, tick: Callable[[], None], *, plateau: bool, validates_often: bool) -> None:
        super().__init__()
        self.tick = tick
        self.plateau = plateau
        self.net = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Dropout(0.4), torch.nn.Linear(3, 1))
        self.error, self.valid_error = MeanSquaredError(), MeanSquaredError()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.tick()
        x = batch["a"] + batch["b"].mean() if isinstance(batch, dict) else batch
        found = self.net(x)
        loss = (found - 1).square().mean()
        self.error(found, torch.ones_like(found))
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("most", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("error", self.error, on_step=False, on_epoch=True)
        if batch_idx == 0:
            self.log("first", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.tick()
        found = self.net(batch)
        self.valid_error(found, torch.ones_like(found))
        self.log("valid", (found - 1).square().mean() + torch.rand(()) * 0.01)
        self.log("valid_error", self.valid_error)

    def on_train_epoch_end(self) -> None:
        torch.rand(1)
        self.tick()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.05)
        if self.plateau:
            scheduler: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        else:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "valid"}}


class LateTick(Module):
    """May crash after the files of an epoch were written."""

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        super().lr_scheduler_step(scheduler, metric)
        self.tick()


class TwoOptimizers(Module):
    """Optimizes by hand, and lets gradients of the second optimizer stay over batches."""

    automatic_optimization = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        self.manual_backward(super().training_step(batch, batch_idx))
        first.step()
        first.zero_grad()
        if batch_idx % 3 == 2:
            second.step()
            second.zero_grad()
            self.lr_schedulers().step()

    def configure_optimizers(self) -> Any:
        first = torch.optim.SGD(self.net[0].parameters(), 0.05, momentum=0.9)
        second = torch.optim.Adam(self.net[2].parameters(), 0.05)
        return [first, second], [torch.optim.lr_scheduler.StepLR(second, 1, 0.9)]


class Epochs(Callback):
    """Notes the metrics of each epoch, in state of its own."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        self.seen.append([trainer.current_epoch, values])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


STREAMS = {"stream": Stream, "drawn": Drawn, "placed": Placed}


def loader_of(kind: str) -> Any:
    def batches(length: int = 10) -> DataLoader[Any]:
        return DataLoader(Noisy(length), batch_size=3, shuffle=True)

    if kind in STREAMS:
        return DataLoader(STREAMS[kind](), batch_size=3)
    if kind == "counting":
        return DataLoader(Counting(), batch_size=3, shuffle=True)
    if kind == "counting in workers":
        return DataLoader(Counting(), batch_size=3, shuffle=True, num_workers=1)
    if kind == "turning":
        return DataLoader(Noisy(), batch_size=3, sampler=Turning())
    return {"a": batches(), "b": batches(5)} if kind == "cycled" else batches()


def program(
    out: Path,
    found: dict[str, Any],
    *,
    epochs: int = 3,
    accumulate: int = 1,
    every: float = 1.0,
    plateau: bool = True,
    data: str = "map",
    module: type[Module] = Module,
    stop_after: float | None = None,
    logger: bool = False,
    best_in_logs: bool = False,
    **settings: Any,
) -> Callable[[trainerd.Session, Any], None]:
    """Return a training script that notes what it ends with in `found`."""

    def train(session: trainerd.Session, tick: Any) -> None:
        model = module(tick, plateau=plateau, validates_often=every < 1)
        best = ModelCheckpoint(
            None if best_in_logs else out / "best", monitor="valid", save_top_k=2, save_last=True
        )
        stopping = EarlyStopping("valid", patience=50, stopping_threshold=stop_after)
        seen = Epochs()
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=CSVLogger(out) if logger else False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accumulate_grad_batches=accumulate,
            val_check_interval=every,
            callbacks=[TrainerdCallback(session=session), best, stopping, seen],
            default_root_dir=out,
            **settings,
        )
        trainer.fit(model, loader_of(data), DataLoader(Noisy(4), batch_size=2, shuffle=True))
        found.update(
            model=[each.tolist() for each in model.state_dict().values()],
            optimizers=repr([each.state_dict() for each in trainer.optimizers]),
            schedulers=repr([each.scheduler.state_dict() for each in trainer.lr_scheduler_configs]),
            stopping=repr(stopping.state_dict()),
            best=sorted(path.name for path in Path(best.dirpath).iterdir()),
            scores={Path(name).name: float(score) for name, score in best.best_k_models.items()},
            seen=seen.seen,
            counters=(trainer.global_step, trainer.current_epoch, trainer.fit_loop.total_batch_idx),
            random=torch.get_rng_state().tolist()[:40],
        )

    return train


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 4},
    "stepwise": {"plateau": False, "every": 0.5, "accumulate": 2},
    "late": {"module": LateTick},
    "by-hand": {"module": TwoOptimizers},
    "stream": {"data": "stream"},
    "limited-stream": {"data": "stream", "limit_train_batches": 4},
    "cycled": {"data": "cycled"},
    **{data: {"data": data} for data in ("drawn", "placed", "counting", "turning")},
    "max-steps": {"epochs": -1, "max_steps": 10},
}
"""Of a loader with 4 batches; after sanity checks of two calls, an epoch has seven calls, or nine."""


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


def verdict(out: Path) -> str:
    return str(json.loads((out / "run" / "resume.json").read_text())["verdict"])


# After the sanity check (calls 1 and 2): four steps, two batches of the validation, the end of the epoch.
@pytest.mark.parametrize(
    ("variant", "crashes"),
    [
        pytest.param(*("plain", (5,)), marks=pytest.mark.slow),
        pytest.param(*("plain", (7,)), marks=pytest.mark.slow),
        pytest.param(*("plain", (8,)), marks=pytest.mark.slow),
        ("plain", (9,)),
        ("plain", (12, 6, 3)),
        pytest.param(*("plain", (23,)), marks=pytest.mark.slow),
        pytest.param(*("accumulated", (12, 9)), marks=pytest.mark.slow),
        ("stepwise", (6, 9)),
        ("late", (10,)),
        pytest.param(*("stepwise", (11, 5)), marks=pytest.mark.slow),
        ("by-hand", (7, 8)),
        pytest.param(*("stream", (7, 9)), marks=pytest.mark.slow),
        pytest.param(*("cycled", (7, 10)), marks=pytest.mark.slow),
        pytest.param(*("max-steps", (7, 10)), marks=pytest.mark.slow),
        ("drawn", (10, 3)),  # at the beginning of an epoch, and after two steps in it
        ("placed", (10, 3)),
        ("counting", (7, 3)),
        ("turning", (10, 3)),
        *(
            pytest.param(data, (call, 3), marks=pytest.mark.slow)
            for data in ("drawn", "placed", "counting", "turning")
            for call in (5, 6, 8, 9, 11, 12)
        ),
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


def test_a_dataset_that_changes_in_workers_is_named_and_one_in_this_process_is_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for data in ("counting", "counting in workers"):
        assert attempt(tmp_path / data / "run", program(tmp_path / data, {}, data=data, epochs=1))
        is_named = "Counting: its reads changed as samples were read" in capfd.readouterr().err
        assert is_named == (data == "counting in workers")


@pytest.mark.parametrize(
    ("variant", "call"),
    [
        pytest.param(*("plain", 3), marks=pytest.mark.slow),
        ("plain", 6),
        pytest.param(*("plain", 7), marks=pytest.mark.slow),
        ("plain", 9),
        pytest.param(*("plain", 22), marks=pytest.mark.slow),
        pytest.param(*("accumulated", 11), marks=pytest.mark.slow),
        pytest.param(*("stepwise", 6), marks=pytest.mark.slow),
        ("stepwise", 14),
        pytest.param(*("by-hand", 4), marks=pytest.mark.slow),
        ("stream", 11),
        ("limited-stream", 5),
        pytest.param(*("limited-stream", 11), marks=pytest.mark.slow),
        ("cycled", 5),
        pytest.param(*("stream", 6), marks=pytest.mark.slow),
        pytest.param(*("max-steps", 6), marks=pytest.mark.slow),
        ("max-steps", 9),
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


@pytest.mark.slow
def test_loggers_and_the_folder_of_checkpoints_are_the_same_in_each_attempt(tmp_path: Path) -> None:
    rows: list[str] = []
    for crashes in ((), (9,), (12, 3)):
        out = tmp_path / str(len(rows))

        def train(session: Any, tick: Any, out: Path = out) -> None:
            program(out, {}, epochs=2, logger=True, log_every_n_steps=1, best_in_logs=True)(session, tick)

        for crash_at in crashes:
            assert not attempt(out / "run", train, crash_at=crash_at, steps=3)
        assert attempt(out / "run", train, steps=3)
        (version,) = (out / "lightning_logs").iterdir()
        assert len(list((version / "checkpoints").iterdir())) == 3
        rows.append((version / "metrics.csv").read_text())
    assert rows[0].count("\n") > 8
    assert rows[1:] == rows[:1] * 2


def test_more_epochs_continue_and_a_finished_run_trains_nothing(
    tmp_path: Path, undisturbed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, Any] = {}
    counts: list[int] = []
    for epochs in (2, 2, 3):
        calls: list[int] = []

        def train(session: Any, tick: Any, epochs: int = epochs, calls: list[int] = calls) -> None:
            program(tmp_path, found, epochs=epochs)(session, lambda: calls.append(1))

        capsys.readouterr()
        assert attempt(tmp_path / "run", train, steps=100)
        counts.append(len(calls))
        assert ("this run is finished" in capsys.readouterr().err) == (len(counts) == 2)
    assert counts == [16, 0, 7]
    assert found == undisturbed("plain")


def test_a_run_that_was_stopped_early_is_finished(tmp_path: Path) -> None:
    calls: list[int] = []
    for _ in range(2):

        def train(session: Any, tick: Any) -> None:
            program(tmp_path, {}, epochs=5, stop_after=1e6)(session, lambda: calls.append(1))

        assert attempt(tmp_path / "run", train, steps=100)
    assert len(calls) == 2 + 7


def test_a_trainer_has_its_methods_back(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback = TrainerdCallback(tmp_path / "run", strict=False)
        trainer = pl.Trainer(max_epochs=1, callbacks=[callback], **QUIET)
        module = Module(lambda: None, plateau=False, validates_often=False)
        trainer.fit(module, loader_of("map"), DataLoader(Noisy(4)))
    assert "run" not in vars(trainer.fit_loop)
    assert callback.session is not None
    assert callback.session.epoch == 1
    trainer.validate(module, DataLoader(Noisy(4)))


def test_a_copy_of_a_callback_has_its_settings_and_no_session(tmp_path: Path) -> None:
    callback = TrainerdCallback(tmp_path / "run", strict=False, keep_last=2)
    trainer = pl.Trainer(max_epochs=1, callbacks=[callback], **QUIET)
    module = Module(gc.isenabled, plateau=False, validates_often=False)  # any function that can be pickled
    trainer.fit(module, loader_of("map"), DataLoader(Noisy(4)))
    torch.save(module, tmp_path / "module.pt")
    copied = copy.deepcopy(callback)
    assert copied.session is None
    assert copied._settings == {"strict": False, "keep_last": 2}
    with trainerd.session(tmp_path / "other", strict=False) as session:
        copied = pickle.loads(pickle.dumps(TrainerdCallback(session=session)))
        with pytest.raises(UserError, match="a copy of one that had an open session"):
            pl.Trainer(max_epochs=1, callbacks=[copied], **QUIET).fit(module, loader_of("map"))


@pytest.mark.parametrize("takes", [True, False])
def test_the_callback_takes_signals_only_if_its_session_does(tmp_path: Path, takes: bool) -> None:
    former = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []
    module = Module(
        lambda: seen.append(signal.getsignal(signal.SIGTERM)), plateau=False, validates_often=False
    )
    callback = TrainerdCallback(tmp_path / "run", strict=False, signals=takes)
    pl.Trainer(max_epochs=1, callbacks=[callback], **QUIET).fit(module, loader_of("map"), None)
    assert {type(getattr(handler, "__self__", None)).__name__ == "DrainFlag" for handler in seen} == {takes}
    assert signal.getsignal(signal.SIGTERM) == former


def test_a_trainer_that_is_copied_in_its_fit_is_an_ordinary_one(tmp_path: Path) -> None:
    copies: list[Any] = []

    class Copies(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            copies.append(copy.deepcopy(trainer.fit_loop))

    module = Module(gc.isenabled, plateau=False, validates_often=False)
    callbacks = [TrainerdCallback(tmp_path / "run", strict=False), Copies()]
    trainer = pl.Trainer(max_epochs=1, callbacks=callbacks, **QUIET)
    trainer.fit(module, loader_of("map"), None)
    assert copies[0].run.__func__ is type(trainer.fit_loop).run
    copied = copy.deepcopy(trainer.fit_loop._combined_loader)
    assert isinstance(copied.flattened[0], DataLoader)


def test_a_session_and_settings_of_one_are_refused(tmp_path: Path) -> None:
    with trainerd.session(tmp_path, strict=False) as session:
        with pytest.raises(UserError, match="not both"):
            TrainerdCallback(tmp_path, session=session)
        session.epochs(1)
