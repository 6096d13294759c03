"""The first line says which run this is, and a new one begins only where that was asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import pytest
import torch
from torch.distributed import HashStore

import trainerd
from trainerd.contract import environment
from trainerd.contract.paths import RunPaths
from trainerd.contract.run_record import RunRecord, read_run_record, write_run_record
from trainerd.errors import LockedError, MismatchError, UserError
from trainerd.training.distributed.rank_store import Ranks
from trainerd.training.engine.fresh_run import settled
from trainerd.training.engine.run_announcement import opening_lines
from trainerd.training.settings import resolve_settings
from trainerd.training.which_run.run_choice import OtherRun, RunChoice

pytestmark = pytest.mark.torch

SCRIPT = """\
import os
os.makedirs("out"); os.chdir("out")
import torch, trainerd
with trainerd.session() as session:
    for step in session.steps(1):
        pass
"""


@pytest.fixture(autouse=True)
def script(monkeypatch, tmp_path):
    """This process is one that was started by `python train.py` in `tmp_path`."""
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "train.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    for name in environment.VARIABLES:
        if name != environment.CHECK:
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def train(capsys, monkeypatch):
    """Runs a session to a number of steps, and returns what it said."""

    def run(*words, steps=4, width=1, stop=None, **settings):
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        model = torch.nn.Linear(2, width)
        with trainerd.session(every={"steps": 1}, **settings) as session:
            session.track(model=model)
            for step in session.steps(steps):
                if step == stop:
                    raise KeyError(stop)
        return capsys.readouterr().err.splitlines()

    return run


def crash(train, **settings):
    with pytest.raises(KeyError):
        train(stop=2, **settings)


def runs(tmp_path):
    return sorted(path.name for path in (tmp_path / ".trainerd/runs").iterdir())


def test_the_first_line_tells_a_new_a_resumed_and_a_finished_run_apart(train, capsys):
    crash(train)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "trainerd: new run, kept in .trainerd/runs/train"
    resumed = train()[0]
    assert resumed.startswith(
        "trainerd: resumed run, kept in .trainerd/runs/train: its newest checkpoint is step-"
    )
    finished = train()[0]
    assert finished.startswith("trainerd: finished run, kept in .trainerd/runs/train: complete at step 4;")
    assert "TRAINERD_FRESH=1 or session(fresh=True)" in finished


def test_a_run_that_has_saved_nothing_is_not_called_new(train, capsys):
    with pytest.raises(KeyError):
        train(stop=0)
    capsys.readouterr()
    assert train()[0] == (
        "trainerd: run without a checkpoint so far, kept in .trainerd/runs/train: it begins at step 0"
    )


def test_a_given_folder_is_announced_too(train, tmp_path):
    assert train(run_dir=tmp_path / "mine")[0] == "trainerd: new run, kept in mine"
    assert "finished run" in train(run_dir=tmp_path / "mine")[0]
    assert not (tmp_path / "mine/run.json").exists()


def test_a_folder_in_the_environment_is_found_from_where_the_script_was_started(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINERD_RUN_DIR", "mine")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert train(steps=1)[0] == "trainerd: new run, kept in mine"
    assert (tmp_path / "mine/checkpoints").is_dir()


def test_a_new_run_says_how_to_continue_an_earlier_one_and_that_works(train, monkeypatch):
    train("--epochs", "2", steps=2)
    told = train("--epochs", "4", steps=4)[1]
    assert "(--epochs 2 → 4)" in told
    (name,) = [word.removeprefix("TRAINERD_RUN=") for word in told.split() if "TRAINERD_RUN=" in word]
    assert not any("earlier run of this script" in line for line in train("--epochs", "4", steps=4))
    assert "complete at step 2" in train("--epochs", "9", steps=3, run=name)[0]
    monkeypatch.setenv("TRAINERD_RUN", name)
    assert "complete at step 3" in train("--epochs", "11", steps=3)[0]


def test_a_new_run_begins_beside_the_old_one_which_is_kept(train, tmp_path, monkeypatch, capsys):
    train(steps=2)
    told = train(steps=3, fresh=True)
    assert told[0].endswith("/.trainerd/runs/train.old-1")
    assert told[1] == "trainerd: new run, kept in .trainerd/runs/train"
    monkeypatch.setenv("TRAINERD_FRESH", "1")
    train(steps=3)
    assert runs(tmp_path) == ["train", "train.old-1", "train.old-2"]
    monkeypatch.setenv("TRAINERD_FRESH", "0")
    assert "complete at step 3" in train(steps=3, fresh=True)[0]
    back = train(steps=2, run="train.old-1")
    assert "complete at step 2" in back[0]
    assert not any("another-run" in line or "was made by" in line for line in back)


def test_a_mismatch_names_the_way_to_a_new_run_and_claims_nothing(train, tmp_path):
    train()
    with pytest.raises(MismatchError) as caught:
        train("--width", "2", width=2, run="train")
    assert "TRAINERD_FRESH=1 or session(fresh=True)" in str(caught.value)
    assert read_run_record(RunPaths(tmp_path / ".trainerd/runs/train").record).arguments == ()
    assert "new run" in train(width=2, fresh=True)[1]


@pytest.mark.parametrize("is_edited", [False, True], ids=["same text", "edited"])
def test_a_run_of_an_earlier_version_is_said_to_be_one(tmp_path, is_edited):
    choice = RunChoice(
        RunPaths(tmp_path), RunRecord("train", "train.py"), tmp_path, is_adopted=True, is_edited=is_edited
    )
    lines = list(opening_lines("here", None, choice, has_attempts=False))
    assert len(lines) == 2
    assert "by an earlier version, which named runs after the script alone" in lines[1]
    assert ("by another text of it" in lines[1]) is is_edited


def test_of_several_earlier_runs_the_nearest_is_named_and_the_others_are_counted(tmp_path):
    others = (OtherRun("near", ("--lr", "1")), OtherRun("far", ()), OtherRun("farther", ()))
    choice = RunChoice(
        RunPaths(tmp_path), RunRecord("new", "train.py", ("--lr", "2")), tmp_path, others=others
    )
    _, told = opening_lines("here", None, choice, has_attempts=False)
    assert told.startswith(
        "an earlier run of this script (the nearest of 3) has other arguments (--lr 1 → 2);"
    )
    assert told.endswith('TRAINERD_RUN=near or session(run="near")')


def test_a_working_folder_that_was_deleted_is_no_obstacle(train, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    train(steps=1, run_dir=tmp_path / "mine")
    assert train(steps=1, run_dir=tmp_path / "mine", fresh=True)[0].endswith("/mine.old-1")


def test_a_run_that_is_trained_is_not_moved(train, tmp_path):
    with trainerd.session(), pytest.raises(LockedError):
        trainerd.session(fresh=True)
    assert runs(tmp_path) == ["train"]


def test_what_the_program_has_put_into_its_folder_before_is_no_run_and_stays(train, tmp_path):
    out = tmp_path / "out"
    (out / "other/checkpoints").mkdir(parents=True)
    (out / "other/checkpoints/.writer.lock").touch()
    with (out / "events").open("w") as events:
        first = train(run_dir=out, fresh=True)
        assert first[0] == "trainerd: new run, kept in out"
        second = train(run_dir=out, fresh=True)
        events.write("written on")
    assert second[:3] == [
        f"trainerd: a new run begins; the one that was there is kept in {tmp_path}/out.old-1",
        f"trainerd: not moved, as trainerd did not make it: events, other in {out}",
        "trainerd: new run, kept in out",
    ]
    assert (out / "events").read_text() == "written on"
    assert "finished run" in train(run_dir=tmp_path / "out.old-1")[0]


def test_the_folder_of_the_program_itself_stays_and_the_run_in_it_leaves(train, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/data").write_text("mine")
    for _ in range(2):
        told = train(run_dir=".", fresh=True)
    assert (tmp_path / "here/data").read_text() == "mine"
    assert told[0].endswith("/here.old-1")
    (tmp_path / "here/attempts/mine").mkdir()
    monkeypatch.chdir(tmp_path / "here/attempts/mine")
    with pytest.raises(UserError, match="attempts/mine is in it"):
        train(run_dir=tmp_path / "here", fresh=True)


def test_a_move_that_a_crash_has_interrupted_is_completed_whether_or_not_the_next_start_is_fresh(
    train, tmp_path
):
    train(steps=2)
    run = RunPaths(tmp_path / ".trainerd/runs/train")
    run.departing.mkdir()
    run.metrics.rename(run.departing / "metrics.jsonl")
    run.checkpoints.rename(run.departing / "checkpoints")
    told = train(steps=3)
    assert told[0].endswith("is kept in " + str(run.root) + ".old-1")
    assert told[1] == "trainerd: new run, kept in .trainerd/runs/train"
    assert "complete at step 2" in train(steps=2, run="train.old-1")[0]


class OneOfTwo(Ranks):
    """A rank whose store is a dictionary, and which never waits."""

    def __init__(self, said, rank):
        super().__init__(HashStore(), rank=rank, world_size=2)
        self._said = said

    def put(self, key, value):
        self._said[key] = json.dumps(value)

    def get(self, key, *, limit_s=0.0):
        return json.loads(self._said[key])


@pytest.mark.parametrize("name", [None, "mine"], ids=["chosen", "named"])
def test_rank_0_decides_which_run_it_is_and_the_others_use_it(tmp_path, monkeypatch, name):
    """Each node has a disk of its own: the runs that are on one are not on the other."""
    asked = {"seed": 0, "every": None, "keep_last": 1, "keep_best": None, "keep_every": None, "grace_s": None}
    said, found = {}, []
    disks = [tmp_path / "a", tmp_path / "b"]
    for folder in disks:
        folder.mkdir()
    elsewhere = RunPaths(disks[1] / ".trainerd/runs/train")
    elsewhere.attempt(7).root.mkdir(parents=True)
    write_run_record(elsewhere.record, RunRecord("former", "train.py", ("--other",)))
    for rank, folder in enumerate(disks):
        sys.modules["__main__"].__file__ = str(folder / "train.py")
        settings = resolve_settings(run_dir=None, run=name, fresh=True, environ={}, **asked)
        found.append(settled(settings, OneOfTwo(said, rank), {}))
    assert [each.run.root for each in found] == [
        folder / ".trainerd/runs" / (name or "train") for folder in disks
    ]
    assert [each.run_name for each in found] == [name or "train"] * 2
    assert found[0].choice.record == found[1].choice.record
    assert elsewhere.attempt(7).root.is_dir()  # rank 1 has moved nothing


@pytest.mark.parametrize(
    "environ",
    [{"TRAINERD_JOB": "mnist", "TRAINERD_RUN_DIR": "run"}, {"TORCHELASTIC_RESTART_COUNT": "1"}],
    ids=["attempt of a job", "round of torchrun"],
)
def test_what_is_restarted_by_others_does_not_begin_again_each_time(
    train, tmp_path, environ, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    train(run_dir=tmp_path / "run")
    settings = resolve_settings(
        run_dir=tmp_path / "run",
        fresh=True,
        seed=0,
        every=None,
        keep_last=1,
        keep_best=None,
        keep_every=None,
        grace_s=None,
        environ=environ,
    )
    capsys.readouterr()
    assert settled(settings, None, environ) == settings
    assert not (tmp_path / "run.old-1").exists()
    told = "trainerd: fresh has no effect: a supervised job begins a new run by "
    told += "`trainerd restart mnist --fresh`\n"
    assert capsys.readouterr().err == (told if "TRAINERD_JOB" in environ else "")


@pytest.mark.parametrize(
    ("name", "value"), [("TRAINERD_FRESH", "yes"), ("TRAINERD_RUN", "a/b")], ids=["fresh", "run"]
)
def test_a_variable_that_cannot_be_read_is_refused(train, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=value):
        train()


def test_a_name_and_a_folder_exclude_one_another():
    with pytest.raises(UserError, match="both say which run it is"):
        trainerd.session("folder", run="name")


def test_the_folder_is_where_the_script_was_started_not_where_it_went(tmp_path):
    """It goes there before it imports trainerd."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/train.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "a/train.py"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    (run,) = (tmp_path / ".trainerd/runs").iterdir()
    assert read_run_record(run / "run.json").script == "a/train.py"
    assert done.stderr.startswith(f"trainerd: new run, kept in .trainerd/runs/{run.name}\n")
