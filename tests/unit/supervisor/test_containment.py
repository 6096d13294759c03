"""A fault in handling one job sets that job aside with its traceback, and everything else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.support.supervisor_objects import NOW, exit_record, job, spec
from tests.unit.supervisor.test_hung_filesystem import FakeLauncher, Folder, HangingFiles
from trainerd.contract.clock import SystemClock
from trainerd.contract.paths import StatePaths
from trainerd.errors import InternalError
from trainerd.supervisor import ledger as ledgers
from trainerd.supervisor import loop as loops
from trainerd.supervisor.attempt.monitor import Monitor
from trainerd.supervisor.attempt.probe import ProbedEnded
from trainerd.supervisor.bounded_io import BoundedIo
from trainerd.supervisor.containment import HandlingPage
from trainerd.supervisor.journal.journal import Entry, Journal
from trainerd.supervisor.ledger import Ledger
from trainerd.supervisor.machine.job_events import HoldAsked, ResumeAsked, StopAsked
from trainerd.supervisor.machine.states import Draining, Faulted, Queued, Running, Stopped
from trainerd.supervisor.scheduler import Capacity


class BrokenError(Exception):
    """A bug of whatever kind."""


def breaks_for(name, real, *, of):
    """Return a function that raises where it is about one job."""

    def call(*arguments, **named):
        if of(*arguments, **named) == name:
            raise BrokenError("deep inside \x1b[2J")
        return real(*arguments, **named)

    return call


def break_decision(monkeypatch):
    real = ledgers.decide

    def decide(name, before, event, now):
        if name == "ant" and isinstance(event, HoldAsked):
            raise BrokenError("deep inside \x1b[2J")
        return real(name, before, event, now)

    monkeypatch.setattr(ledgers, "decide", decide)


def break_encoding(monkeypatch):
    real = ledgers._entry

    def entry(step):
        made = real(step)
        if step.name == "ant" and isinstance(step.event, HoldAsked):
            made.data["no"] = object()
        return made

    monkeypatch.setattr(ledgers, "_entry", entry)


def break_method(owner, method, of):
    def apply(monkeypatch):
        monkeypatch.setattr(owner, method, breaks_for("ant", getattr(owner, method), of=of))

    return apply


def break_watch(monkeypatch):
    real = FakeLauncher.watch

    async def watch(self, paths):
        if "ant" in str(paths.root):
            raise InternalError("an invariant of ours does not hold")
        async for state in real(self, paths):
            yield state

    monkeypatch.setattr(FakeLauncher, "watch", watch)


def break_ending(monkeypatch):
    async def watch(_self, paths):
        if "ant" in str(paths.root):
            yield ProbedEnded(exit_record())
        await asyncio.Event().wait()

    def evidence(_self, *_arguments, **_named):
        raise BrokenError("deep inside \x1b[2J")

    monkeypatch.setattr(FakeLauncher, "watch", watch)
    monkeypatch.setattr(HangingFiles, "evidence", evidence)


FAULTS = {
    "decision": break_decision,
    "encoding": break_encoding,
    "watch": break_watch,
    "ending": break_ending,
    "look": break_method(Monitor, "look", lambda self, **_: self.attempt.job.name),
    "take in": break_method(Monitor, "take_in", lambda self, *_, **__: self.attempt.job.name),
    "recovery": break_method(loops.Loop, "_keep", lambda _self, job: job.name),
    "follow": break_method(
        loops.Loop, "_say", lambda _self, step: step.name if type(step.event) is HoldAsked else ""
    ),
}


async def until(condition, limit_s=20.0):
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - threads make no events
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_any_fault_in_handling_a_job_is_its_own(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(loops, "TICK_S", 0.01)
    fault(monkeypatch)
    known = [
        job(Running(), name=name, spec=spec(name=name), attempt=1, best_step=0) for name in ("ant", "bee")
    ]
    paths = StatePaths(tmp_path)

    async def run(journal):
        loop = loops.Loop(
            paths,
            Ledger(journal, Capacity(4), SystemClock()),
            Folder(spec(), spec(name="bee")),
            FakeLauncher(),
            SystemClock(),
            files=HangingFiles("nothing"),
            io=BoundedIo(),
        )
        task = asyncio.create_task(loop.run())
        await until(lambda: loop.has_scanned)
        loop.inbox.post("ant", HoldAsked())
        await until(lambda: isinstance(loop.ledger.jobs["ant"].state, Faulted))
        best_step = loop.ledger.jobs["bee"].best_step
        await until(lambda: loop.ledger.jobs["bee"].best_step > best_step or best_step > 0)
        await loop.inbox.ask("bee", StopAsked())
        assert isinstance(loop.ledger.jobs["bee"].state, Draining)
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        journal.commit([Entry(one.name, one, "test", "test") for one in known], wall_s=NOW)
        asyncio.run(run(journal))
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        ant = journal.jobs()["ant"]
        assert "this is a bug of trainerd, not of the job" in ant.reason
        assert any("Traceback" in line for line in ant.state.detail)
        assert not any("\x1b" in line for line in (ant.reason, *ant.state.detail))
        told = [event for event in journal.events(job="ant") if event.kind == "job.faulted"]
        assert told[0].data["traceback"] == list(ant.state.detail)


def applied(ledger, name, event):
    (step, *_) = ledger.apply([(name, event)])
    return step


def test_a_job_set_aside_with_an_attempt_keeps_its_slot_and_is_watched_again_on_request(tmp_path):
    ledger = Ledger(Journal(":memory:"), Capacity(1, max_jobs=1), SystemClock())
    ledger._jobs = {
        "ant": job(Faulted((), may_live=True)),
        "bee": job(Queued(), name="bee", spec=spec(name="bee")),
    }
    ledger.grants_slots = True
    ledger.apply([])
    assert isinstance(ledger.jobs["bee"].state, Queued)
    step = applied(ledger, "ant", ResumeAsked())
    assert [type(command).__name__ for command in step.commands] == ["ObserveAttempt"]
    assert ledger.jobs["ant"].attempt == 3


def test_a_job_set_aside_is_stopped_with_its_attempt():
    ledger = Ledger(Journal(":memory:"), Capacity(1), SystemClock())
    ledger._jobs = {"ant": job(Faulted((), may_live=True)), "bee": job(Faulted(()), name="bee")}
    step = applied(ledger, "ant", StopAsked())
    assert [type(command).__name__ for command in step.commands] == ["ObserveAttempt", "DrainAttempt"]
    applied(ledger, "bee", StopAsked())
    assert isinstance(ledger.jobs["bee"].state, Stopped)


END_WHILE_HANDLING = """
import os, sys
from pathlib import Path
from trainerd.supervisor.containment import HandlingPage
page = HandlingPage(Path(sys.argv[1]))
print(page.suspects())
sys.stdout.flush()
with page.handling("ant", sys.argv[2]):
    os.abort()
