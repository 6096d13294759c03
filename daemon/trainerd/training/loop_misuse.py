"""Ways to drive a loop that cannot be resumed exactly, and the errors that say what to write instead."""

from __future__ import annotations

import gc
import itertools
import re
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn

from torch.utils.data import dataloader

from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.training.engine.position import Position

_RANGE: Final = type(iter(range(0)))


def refuse_two_loops() -> NoReturn:
    """Refuse a training loop that goes on after another one has begun within it.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "two training loops are open at once: this one goes on although another one has begun since",
        hint="draw from several loaders in step with session.batches(a, b); a loop within a training loop is "
        "either an evaluation, session.batches(loader, train=False), or goes over the plain loader",
    )


def check_thread(thread: int) -> None:
    """Check that batches are pulled by the thread that asked for the loop.

    Raises:
        UserError: Another thread reads ahead: the batch that is being trained would not be known.
    """
    if threading.get_ident() != thread:
        raise UserError(
            "session.batches is read ahead by another thread: which batches are trained would not be known",
            hint="iterate over it in the thread that trains; let the loader's workers prefetch, "
            "DataLoader(..., num_workers=2)",
        )


def check_log(thread: int | None) -> None:
    """Check that measurements come from the thread that pulls the batches.

    Raises:
        UserError: They do not: the batches are read ahead.
    """
    if thread is not None:
        check_thread(thread)


def check_wrapper(batches: Any) -> None:
    """Check that a loop is not wrapped in something that counts or repeats batches by itself.

    Args:
        batches: The generator of the loop.

    Raises:
        UserError: It is, or is zipped with something that begins again in every attempt.
    """
    for each in gc.get_referrers(batches):
        if type(each) is tuple:
            _check_zip(each)
        if isinstance(each, itertools.cycle):
            raise UserError(
                "itertools.cycle repeats batches that it keeps, and the session would not know of the steps",
                hint="begin a loop for each pass: while True: for batch in session.batches(loader): ...",
            )
        if isinstance(each, itertools.islice):
            raise UserError(
                "itertools.islice counts from 0 in every attempt: one that goes on in the middle of the loop "
                "would train more batches",
                hint="end the loop by its number: for number, batch in session.enumerate(loader): ...; "
                "if number + 1 == n: break",
            )


def _check_zip(iterators: tuple[Any, ...]) -> None:
    """Check what is looped over beside a loop, if this is what a ``zip`` holds."""
    if not any(type(each) is zip for each in gc.get_referrers(iterators)):
        return
    for beside in iterators:
        if isinstance(beside, dataloader._BaseDataLoaderIter):  # noqa: SLF001 - public by no other name
            raise UserError(
                "zip draws from a plain DataLoader beside session.batches: it begins again in every attempt",
                hint="draw from both in step: for a, b in session.batches(loader, other)",
            )
        if isinstance(beside, _RANGE):
            raise UserError(
                "zip with a range counts from its beginning in every attempt: one that goes on in the middle "
                "of the loop would train more batches",
                hint="end the loop by its number: for number, batch in session.enumerate(loader): ...; "
                "if number + 1 == n: break",
            )


def explain(error: BaseException, target: Position) -> None:
    """Add to an error what a resume has to do with it, if it may have.

    Args:
        error: What the script raised.
        target: The boundary at which the attempt went on.
    """
    where = f"epoch {target.epoch}, training loop {target.loop + 1}, batch {target.batch}"
    if isinstance(error, NameError):
        quoted = re.search(r"'(\w+)'", str(error))  # of an UnboundLocalError, only the message has the name
        name = quoted.group() if quoted else "the variable"
        error.add_note(
            f"trainerd: this attempt went on at {where} and skipped what was done before: {name} was not "
            f"set in it. Variables are not restored; keep it in session.value(...), or set it before the loop"
        )
    elif isinstance(error, StopIteration) or isinstance(error.__cause__, StopIteration):
        error.add_note(
            f"trainerd: this attempt went on at {where}, and loops that were finished before yield nothing. "
            f"Iterate by a for loop, or call next again until a new session.batches(...) yields a batch"
        )
