"""What the sampler and the dataset of an exact loader remember, beside seed, epoch and batch.

A sampler that counts its passes or weighs what is hard, a dataset that changes as it is read: a loop that is
not ours begins such a pass again in each attempt, and must find what an undisturbed run finds there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.verdict import Reason
from trainerd.training.data.dataset_memory import DatasetMemory, FirstMarks
from trainerd.training.data.loader_memory import LoaderMemory
from trainerd.training.data.read_note import ReadingWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trainerd.training.data.exact_loader import ExactLoader

_WATCHED: Final = 3
"""So many batches are looked at for what reading changes."""
_SAMPLERS: Final = ("sampler", "batch_sampler")
_END: Final = object()


class LoaderWatch:
    """Finds out whether samplers or the dataset of an exact loader remember what no checkpoint holds.

    Args:
        loader: The loader, before its first pass.
        suspect: Takes in that they do, once.
    """

    def __init__(self, loader: ExactLoader, suspect: Callable[[Reason], None]) -> None:
        view = loader.source_view
        self._order = LoaderMemory({name: getattr(view, name) for name in _SAMPLERS}, _SAMPLERS)
        self._sampler = view.sampler if view.sampler is not None else view.batch_sampler
        self._reading = ReadingWatch(loader.read_note, suspect)
        self._suspect = suspect
        self._is_told = False

    def look(self) -> None:
        """Compare what they are like with what they were before. Each pass is told its epoch."""
        self._reading.look()
        if self._is_told:
            return
        paths = self._order.saved().get("attributes", {})
        names = sorted({path.rpartition(".")[2] for path in paths} - {"epoch"})
        if not names:
            return
        self._is_told = True
        kind = type(self._sampler)
        self._suspect(
            Reason(
                "sampler-without-state",
                f"{kind.__module__}.{kind.__qualname__}",
                f"its {', '.join(names)} changed during training and is in no checkpoint: a resumed pass may "
                "draw another order",
                "let the order follow from the epoch that set_epoch tells",
            )
        )


class PassMemory:
    """The plain attributes of what an exact loader consists of, as far as they change.

    Args:
        loader: The loader.
        saved: What a checkpoint holds of it, None if nothing.
        suspect: Takes in what changed and could not be put back.
    """

    def __init__(
        self, loader: ExactLoader, saved: Mapping[str, Any] | None, suspect: Callable[[Reason], None]
    ) -> None:
        view = loader.source_view
        self._loader = loader
        self._order = LoaderMemory({name: getattr(view, name) for name in _SAMPLERS}, _SAMPLERS)
        roots = {"dataset": view.dataset, "collate_fn": view.collate_fn}
        self._data = DatasetMemory(roots, suspect, FirstMarks())
        self._saved = saved or {}
        self._beginning: dict[str, Any] = {}
        self._to_watch = 0 if view.num_workers else _WATCHED
        # What reading changes in this process is put back; what it changes in workers is only named.
        self._reading = ReadingWatch(loader.read_note, suspect) if view.num_workers else None

    def state_dict(self) -> dict[str, Any]:
        """Return what changed since the run first used the loader; empty if nothing did."""
        if not self._beginning:
            return dict(self._saved)
        now = self._changes()
        return {**self._beginning, "now": now} if any(now.values()) else {}

    def batches(self, number: int, *, is_new: bool) -> Iterator[Any]:
        """Yield the batches of a pass, of which the loader knows where it begins.

        Args:
            number: Number of the pass.
            is_new: Whether the program has just made the loader for this pass, also in an undisturbed run.
        """
        saved, self._saved = self._saved, {}
        is_inside = saved.get("pass") == number
        if is_new and not is_inside:
            saved = {}
        self._put_back(saved.get("at_beginning" if is_inside else "now", {}), is_inside=is_inside)
        self._beginning = {"pass": number, "at_beginning": self._changes()}
        now = saved.get("now", {}) if is_inside else {}
        iterator = iter(self._loader)  # workers have the dataset as it is here
        self._data.put_back(now.get("data", {}), is_inside=True)
        while (batch := self._next(iterator)) is not _END:
            self._order.put_back(now.get("order", {}), is_inside=True)  # it was drawn with the first batch
            now = {}
            if self._reading is not None:
                self._reading.look()
            yield batch

    def _changes(self) -> dict[str, Any]:
        return {"order": self._order.saved(), "data": self._data.saved()}

    def _put_back(self, changes: Mapping[str, Any], *, is_inside: bool) -> None:
        self._order.put_back(changes.get("order", {}), is_inside=is_inside)
        self._data.put_back(changes.get("data", {}), is_inside=is_inside)

    def _next(self, iterator: Iterator[Any]) -> Any:
        if self._to_watch == 0:
            return next(iterator, _END)
        self._to_watch -= 1
        with self._data.reading():
            return next(iterator, _END)