"""


def ended_in(path, what):
    done = subprocess.run(
        [sys.executable, "-c", END_WHILE_HANDLING, str(path), what],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode < 0, done.stderr
    return done.stdout.strip()


def test_two_ends_in_a_row_while_handling_the_same_make_a_job_suspect(tmp_path):
    path = tmp_path / "handling.page"
    assert ended_in(path, "AttemptEnded 3") == "{}"
    assert ended_in(path, "AttemptEnded 3") == "{}"
    assert HandlingPage(path).suspects() == {"ant": "AttemptEnded 3"}
    # It has handled nothing since, so nothing is counted against the job any more.
    assert HandlingPage(path).suspects() == {}


def test_ends_in_different_moments_or_with_an_orderly_one_between_make_none(tmp_path):
    path = tmp_path / "handling.page"
    ended_in(path, "AttemptEnded 3")
    ended_in(path, "AttemptEnded 4")
    assert HandlingPage(path).suspects() == {}
    ended_in(path, "AttemptEnded 4")
    page = HandlingPage(path)
    page.close()
    ended_in(path, "AttemptEnded 4")
    assert HandlingPage(path).suspects() == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 9000, b"\xff" * 8192, b'{"job": 1}', random.Random(1).randbytes(10_000)],
    ids=["empty", "nested", "not UTF-8", "another type", "random bytes"],
)
def test_a_page_of_whatever_content_makes_no_suspect(tmp_path, content):
    path = tmp_path / "handling.page"
    path.write_bytes(content)
    assert HandlingPage(path).suspects() == {}


def test_a_suspect_is_set_aside_before_anything_is_done_with_it(tmp_path):
    page = SimpleNamespace(
        suspects=lambda: {"ant": "AttemptEnded 1", "gone": "x"}, handling=HandlingPage(None).handling
    )
    ledger = Ledger(Journal(":memory:"), Capacity(4), SystemClock(), page=page)
    ledger._jobs = {name: job(Running(), name=name, spec=spec(name=name)) for name in ("ant", "bee")}
    kept = []
    loop = loops.Loop(
        StatePaths(tmp_path), ledger, Folder(), FakeLauncher(), SystemClock(), io=SimpleNamespace()
    )
    loop._keep = lambda one: kept.append(one.name) or SimpleNamespace(adopt=lambda: None)
    loop.recover()
    assert kept == ["bee"]
    assert "two supervisors in a row ended in: AttemptEnded 1" in ledger.jobs["ant"].reason
