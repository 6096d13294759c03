"""The shell completes the jobs that a verb would accept, not all of them."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from click.shell_completion import ShellComplete

from tests.support.supervisor_objects import NOW, job
from trainerd.cli.main import group
from trainerd.contract.paths import StatePaths
from trainerd.supervisor.journal.journal import Entry, Journal
from trainerd.supervisor.machine.states import BackingOff, Finished, Parked, Queued, Stopped

STATES = {
    "done": Finished("v1"),
    "given-up": Parked(),
    "queued": Queued(),
    "stopped": Stopped(),
    "waits": BackingOff(5.0, NOW + 5.0),
}


@pytest.fixture
def state(tmp_path, monkeypatch):
    paths = StatePaths(tmp_path / "state")
    for name in STATES:
        paths.run(name).root.mkdir(parents=True)
    monkeypatch.setenv("TRAINERD_STATE", str(paths.root))
    with contextlib.closing(Journal(paths.journal)) as journal:
        entries = [
            Entry(name, dataclasses.replace(job(each), name=name), "job", "why")
            for name, each in STATES.items()
        ]
        journal.commit(entries, wall_s=NOW)
    return paths


def completed(verb, beginning="", *before):
    complete = ShellComplete(group, {}, "trainerd", "_TRAINERD_COMPLETE")
    return [each.value for each in complete.get_completions([verb, *before], beginning)]


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("stop", ["queued", "waits"]),
        ("resume", ["given-up", "stopped", "waits"]),
        ("retry", ["given-up", "waits"]),
        ("hold", ["queued", "stopped", "waits"]),
        ("checkpoint", []),
        ("status", sorted(STATES)),
    ],
)
def test_a_verb_completes_what_it_accepts(state, capsys, verb, names):
    assert completed(verb) == names
    assert completed(verb, "w") == [name for name in names if name == "waits"]
    assert capsys.readouterr() == ("", "")


def test_a_name_that_is_there_already_is_not_offered_again(state):
    assert completed("stop", "", "waits") == ["queued"]


def test_without_a_journal_all_runs_are_offered(state):
    state.journal.write_bytes(b"damaged")
    assert completed("stop") == sorted(STATES)


def test_without_a_state_folder_nothing_is_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINERD_STATE", str(tmp_path / "missing"))
    assert completed("stop") == []
