"""Lightning: a trainer with the callback is drained, resumed in the middle of an epoch, and continued.

The boundary of a step comes after its hooks and before a validation that follows it, that of an epoch after
all hooks and schedulers of its end. Lightning has hooks in neither place: methods are replaced on the
instances of the trainer until `fit` ends, and a version of Lightning without them is refused.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import trainerd
from trainerd.contract.counted import counted
from trainerd.errors import UserError
from trainerd.training.data.exact_loader import exact
from trainerd.training.data.pass_memory import PassMemory
from trainerd.training.integrations.lightning_data import EpochLoader, FeedLoader, as_it_is
from trainerd.training.integrations.lightning_loggers import (
    put_back_loggers,
    record_versions,
    recorded_loggers,
)
from trainerd.training.integrations.lightning_ranks import check_ranks
from trainerd.training.integrations.lightning_state import LightningState
from trainerd.training.integrations.replaced_methods import check_methods
from trainerd.training.interruption.leaving import say
from trainerd.training.state.kept_gradients import KeptGradients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trainerd.training.drive import Drive, DrivenPlace
    from trainerd.training.session import Session

_PACKAGES: Final = ("pytorch_lightning", "lightning.pytorch")
_STRATEGIES: Final = ("SingleDeviceStrategy", "DDPStrategy")
_STATE: Final = "lightning"
_GRADIENTS: Final = "lightning_gradients"


def _callback_class() -> Any:
    """Return Lightning's `Callback`, of the package that the script has imported."""
    loaded = [name for name in _PACKAGES if name in sys.modules]
    problem: ImportError | None = None
    for name in (*loaded, *reversed(_PACKAGES)):
        try:
            return importlib.import_module(name).Callback
        except ModuleNotFoundError as error:
            problem = problem or error
    raise ImportError("neither lightning nor pytorch_lightning is installed") from problem


