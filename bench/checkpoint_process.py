"""Each way to save in a process of its own, which trains and saves when it is told to.

What one way leaves behind is not the others' then. After one `async_save` of DCP, on two cores, every later
step of that process took 15 to 30 % longer, and a copy of 140 MB by torch's threads 15.5 ms instead of 11.5,
whoever made it: what a second thread that has computed with torch does too, for libgomp does not spin where
it waits when there are more threads than cores.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.checkpoint_savers import SAVERS, Saver, forget_cached
from bench.checkpoint_states import Training, make_training
from trainerd.checkpoint.host_memory import fault_in, host_memory

WINDOW_STEPS = 5
WARM_STEPS = 3
"""Before anything is measured: the process has waited while the others had their turns."""
PAIRS = {"140MB": 4, "500MB": 2, "2GB": 1}
"""Of windows, in one turn. Two windows differ by a tenth for no reason, and a save costs less than that."""
ANSWER_LIMIT_S = 600.0
"""For a whole turn, or for getting warm, in seconds."""
LEAVE_LIMIT_S = 60.0
"""For a turn that is cut short, in seconds; then the process is killed."""

Samples = dict[str, list[float]]
"""Seconds by what was measured, such as ``trainerd stall``."""


class SaverProcess:
    """A process that trains, and saves in one way. It does nothing until it is told to.

    Args:
        name: The way to save.
        size: Of the state: a key of `WIDTHS`.
        folder: Where it may write.
    """

    def __init__(self, name: str, size: str, folder: Path) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, size, folder), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_warm(self) -> int:
        """Wait until it has trained, saved and loaded once; return the size of its state in bytes."""
        return int(self._answer())

    def measure(self, *, saves_first: bool) -> Samples:
        """Have it make its pairs of windows, one more save and a load; return what each took."""
        self._connection.send(saves_first)
        samples: Samples = self._answer()
        return samples

    def close(self) -> None:
        """End it, by force if it does not end by itself."""
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._process.join(LEAVE_LIMIT_S)
        self._process.kill()
        self._process.join()

    def _answer(self) -> Any:
        if not self._connection.poll(ANSWER_LIMIT_S):
            raise RuntimeError(f"{self.name} did not answer within {ANSWER_LIMIT_S:.0f} s")
        try:
            problem, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self.name} is gone: exit code {self._process.exitcode}") from None
        if problem:
            raise RuntimeError(f"{self.name} failed:\n{problem}")
        return answer


def touch_memory(size: int) -> None:
    """Have the system own so much free memory that was in use a moment ago.

    A virtual machine gets memory from its host at the first touch, at 4 ms and more a megabyte; whoever came
    first to a fresh part of it would pay for the others.
    """
    fault_in(host_memory(size))


def _serve(connection: Connection, name: str, size: str, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the process that asks
    try:
        for answer in _answers(connection, name, size, folder):
            connection.send(("", answer))
    except BaseException:  # noqa: BLE001 - told to the one who asked
        connection.send((traceback.format_exc(), None))
    os._exit(0)  # torch's own way out takes half a second


def _answers(connection: Connection, name: str, size: str, folder: Path) -> Iterator[Any]:
    warnings.simplefilter("ignore")  # DCP's, that it runs without a cluster
    training = make_training(size)
    for _ in range(WARM_STEPS):
        training.step()
    state_bytes = sum(tensor.nbytes for tensor in training.tensors().values())
    saver = next(each for each in SAVERS if each.name == name)(training, folder)
    saver.stall()  # the first time pays for imports and for fresh memory
    saver.settle()
    saver.load()
    yield state_bytes
    while (saves_first := connection.recv()) is not None:
        yield _measure(saver, training, state_bytes, PAIRS[size], saves_first=saves_first)
    saver.close()


def _measure(saver: Saver, training: Training, state_bytes: int, pairs: int, *, saves_first: bool) -> Samples:
    """Pairs of windows, one more save with nothing beside it, and a load from a cold cache."""
    samples: Samples = defaultdict(list)
    for _ in range(WARM_STEPS):
        training.step()
    for number in range(pairs):
        _measure_pair(saver, training, samples, saves_first=saves_first == (number % 2 == 0))
    training.step()
    began_s = time.perf_counter()
    saver.stall()
    samples[f"{saver.name} durable"].append(saver.settle() - began_s)
    forget_cached(saver.files())
    touch_memory(2 * state_bytes)
    began_s = time.perf_counter()
    content = saver.load()
    samples[f"{saver.name} load"].append(time.perf_counter() - began_s)
    del content
    return dict(samples)


def _measure_pair(saver: Saver, training: Training, samples: Samples, *, saves_first: bool) -> None:
    windows: dict[bool, float] = {}
    for saves in (saves_first, not saves_first):
        training.step()
        began_s = time.perf_counter()
        training.step()
        if saves:
            call_s = time.perf_counter()
            saver.stall()
            samples[f"{saver.name} stall"].append(time.perf_counter() - call_s)
        for _ in range(WINDOW_STEPS - 1):
            training.step()
        windows[saves] = time.perf_counter() - began_s
        if saves:
            saver.settle()
    samples[f"{saver.name} true cost"].append(windows[True] - windows[False])
    samples[f"{saver.name} step"].append(windows[False] / WINDOW_STEPS)
