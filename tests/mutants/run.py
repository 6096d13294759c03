"""Runs mutants, several at a time, and says of each whether its test file caught it."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.mutants.mutant import Mutant, StaleMutantError
from tests.mutants.tree import TreeCopy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LIMIT_S = 240
"""How long one test file may take, in seconds. pytest ends a single test much earlier."""

_PASSED, _FAILED = 0, 1  # exit codes of pytest; all others mean that the tests did not run as they should

_FAILED_SUMMARY = re.compile(r"^=*\s*\d+ failed\b.* in [\d.]+s", re.MULTILINE)
"""pytest's last line. A mutant may leave threads behind that abort the interpreter after its tests failed."""

Verdict = Literal["caught", "SURVIVED", "stale", "no test"]


@dataclass(frozen=True)
class Result:
    """What became of one mutant: the verdict, how long that took, and the output where it was not caught."""

    number: int
    verdict: Verdict
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class TestRun:
    """One run of a test file. The code is that of pytest, or the number of the signal, negative."""

    __test__ = False  # pytest collects no tests here

    code: int
    seconds: float
    output: str


def run_mutants(
    chosen: Sequence[tuple[int, Mutant]], *, processes: int, report: Callable[[Result], None]
) -> list[Result]:
    """Run mutants and report each as it ends.

    Args:
        chosen: Mutants with their numbers.
        processes: How many at a time.
        report: Called with each result, from this thread.
    """
    with tempfile.TemporaryDirectory(prefix="trainerd-mutants-") as folder:
        copies: queue.SimpleQueue[TreeCopy] = queue.SimpleQueue()
        for number in range(processes):
            copies.put(TreeCopy(Path(folder) / str(number)))
        with ThreadPoolExecutor(processes) as pool:

            def run(mutant: Mutant | None, test_file: str) -> TestRun:
                copy = copies.get()
                try:
                    with copy.broken_by(mutant):
                        return _run_test_file(copy, test_file)
                finally:
                    copies.put(copy)

            files = dict.fromkeys(mutant.caught_by for _, mutant in chosen)
            sound = {file: pool.submit(run, None, file) for file in files}
            try:
                untouched = {file: ran.result() for file, ran in sound.items()}
                # The slowest files first, so that none of them runs at the end, beside nothing.
                slowest_first = sorted(chosen, key=lambda each: -untouched[each[1].caught_by].seconds)
                judged = {
                    pool.submit(_judge, number, mutant, untouched[mutant.caught_by], run)
                    for number, mutant in slowest_first
                }
                return _reported((done.result() for done in as_completed(judged)), report)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _reported(results: Iterable[Result], report: Callable[[Result], None]) -> list[Result]:
    found = []
    for result in results:
        report(result)
        found.append(result)
    return found


def _judge(number: int, mutant: Mutant, untouched: TestRun, run: Callable[[Mutant, str], TestRun]) -> Result:
    if untouched.code != _PASSED:
        return judged(number, mutant, untouched, untouched)
    try:
        return judged(number, mutant, untouched, run(mutant, mutant.caught_by))
    except StaleMutantError as error:
        return Result(number, "stale", 0.0, str(error))


def judged(number: int, mutant: Mutant, untouched: TestRun, ran: TestRun) -> Result:
    """Judge a mutant by the runs of its test file without it and with it."""
    if untouched.code != _PASSED:
        detail = f"{mutant.caught_by} does not pass without the mutant:\n{untouched.output}"
        return Result(number, "no test", untouched.seconds, detail)
    if ran.code == _FAILED or (ran.code < 0 and _FAILED_SUMMARY.search(ran.output)):
        return Result(number, "caught", ran.seconds)
    if ran.code == _PASSED:
        return Result(number, "SURVIVED", ran.seconds, f"{mutant.caught_by} passes with it")
    return Result(number, "no test", ran.seconds, f"pytest ended with {ran.code}:\n{ran.output}")


def _run_test_file(copy: TreeCopy, test_file: str) -> TestRun:
    began_s = time.monotonic()
    process = copy.start(test_file, dict(os.environ))
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except BaseException:
        _kill_group(process.pid)
        output, _ = process.communicate()
        if process.returncode is None or time.monotonic() - began_s < LIMIT_S:
            raise
    _kill_group(process.pid)  # what a test that broke off has left running
    return TestRun(process.returncode, time.monotonic() - began_s, output[-4000:])


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