class TrainerdCallback(_callback_class()):  # type: ignore[misc]
    """Protects ``trainer.fit``: it resumes by itself, and drains when it is asked to stop.

    Put it among the callbacks of a `Trainer` of ``lightning`` or ``pytorch_lightning``. Further settings are
    those of `trainerd.session`.

    Args:
        run_dir: As `trainerd.session` takes it.
        session: An open session instead.
        settings: As `trainerd.session` takes them.

    Raises:
        UserError: Both a session and settings of a session are given.
    """

    def __init__(
        self, run_dir: str | Path | None = None, *, session: Session | None = None, **settings: Any
    ) -> None:
        if session is not None and (run_dir is not None or settings):
            raise UserError("TrainerdCallback takes a session, or the settings of one, not both")
        self._session = session
        self._run_dir = run_dir
        self._settings = settings
        self._fit: _ProtectedFit | None = None
        self._is_copy_without_session = False

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings: a copy, such as ``torch.save(model)`` makes, has no run of its own."""
        has_lost = self._session is not None or self._is_copy_without_session
        return vars(self) | {"_fit": None, "_session": None, "_is_copy_without_session": has_lost}

    @property
    def session(self) -> Session | None:
        """The session, from ``setup`` on: to log, to report and to track."""
        return self._fit.drive.session if self._fit is not None else self._session

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002 - Lightning's names
        """Open the session, and have Lightning load what its newest checkpoint holds.

        Args:
            trainer: The trainer.
            pl_module: Its module.
            stage: Only ``fit`` opens a session.

        Raises:
            UserError: The strategy, or an option of the trainer, cannot be resumed exactly; or a setting of
                the session is not valid.
            LockedError: Another process trains the run.
            RankLostError: Other ranks did not arrive.
            SpaceError: The disk is full or read-only.
        """
        if stage != "fit":
            return
        _check(trainer)
        if self._is_copy_without_session:
            raise UserError(
                "this TrainerdCallback is a copy of one that had an open session, which cannot be copied",
                hint="give the trainer a TrainerdCallback of its own",
            )
        drive = (
            self._session.drive()
            if self._session is not None
            else trainerd.driven(self._run_dir, **self._settings)
        )
        self._fit = _ProtectedFit(trainer, drive)

    def on_validation_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Answer a request to stop during a validation between two epochs."""
        if self._fit is not None and not trainer.sanity_checking:
            self._fit.evaluation_batch_done()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Record what has ended the attempt."""
        fit, self._fit = self._fit, None
        if fit is None:
            return
        fit.let_go()
        if self._session is None and not fit.drive.is_left and not fit.drive.is_over:
            fit.drive.fail(exception)


def _check(trainer: Any) -> None:
    name = type(trainer.strategy).__name__
    if name not in _STRATEGIES:
        raise UserError(
            f"TrainerdCallback does not know how {name} keeps its state",
            hint="use strategy='auto' on one device, or strategy='ddp'",
        )
    check_ranks(trainer.global_rank, trainer.world_size, os.environ)
    fit_loop = trainer.fit_loop
    needed: dict[Any, tuple[str, ...]] = {
        fit_loop: (
            "run",
            "on_advance_start",
            "on_advance_end",
            "update_restart_stage",
            "_load_combined_loader_states",
        ),
        fit_loop.epoch_loop: ("reset", "on_run_start", "on_advance_end"),
        trainer._checkpoint_connector: ("resume_start",),  # noqa: SLF001 - see the module's docstring
        trainer._signal_connector: ("register_signal_handlers",),  # noqa: SLF001 - as above
    }
    for owner, methods in needed.items():
        check_methods(owner, methods, framework="Lightning", by="TrainerdCallback")


class _Replacement:
    """A method of a trainer while it is protected; a copy of the trainer has its former method."""

    def __init__(self, function: Callable[..., Any], former: Callable[..., Any]) -> None:
        self._function = function
        self._former = former

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)

    def __reduce__(self) -> tuple[Any, ...]:
        return as_it_is, (self._former,)


class _ProtectedFit:
    """One ``fit`` of a trainer."""

    def __init__(self, trainer: Any, drive: Drive) -> None:
        self.drive = drive
        self._trainer = trainer
        self._fit_loop = trainer.fit_loop
        self._epoch_loop = trainer.fit_loop.epoch_loop
        self._state = LightningState(trainer, self._loader_states)
        self._place: DrivenPlace | None = None
        self._step = 0
        self._is_inside = self._has_run = self._is_epoch_behind = False
        self._streams: dict[int, FeedLoader] = {}
        self._exact: dict[int, EpochLoader] = {}
        self._replaced: list[tuple[Any, str]] = []
        self._sanity_steps = trainer.num_sanity_val_steps
        saved = drive.saved_state(_STATE)
        drive.session.track(**{_STATE: self._state})
        self._former_run = self._replace(self._fit_loop, "run", self._run)
        self._former_start = self._replace(self._fit_loop, "on_advance_start", self._start_epoch)
        self._former_end = self._replace(self._fit_loop, "on_advance_end", self._end_epoch)
        self._former_load = self._replace(self._fit_loop, "_load_combined_loader_states", self._load_data)
        self._former_reset = self._replace(self._epoch_loop, "reset", self._reset_epoch)
        self._former_enter = self._replace(self._epoch_loop, "on_run_start", self._enter_epoch)
        self._former_step = self._replace(self._epoch_loop, "on_advance_end", self._end_step)
        signals = trainer._signal_connector  # noqa: SLF001 - see the module's docstring
        self._former_signals = self._replace(signals, "register_signal_handlers", self._take_signals)
        if saved is not None:
            self._state.saved = saved
            put_back_loggers(trainer, saved["loggers"])
            trainer.num_sanity_val_steps = 0  # it would reset the progress of the validation loop
            self._replace(trainer._checkpoint_connector, "resume_start", self._resume_start)  # noqa: SLF001
        else:
            put_back_loggers(trainer, recorded_loggers(drive.session.run_dir))
        record_versions(trainer, drive.session.run_dir)

    def _replace(self, owner: Any, name: str, function: Callable[..., Any]) -> Any:
        former = getattr(owner, name)
        setattr(owner, name, _Replacement(function, former))
        self._replaced.append((owner, name))
        return former

    def let_go(self) -> None:
        """Give the trainer its methods back."""
        while self._replaced:
            delattr(*self._replaced.pop())
        self._trainer.num_sanity_val_steps = self._sanity_steps

    # ------------------------------------------------------------------ the beginning

    def _resume_start(self, checkpoint_path: Any = None, weights_only: Any = None) -> None:  # noqa: ARG002
        if checkpoint_path:
            say(f"trainerd: this run goes on from its own checkpoint, not from ckpt_path={checkpoint_path}")
        connector = self._trainer._checkpoint_connector  # noqa: SLF001 - see the module's docstring
        connector._ckpt_path = None  # noqa: SLF001 - as above
        connector._loaded_checkpoint = self._state.checkpoint()  # noqa: SLF001 - as above

    def _take_signals(self) -> None:
        # Lightning must find the handlers that were there before the session's: it puts them back at the end.
        session = self.drive.session
        had_them = session.hand_over_signals()
        try:
            self._former_signals()
        finally:
            if had_them:
                session.take_signals()

    def _run(self) -> None:
        self._former_run()
        if self._place is None:
            self._begin()  # there is nothing to train on
        assert self._place is not None
        if not self._has_run and self._place.is_resumed:
            self._put_back()
            if self._place.is_finished:
                say(
                    f"trainerd: this run is finished after {counted(self._place.epoch, 'epoch')}: nothing is "
                    "trained. A larger max_epochs or max_steps continues it"
                )
            elif self._fit_loop.done:  # it ended after the last epoch, before the hooks of the end
                self._fit_loop.on_run_start()
                self._fit_loop.on_run_end()
        self.let_go()
        self.drive.finish()

    def _load_data(self) -> None:
        """Replace the loaders, just before the first iterator over them is made."""
        is_first = self._place is None
        loader = self._fit_loop._combined_loader  # noqa: SLF001 - see the module's docstring
        is_cycled = loader._mode == "max_size_cycle"  # noqa: SLF001 - as above
        loader.flattened = [
            self._loader(number, each, is_cycled=is_cycled) for number, each in enumerate(loader.flattened)
        ]
        if is_first:
            self._begin()
        assert self._place is not None
        if not self._place.is_resumed:
            self._former_load()

    def _loader(self, number: int, loader: Any, *, is_cycled: bool) -> Any:
        if isinstance(loader, (EpochLoader, FeedLoader)):
            return loader
        with contextlib.suppress(UserError):  # an iterable dataset, or no DataLoader at all
            found = exact(loader, self.drive.seed)
            saved = self._state.of_loader(number) if number not in self._exact else None
            self._exact[number] = EpochLoader(
                found,
                self._position,
                memory=PassMemory(found, saved, self.drive.suspect),
                is_made_for=self._has_own_loader,
                is_cycled=is_cycled,
            )
            return self._exact[number]
        if number not in self._streams:
            self._streams[number] = FeedLoader(self.drive.feed(), self._position, self._is_fetched_ahead)
            self.drive.session.track(**{f"lightning_data_{number}": self._streams[number]})
        return self._streams[number].over(loader)

    def _loader_states(self) -> dict[str, Any]:
        states = {str(number): each.memory.state_dict() for number, each in self._exact.items()}
        return {number: state for number, state in states.items() if state}

    def _has_own_loader(self, epoch: int) -> bool:
        epochs = int(self._trainer.reload_dataloaders_every_n_epochs or 0)
        return epochs > 0 and epoch % epochs == 0

    def _is_fetched_ahead(self) -> bool:
        fetcher = self._fit_loop._data_fetcher  # noqa: SLF001 - see the module's docstring
        return fetcher is None or fetcher.length is None

    def _position(self) -> tuple[int, int]:
        """Return the epoch that begins, and how many of its batches are done."""
        epoch = self._fit_loop.epoch_progress.current.processed
        if self._is_epoch_behind:
            return epoch + 1, 0
        is_inside = self._fit_loop.restarting
        # Of a checkpoint that was written at the end of a batch, that one is processed and not yet completed.
        return epoch, self._epoch_loop.batch_progress.current.processed if is_inside else 0

    def _count_epochs_from(self) -> None:
        """Count epochs from the first one in which this run trains.

        A checkpoint that ``ckpt_path`` names may hold all batches of an epoch whose end is still to come. One
        that was written at the last batch has Lightning begin with the next epoch, one that was written after
        a validation has it end that epoch first, without a step.
        """
        fit_loop, progress = self._fit_loop, self._epoch_loop.batch_progress
        fit_loop.update_restart_stage()  # `fit_loop.reset`, which comes later, goes by it
        is_trained = bool(fit_loop.restarted_mid_epoch and progress.is_last_batch)
        self._is_epoch_behind = is_trained and bool(self._epoch_loop.restarted_on_train_batch_end)
        self._state.epoch_offset = fit_loop.epoch_progress.current.processed + is_trained

    def _begin(self) -> None:
        trainer, fit_loop, state = self._trainer, self._fit_loop, self._state
        gradients = KeptGradients(trainer.optimizers, self._needs_gradients)
        self.drive.session.track(**{_GRADIENTS: gradients})
        if state.saved is None:
            self._count_epochs_from()
        is_limited = fit_loop.max_epochs is not None and fit_loop.max_epochs >= 0
        epochs = max(fit_loop.max_epochs - state.epoch_offset, 0) if is_limited else None
        # What trains is hidden in the trainer, so that an audit of the first step would find nothing.
        self._place = place = self.drive.begin(epochs=epochs, is_audited=False)
        self._step = place.step
        if not place.is_resumed:
            return
        assert state.saved is not None
        self._is_inside = place.batch > 0 or place.is_epoch_trained
        if not self._is_inside:
            self._end_restart()
        state.put_back_savers()
        limits = (fit_loop.max_epochs, trainer.max_steps)
        if state.saved["should_stop"] and not _is_larger(limits, state.saved["limits"]):
            trainer.should_stop = True

    def _needs_gradients(self) -> bool:
        is_automatic = self._trainer.lightning_module.automatic_optimization
        return not is_automatic or self._epoch_loop._should_accumulate()  # noqa: SLF001

    def _end_restart(self) -> None:
        """Have the loops go on as if they were not resumed, or Lightning leaves out work at the end."""
        self._fit_loop._restarting = False  # noqa: SLF001 - its setter keeps it if max_steps is set
        self._epoch_loop.restarting = False

    def _put_back(self) -> None:
        if self._place is not None and self._place.is_resumed:
            self._state.put_back()
            self.drive.put_back(_GRADIENTS, generators=True)

    # ------------------------------------------------------------------ boundaries

    def _start_epoch(self) -> None:
        self._is_epoch_behind = False  # by now Lightning counts it
        if not self._has_run:
            self._has_run = True
            self._put_back()
        self._former_start()

    def _reset_epoch(self) -> None:
        with _no_warning_of_loaders():
            self._former_reset()
        self._end_restart()

    def _enter_epoch(self, data_fetcher: Any) -> None:
        self._former_enter(data_fetcher)
        is_inside, self._is_inside = self._is_inside, False
        if is_inside:
            self._former_step(data_fetcher)  # the boundary was before the rest of this step

    def _end_step(self, data_fetcher: Any) -> None:
        self._step += 1
        loop = self._epoch_loop
        self.drive.step_done(
            self._step,
            self._epoch,
            loop.batch_progress.current.completed,
            loop._is_training_done,  # noqa: SLF001 - see the module's docstring
        )
        self._former_step(data_fetcher)

    def evaluation_batch_done(self) -> None:
        if self._place is not None and not self.drive.is_over:
            self.drive.evaluation_batch_done()

    def _end_epoch(self) -> None:
        epoch = self._epoch
        self._former_end()
        if epoch >= 0:
            self.drive.epoch_done(epoch)

    @property
    def _epoch(self) -> int:
        return int(self._fit_loop.epoch_progress.current.processed) - self._state.epoch_offset


def _is_larger(limits: tuple[Any, ...], saved: list[Any]) -> bool:
    """Tell whether a run may train for longer than before."""
    infinite = float("inf")
    pairs = zip(limits, saved, strict=True)
    return any(
        (infinite if new in (None, -1) else new) > (infinite if old in (None, -1) else old)
        for new, old in pairs
    )


@contextmanager
def _no_warning_of_loaders() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
        yield
