"""Ways to drive a loop that cannot be resumed exactly, and the errors that say what to write instead."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, NoReturn

from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.training.engine.position import Position


def refuse_two_loops() -> NoReturn:
    """Refuse a training loop that continues after another training loop has begun within it.

    Raises:
        UserError: Always.
    """
    raise UserError(
        "two training loops are open at once: this loop continues although another loop has begun since",
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
