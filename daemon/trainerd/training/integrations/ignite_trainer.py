"""Ignite: an attached trainer is drained, resumed in the middle of an epoch, and continued.

The boundary of a step comes after all handlers of ``ITERATION_COMPLETED``, that of an epoch after those of
``EPOCH_COMPLETED``, in whatever order they were added. Ignite has no public hook there, nor one for its
data iterator: five methods of the engine are replaced on the instance, and `attach` refuses an engine
without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from ignite.engine import Events

from trainerd.errors import UserError
from trainerd.training.integrations.ignite_state import EngineState, stateful_handlers
from trainerd.training.integrations.replaced_methods import check_methods
from trainerd.training.state.kept_gradients import KeptGradients

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from trainerd.training.drive import Drive, DrivenPlace
    from trainerd.training.session import Session

_REPLACED: Final = (
    "_fire_event",
    "_handle_exception",
    "_run_once_on_dataset_as_gen",
    "_run_once_on_dataset_legacy",
    "_setup_dataloader_iter",
)


def attach(trainer: Any, session: Session, *, evaluators: Sequence[Any] = ()) -> Drive:
    """Have a session protect an Ignite trainer. Its ``run`` resumes, and drains when it is asked to stop.

    Models, optimizers and schedulers are tracked as ever: ``session.track(model=model, …)``. Tracked besides
    are the engine's counters and metrics, where the data is, gradients that are accumulated, and the metrics
    and handlers with a ``state_dict`` that are attached to the trainer and the evaluators when ``run`` is
    called.

    Any loader that ``session.batches`` takes may be passed to ``run``: its order and what it draws are
    functions of the seed.

    Args:
        trainer: The `ignite.engine.Engine` that trains.
        session: An open session.
        evaluators: Engines that run between two epochs. A request to stop is answered after each of their
            batches.

    Returns:
        The drive of the session.

    Raises:
        UserError: This version of Ignite lacks a method that is replaced, or the trainer is attached already.
    """
    check_methods(trainer, _REPLACED, framework="Ignite", by="attach()")
    if "run" in vars(trainer):
        raise UserError("this trainer is attached to a session already")
    attached = _AttachedTrainer(trainer, session, evaluators)
    trainer.run = attached.run
    return attached.drive


class _AttachedTrainer:
    def __init__(self, trainer: Any, session: Session, evaluators: Sequence[Any]) -> None:
        self.drive = session.drive()
        self._trainer = trainer
        self._session = session
        self._evaluators = tuple(evaluators)
        self._state = EngineState(trainer)
        self._feed = self.drive.feed()
        self._run = trainer.run
        self._place: DrivenPlace | None = None
        self._step = self._batch = self._stepped_at = 0
        self._is_epoch_open = self._skips_batches = self._is_put_back = False
        self._names: list[str] = []
        session.track(ignite=self._state, ignite_data=self._feed)

    # ------------------------------------------------------------------ run

    def run(
        self,
        data: Any = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        epoch_length: int | None = None,
    ) -> Any:
        """Run the trainer from where the run is. One that is complete is not run again."""
        if self._place is None:
            self._place = place = self._begin(max_epochs)
            state = self._trainer.state
            if place.is_resumed and self._is_complete(place, max_epochs, max_iters):
                self._fill(state, place, max_epochs, max_iters, is_over=True)
                return state
            if place.is_resumed:
                self._fill(state, place, max_epochs, max_iters)
        self.drive.plan(max_epochs or self._trainer.state.max_epochs)
        try:
            return self._run(data, max_epochs=max_epochs, max_iters=max_iters, epoch_length=epoch_length)
        finally:
            self.drive.raise_if_left()  # a handler of exceptions may have caught it

    def _begin(self, max_epochs: int | None) -> DrivenPlace:
        self._track()
        for name in _REPLACED:
            setattr(self, f"former{name}", getattr(self._trainer, name))
            setattr(self._trainer, name, getattr(self, name))
        for evaluator in self._evaluators:
            self._listen(evaluator)
        place = self.drive.begin(epochs=max_epochs)
        self._names = list(self.drive.tracked)
        self._step, self._batch = place.step, place.batch
        self._skips_batches = place.is_epoch_trained
        self._is_epoch_open = place.batch > 0 or place.is_epoch_trained
        return place

    def _track(self) -> None:
        known = {id(getattr(value, "metric", value)) for value in self.drive.tracked.values()}
        for engine in (self._trainer, *self._evaluators):
            for name, value in stateful_handlers(engine):
                owner = getattr(value, "metric", value)
                if id(owner) in known:
                    continue
                known.add(id(owner))
                number = 0
                while f"ignite_{name}_{number}" in self.drive.tracked:
                    number += 1
                self._session.track(**{f"ignite_{name}_{number}": value})
        optimizers = [each for each in self.drive.tracked.values() if isinstance(each, torch.optim.Optimizer)]
        for optimizer in optimizers:
            optimizer.register_step_post_hook(self._note_step)
        self._session.track(
            ignite_gradients=KeptGradients(
                optimizers,
                lambda: self._place is None or self._stepped_at != self._trainer.state.iteration,
            )
        )

    def _note_step(self, *_: Any) -> None:
        self._stepped_at = self._trainer.state.iteration

    def _is_complete(self, place: DrivenPlace, max_epochs: int | None, max_iters: int | None) -> bool:
        saved = self._state.saved or {}
        if place.is_epoch_trained or place.batch:
            is_over = max_iters is not None and saved["iteration"] >= max_iters
            return place.is_finished and is_over
        if place.is_finished and saved["should_terminate"]:
            return (max_epochs or 0) <= (saved["max_epochs"] or 0)
        if max_iters is not None:
            return place.is_finished and saved["iteration"] >= max_iters
        return place.epoch >= (max_epochs if max_epochs is not None else saved["max_epochs"] or 1)

    def _fill(
        self,
        state: Any,
        place: DrivenPlace,
        max_epochs: int | None,
        max_iters: int | None,
        *,
        is_over: bool = False,
    ) -> None:
        """Put the counters into the engine: it goes on from them."""
        saved = self._state.saved or {}
        self._state.is_waiting = False
        state.iteration, state.epoch = saved["iteration"], place.epoch
        state.epoch_length = saved["epoch_length"]
        state.max_iters = max_iters
        state.max_epochs = None if max_iters is not None else max_epochs or saved["max_epochs"]
        if place.is_epoch_trained:
            state.iteration -= 1  # or Ignite takes the run for complete before the end of its last epoch
        if not is_over:
            self._trainer._init_iter = place.batch  # noqa: SLF001 - epochs may have ended early

    # ------------------------------------------------------------------ what is replaced

    def _fire_event(self, event: Any, *args: Any, **kwargs: Any) -> None:
        if event == Events.EPOCH_STARTED:
            self._before_epoch()
        self.former_fire_event(event, *args, **kwargs)  # type: ignore[attr-defined]
        if event == Events.STARTED:
            self._after_start()
        elif event == Events.ITERATION_COMPLETED:
            self._after_iteration()
        elif event == Events.EPOCH_COMPLETED:
            self._end_epoch()

    def _handle_exception(self, error: BaseException) -> None:
        if self.drive.is_left:
            raise error  # the drain is no failure that a handler could catch
        self.former_handle_exception(error)  # type: ignore[attr-defined]

    def _run_once_on_dataset_as_gen(self) -> Generator[Any, None, float]:
        if self._begins_trained():
            return 0.0
        spent_s: float = yield from self.former_run_once_on_dataset_as_gen()  # type: ignore[attr-defined]
        return spent_s

    def _run_once_on_dataset_legacy(self) -> float:
        if self._begins_trained():
            return 0.0
        return float(self.former_run_once_on_dataset_legacy())  # type: ignore[attr-defined]

    def _setup_dataloader_iter(self) -> None:
        data = self._trainer.state.dataloader
        if data is None:
            self.former_setup_dataloader_iter()  # type: ignore[attr-defined]
        else:
            self._trainer._dataloader_iter = self._feed.iterate(data)  # noqa: SLF001 - see above

    # ------------------------------------------------------------------ boundaries

    def _after_start(self) -> None:
        saved = self._state.saved
        if saved is None or self._is_put_back or not saved["should_terminate"]:
            return
        if not (self._place is not None and self._place.is_finished):
            self._trainer.should_terminate = saved["should_terminate"]

    def _before_epoch(self) -> None:
        if self._skips_batches and self._state.saved is not None:
            self._trainer.state.iteration = self._state.saved["iteration"]
        if self._is_epoch_open and self._is_put_back:
            self._end_epoch(before_next=True)  # it was ended without its event
        if not self._is_epoch_open:
            self._put_back()

    def _begins_trained(self) -> bool:
        """Put the state back within an epoch; tell whether no batch of it is left."""
        self._put_back()
        self._is_epoch_open = True
        skips, self._skips_batches = self._skips_batches, False
        if skips:
            self._trainer._init_iter = None  # noqa: SLF001 - as the method that is left out does
        return skips

    def _put_back(self) -> None:
        if not self._is_put_back:
            self._is_put_back = True
            self.drive.put_back(*self._names)

    def _after_iteration(self) -> None:
        self._step += 1
        self._batch += 1
        state = self._trainer.state
        is_last = state.epoch_length is not None and self._batch == state.epoch_length
        self.drive.step_done(self._step, state.epoch - 1, self._batch, is_last)

    def _end_epoch(self, *, before_next: bool = False) -> None:
        self._is_epoch_open, self._batch = False, 0
        self.drive.epoch_done(self._trainer.state.epoch - 1 - before_next)

    def _listen(self, evaluator: Any) -> None:
        former = evaluator._fire_event  # noqa: SLF001 - as of the trainer

        def fire(event: Any, *args: Any, **kwargs: Any) -> None:
            former(event, *args, **kwargs)
            if event == Events.ITERATION_COMPLETED:
                self.drive.evaluation_batch_done()

        evaluator._fire_event = fire  # noqa: SLF001
