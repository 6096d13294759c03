"""Accelerate: a session that takes prepared objects, and whose batches an `Accelerator` knows as its own.

Prepared loaders fetch a batch ahead and begin again with each attempt. Here the loader inside is read by the
session, from the batch on that comes next, and Accelerate is told of it as by its own loaders: where a loop
begins and ends, which batch is the last one, and how many samples were added to fill it up.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from accelerate.optimizer import AcceleratedOptimizer
from accelerate.scheduler import AcceleratedScheduler
from accelerate.utils import DistributedType, send_to_device

from trainerd.errors import UserError
from trainerd.training.data.told_loader import ToldLoader
from trainerd.training.integrations.accelerate_loader import is_prepared, loader_within
from trainerd.training.session import Session, open_session
from trainerd.training.state.kept_gradients import KeptGradients

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from trainerd.training.batch_iterator import BatchIterator
    from trainerd.training.data.replica_place import StatedSharding
    from trainerd.training.settings import Settings

_TAKEN: Final = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}


def session(accelerator: Any, run_dir: str | Path | None = None, **settings: Any) -> AcceleratedSession:
    """Open a training session for a script with an `Accelerator`.

    Prepared loaders go to ``session.batches``, and prepared models, optimizers and schedulers to
    ``session.track``. A step is one of the optimizer: it takes the accelerator's
    ``gradient_accumulation_steps`` batches. Saved besides are the accelerator's count of batches, its
    gradient scaler, and what was given to ``register_for_checkpointing``.

    Args:
        accelerator: The `accelerate.Accelerator`.
        run_dir: As `trainerd.session` takes it.
        settings: As `trainerd.session` takes them.

    Raises:
        UserError: A setting cannot be read, or the accelerator shards models in a way of its own.
    """
    kind = accelerator.distributed_type
    if kind not in _TAKEN:
        raise UserError(
            f"an Accelerator with {kind.value} keeps the state in files of its own, which a session cannot "
            "resume",
            hint="use one process or DDP; for FSDP2 call torch's fully_shard(model) and trainerd.session()",
        )
    return open_session(lambda found: AcceleratedSession(accelerator, found), run_dir, **settings)


class AcceleratedSession(Session):
    """A session in which prepared objects stand for what they wrap; see `Session`."""

    def __init__(self, accelerator: Any, settings: Settings) -> None:
        super().__init__(settings)
        self._accelerator = accelerator
        # Held by the sources of the session, for as long as they are used; each holds its prepared loader.
        self._told: weakref.WeakValueDictionary[int, ToldLoader] = weakref.WeakValueDictionary()

    def track(self, **objects: Any) -> None:
        """Add objects to the state of the run: prepared ones, or others as ``Session.track`` takes them.

        A checkpoint holds what is inside, and so fits a script without Accelerate.
        """
        super().track(**{name: _inside(value) for name, value in objects.items()})

    def length(self, loader: Any) -> int | None:
        return super().length(self._as_told(loader))

    def _batches(
        self,
        loaders: tuple[Any, ...],
        sharding: StatedSharding,
        *,
        train: bool,
        accumulate: int,
        is_numbered: bool,
    ) -> BatchIterator:
        told = tuple([self._as_told(each) for each in loaders])
        if train:
            accumulate = self._batches_of_step(accumulate)
        return super()._batches(told, sharding, train=train, accumulate=accumulate, is_numbered=is_numbered)

    def _batches_of_step(self, said: int) -> int:
        state = self._accelerator.gradient_state
        if said not in (1, state.num_steps):
            raise UserError(
                f"batches(accumulate={said}): the Accelerator has "
                f"gradient_accumulation_steps={state.num_steps}",
                hint="leave accumulate= out: the number is the Accelerator's",
            )
        if state.sync_with_dataloader:
            return int(state.num_steps)
        if self.world_size > 1:
            raise UserError(
                "sync_with_dataloader=False: gradients that several ranks have not added up yet are in no "
                "checkpoint",
                hint="leave GradientAccumulationPlugin(sync_with_dataloader=False) out",
            )
        return 1  # steps go over the ends of loops: each batch is a boundary, and gradients are saved

    def _as_told(self, loader: Any) -> Any:
        if not is_prepared(loader):
            return loader
        found = self._told.get(id(loader))
        if found is None:
            found = ToldLoader(loader_within(loader), _Listener(self._accelerator, loader))
            self._told[id(loader)] = found
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        told = list(self._told.values())
        try:
            super().__exit__(kind, error, trace)
        finally:
            for each in told:
                each.listener.end()

    def epochs(self, total: int | None, *, max_steps: int | None = None) -> Iterator[int]:
        self._check_open()
        self._track_accelerator()
        return super().epochs(total, max_steps=max_steps)

    def _begin(self) -> None:
        self._check_open()
        self._track_accelerator()
        super()._begin()

    def _track_accelerator(self) -> None:
        if "accelerator" in self._run.state.objects:
            return
        accelerator = self._accelerator
        known = {id(value) for value in self._run.state.objects.values()}
        parts: dict[str, Any] = {"accelerator": AcceleratorPlace(accelerator)}
        if accelerator.scaler is not None:
            parts["accelerator_scaler"] = accelerator.scaler
        custom = accelerator._custom_objects  # noqa: SLF001 - there is no public list
        parts |= {f"accelerator_custom_{number}": _inside(each) for number, each in enumerate(custom)}
        if not accelerator.gradient_state.sync_with_dataloader:
            optimizers = [_inside(each) for each in accelerator._optimizers]  # noqa: SLF001 - as above
            parts["accelerator_gradients"] = KeptGradients(
                optimizers, lambda: not accelerator.gradient_state.sync_gradients
            )
        super().track(**{name: part for name, part in parts.items() if id(part) not in known})


class AcceleratorPlace:
    """Where an accelerator is within an accumulated step.

    Args:
        accelerator: The accelerator.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def state_dict(self) -> dict[str, Any]:
        """Return the count of batches, and whether the last one ended a step."""
        return {"step": self._accelerator.step, "sync": self._accelerator.gradient_state.sync_gradients}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put both back."""
        self._accelerator.step = state["step"]
        self._accelerator.gradient_state.sync_gradients = state["sync"]


class _Listener:
    """Tells an accelerator of the loops over a prepared loader."""

    def __init__(self, accelerator: Any, prepared: Any) -> None:
        self._accelerator = accelerator
        self._prepared = prepared
        self._is_begun = False

    def begin(self) -> None:
        self.end()  # of a loop that an exception has left
        state = self._accelerator.gradient_state
        if state.num_steps > 1 and state.sync_with_dataloader and _has_no_length(self._prepared):
            raise UserError(
                f"gradient_accumulation_steps={state.num_steps}: the length of the loader is not known, nor "
                "which batch ends its last step",
                hint="give the dataset a __len__",
            )
        self._is_begun = True
        self._prepared.begin()

    def batch(self, batch: Any, *, is_last: bool) -> Any:
        self._prepared.end_of_dataloader = is_last
        return _on_device(batch, self._prepared)

    def end(self) -> None:
        if self._is_begun:
            self._is_begun = False
            self._prepared.end()


def _has_no_length(prepared: Any) -> bool:
    try:
        return len(prepared) < 0
    except TypeError:
        return True


def _on_device(batch: Any, prepared: Any) -> Any:
    if prepared.device is None:
        return batch
    return send_to_device(batch, prepared.device, non_blocking=prepared._non_blocking)  # noqa: SLF001 - as it does


def _inside(value: Any) -> Any:
    if isinstance(value, AcceleratedOptimizer):
        return value.optimizer
    if isinstance(value, AcceleratedScheduler):
        return value.scheduler
    return value
