"""The Checkpointer's part in a drill, within this process."""

from __future__ import annotations

import os
import signal

import pytest
import torch

import trainerd
from trainerd.contract import rehearsal
from trainerd.contract.environment import ATTEMPT
from trainerd.contract.rehearsal import Rehearsal, Strike
from trainerd.contract.save_journal import SaveEvent, add_event, read_events
from trainerd.training.engine import rehearsed_saves


class Ended(BaseException):
    """The end of the process."""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Run an attempt of a script; return what was noted of it, and how it ended."""
    handles = []

    def end(*what):
        raise Ended(*what)

    monkeypatch.setattr(os, "kill", lambda _pid, number: end(number))
    monkeypatch.setattr(os, "_exit", end)
    real = rehearsed_saves.register_optimizer_step_post_hook
    monkeypatch.setattr(
        rehearsed_saves,
        "register_optimizer_step_post_hook",
        lambda hook: handles.append(real(hook)),
    )

    def attempt(number, *strikes, traced_step=None, directory=tmp_path / "real", mirror=None, epochs=3):
        asked = Rehearsal(str(tmp_path / "drill"), strikes, traced_step=traced_step)
        (tmp_path / "drill").mkdir(exist_ok=True)
        monkeypatch.setenv(rehearsal.VARIABLE, rehearsal.to_variable(asked))
        monkeypatch.setenv(ATTEMPT, str(number))
        rehearsed_saves._of_process.cache_clear()
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        objects = {"model": model, "optimizer": optimizer}
        ended = None
        try:
            with trainerd.Checkpointer(directory, objects, keep_last=1, mirror=mirror) as checkpointer:
                found = checkpointer.resume()
                for epoch in range(found.manifest.epoch if found else 0, epochs):
                    for _ in range(4):
                        model(torch.ones(2)).sum().backward()
                        optimizer.step()
                    checkpointer.save(step=4 * (epoch + 1), epoch=epoch + 1, scores={"epoch": epoch})
        except Ended as error:
            ended = error.args[0]
        events = [each for each in read_events(tmp_path / "drill") if each.attempt == number]
        return ended, [(each.kind, each.step, each.updates) for each in events]

    yield attempt
    for handle in handles:
        handle.remove()
    rehearsed_saves._of_process.cache_clear()


def test_what_a_checkpointer_does_is_noted_and_lies_in_the_drill_with_all_checkpoints(train, tmp_path):
    ended, events = train(1)
    assert ended is None
    assert events == [
        ("open", -1, 0),
        ("update", -1, 1),
        ("save", 4, 4),
        ("save", 8, 8),
        ("save", 12, 12),
    ]
    assert not (tmp_path / "real").exists()
    (folder,) = (tmp_path / "drill" / "checkpointers").iterdir()
    assert len(list(folder.glob("step-*"))) == 3


def test_nothing_is_mirrored_and_what_is_there_is_not_resumed_but_can_be_loaded(train, tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with trainerd.Checkpointer(tmp_path / "real", {"model": model, "optimizer": optimizer}) as real:
        real.save(step=4, epoch=1)
    before = sorted(path.name for path in (tmp_path / "real").iterdir())
    assert train(1, mirror=f"file://{tmp_path / 'mirror'}")[1][1] == ("update", -1, 1)
    assert not (tmp_path / "mirror").exists()
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == before
    with trainerd.Checkpointer(tmp_path / "real", {"model": model, "optimizer": optimizer}) as drilled:
        assert drilled.load("step-4").step == 4


def test_a_kill_comes_so_many_steps_after_a_save_that_is_durable_and_the_next_attempt_resumes(train):
    ended, events = train(1, Strike("kill", "save", 4, 2))
    assert ended == signal.SIGKILL
    assert events[-1] == ("strike", 4, 6)
    ended, events = train(2, Strike("drain", "save", 4, 3))
    assert (ended, events) == (
        signal.SIGTERM,
        [("open", -1, 0), ("resume", 4, 0), ("update", -1, 1), ("strike", 4, 3)],
    )
    assert train(3)[1][-1] == ("save", 12, 8)


def test_a_run_that_has_come_far_enough_is_ended_after_that_save(train):
    ended, events = train(1, Strike("stop", "save", 8))
    assert (ended, events[-2:]) == (0, [("save", 8, 8), ("stop", 8, 8)])


def test_a_strike_before_the_first_save_counts_from_the_beginning(train):
    assert train(1, Strike("kill", "save", 0, 3))[1][-1] == ("strike", 0, 3)


def test_the_modules_of_the_first_step_are_noted(train, tmp_path):
    train(1, traced_step=1)
    names = [name for name, _ in rehearsal.read_notes(tmp_path / "drill").outputs]
    assert names == [f"model{rehearsal.BEFORE_STEP}", "model"]


def test_the_folder_in_a_drill_is_the_same_for_copies_of_a_working_folder(tmp_path):
    asked = [Rehearsal(str(tmp_path / name)) for name in ("one", "two")]
    parts = [rehearsed_saves.RehearsedSaves(each, attempt=1, rank=1) for each in asked]
    names = [
        part.folder_for(tmp_path / name / "beside" / "work" / "out").name
        for part, name in zip(parts, ("one", "two"), strict=True)
    ]
    assert names[0] == names[1] != parts[0].folder_for(tmp_path / "one" / "beside" / "out").name


def test_outside_of_a_drill_a_checkpointer_saves_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(rehearsal.VARIABLE, raising=False)
    with trainerd.Checkpointer(tmp_path / "real", torch.nn.Linear(1, 1)) as checkpointer:
        checkpointer.save(step=1)
    assert (tmp_path / "real" / "step-000000001").is_dir()


def test_a_line_that_is_not_complete_is_no_event(tmp_path):
    add_event(tmp_path, SaveEvent("save", 1, 4))
    with (tmp_path / "saves.jsonl").open("a") as file:
        file.write('{"kind": "sa')
    assert [each.step for each in read_events(tmp_path)] == [4]
