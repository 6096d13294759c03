"""Something of another kind in a run folder is told at once, and nothing stays locked or open."""

from __future__ import annotations

import os
import signal

import pytest
import torch

import trainerd
from trainerd.checkpoint.lock import holds_lock
from trainerd.contract.paths import RunPaths
from trainerd.errors import UserError

pytestmark = [pytest.mark.torch, pytest.mark.timeout(60)]

FILES = (
    "metrics.jsonl",
    "resume.json",
    "witness.json",
    "finished.json",
    "retention.json",
    "checkpoints/.writer.lock",
)
FOLDERS = ("checkpoints", "quarantine", "abandoned", "attempts")
IN_PLACE = {
    "folder": lambda path: path.mkdir(),
    "FIFO": os.mkfifo,
    "link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "file": lambda path: path.touch(),
}


def finish(run_dir):
    with trainerd.session(run_dir) as session:
        model = torch.nn.Linear(1, 1)
        session.track(model=model, optimizer=torch.optim.SGD(model.parameters()))
        list(session.batches([torch.ones(1)]))


def descriptors():
    return {os.path.realpath(f"/proc/self/fd/{name}") for name in range(1024)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in FILES for kind in IN_PLACE if kind != "file"]
    + [(name, kind) for name in FOLDERS for kind in IN_PLACE if kind != "folder"],
)
def test_it_is_an_error_that_names_it_and_leaves_nothing_behind(tmp_path, name, kind):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    IN_PLACE[kind](path)
    before, handler = set(tmp_path.rglob("*")), signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError, match=path.name):
        finish(tmp_path / "run")
    run = RunPaths(tmp_path / "run")
    assert not holds_lock(run.checkpoints)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not {each for each in descriptors() if str(tmp_path) in each}
    if name in (*FILES[:-1], *FOLDERS):
        assert set(tmp_path.rglob("*")) == before
    path.rmdir() if path.is_dir() else path.unlink()
    finish(tmp_path / "run")  # which the lock would forbid
    assert run.finished.exists()


def test_a_run_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="run is a file; a run has a folder there"):
        finish(tmp_path / "run")


def test_what_fails_later_leaves_no_lock_either(tmp_path, monkeypatch):
    monkeypatch.setattr(trainerd.training.engine.run_parts.RunParts, "_publish_retention", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finish(tmp_path)
    assert not holds_lock(RunPaths(tmp_path).checkpoints)
    monkeypatch.undo()
    finish(tmp_path)
