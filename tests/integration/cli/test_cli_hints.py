"""Mistakes that are answered with what is there."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from tests.support.fake_control import job
from trainerd.cli.export import _check_metric
from trainerd.errors import UserError


def test_the_dry_run_of_a_removal_names_the_file_of_a_broken_spec(trainerd, supervisor, jobs_dir):
    (jobs_dir / "bad.yaml").write_text("comand: x\n")
    supervisor.jobs["bad"] = job("bad", "rejected", spec_path="")
    assert f"- {jobs_dir / 'bad.yaml'}" in trainerd("rm", "bad", "--dry-run").stdout
    assert (jobs_dir / "bad.yaml").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("exec",), 93),
        (("slurm",), 93),
        (("validate",), 1),
        (("drill",), 2),
        (("drill", "--html"), 2),
    ],
    ids=["exec", "slurm", "validate", "drill", "a-usage-error"],
)
def test_a_file_name_with_an_escape_sequence_is_shown_as_text(trainerd, tmp_path, words, code):
    file = tmp_path / "a\x1b[31mb" / "job.yaml"
    command = ("--", "true") if "--html" in words else ()
    assert "a\\x1b[31mb" in trainerd(*words, file, *command, code=code).stderr


@pytest.mark.usefixtures("supervisor")
@pytest.mark.parametrize(
    ("words", "code"),
    [(("exec",), 93), (("slurm",), 93), (("validate",), 1), (("submit",), 1), (("sweep",), 1)],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_spec_that_may_not_be_read_is_refused_with_the_remedy(trainerd, tmp_path, monkeypatch, words, code):
    file = tmp_path / "job.yaml"
    file.write_text("command: [sleep, '1']\n")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, *how: str(path) != str(file) and real(path, *how))
    opened = os.open

    def refuse(path, *arguments, **options):
        if str(path) == str(file):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    more = ("--set", "env.A=1") if words == ("sweep",) else ()
    said = trainerd(*words, file, *more, code=code).stderr
    assert (f"{file}: may not be read by this user" in said, f"chmod u+r {file}" in said) == (True, True)


@pytest.mark.usefixtures("supervisor")
def test_a_name_for_a_command_is_checked_before_anything_is_written(trainerd, tmp_path):
    said = trainerd("submit", "--name", f"../../../../../../../..{tmp_path}/out", "--", "true", code=1).stderr
    assert "is not a job name: a name is never a path" in said
    assert list(tmp_path.glob("out*")) == []


def test_a_state_folder_that_is_a_file_is_no_folder_to_start_a_supervisor_on(trainerd, tmp_path):
    (tmp_path / "file").touch()
    said = trainerd("status", "--state", tmp_path / "file", code=1).stderr
    assert f"{tmp_path / 'file'} is not a folder" in said
    assert "trainerd run" not in said


def test_a_jobs_folder_that_is_not_there_is_not_validated_for(trainerd, tmp_path):
    (tmp_path / "job.yaml").write_text("name: a\ncommand: [sleep, '1']\n")
    trainerd("validate", tmp_path / "job.yaml", "--jobs", tmp_path)
    said = trainerd("validate", tmp_path / "job.yaml", "--jobs", tmp_path / "jbos", code=1).stderr
    assert f"--jobs {tmp_path / 'jbos'}: there is no such folder" in said


def store(*scores: dict[str, float]):
    checkpoints = [SimpleNamespace(manifest=SimpleNamespace(scores=each)) for each in scores]
    return SimpleNamespace(directory="/c", checkpoints=lambda: checkpoints)


def test_an_unknown_score_lists_those_that_there_are():
    _check_metric(store({"accuracy": 1.0}, {"f1": 0.5}), "f1")
    with pytest.raises(UserError) as refused:
        _check_metric(store({"accuracy": 1.0}, {"f1": 0.5}), "acuracy")
    assert "did you mean accuracy? there are: accuracy, f1" in str(refused.value)
    with pytest.raises(UserError, match=r"session\.report"):
        _check_metric(store({}), "accuracy")
