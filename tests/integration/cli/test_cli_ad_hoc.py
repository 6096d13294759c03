"""Jobs without a spec file, waiting for jobs, and words that are no verbs."""

from __future__ import annotations

import dataclasses

import click
import pytest
import yaml
from click.testing import CliRunner

from tests.support.fake_control import MNIST, job
from trainerd.cli import submit, waiting
from trainerd.cli.ad_hoc import as_name, name_of_command, spec_of_command
from trainerd.cli.main import ELSEWHERE, GROUPS, group
from trainerd.errors import UserError
from trainerd.supervisor.specs.document import BYTES_MAX
from trainerd.supervisor.specs.load import load_spec


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(submit, "POLL_S", 0.001)
    monkeypatch.setattr(waiting, "POLL_S", 0.001)


@pytest.fixture
def accepting(supervisor, jobs_dir):
    def accept() -> None:
        for path in jobs_dir.iterdir():
            digest = load_spec(path, trust=None).spec_digest
            supervisor.jobs[path.stem] = job(
                path.stem, "queued", reason="waits for its turn", spec_digest=digest
            )

    supervisor.on_rescan = accept
    return supervisor


@pytest.mark.usefixtures("accepting")
def test_a_command_becomes_a_spec_in_the_jobs_folder(trainerd, jobs_dir, tmp_path):
    for name in ("train", "train-2"):
        out = trainerd(
            "submit", "--gpus", 1, "--env", "A=b=c", "--", "python3", "train.py", "--lr", "-1"
        ).stdout
        assert out == f"{name}: queued: waits for its turn\n"
        spec = yaml.safe_load((jobs_dir / f"{name}.yaml").read_text())
        assert spec["command"] == ["python", "train.py", "--lr", "-1"]
        assert (spec["workdir"], spec["resources"], spec["env"]) == (str(tmp_path), {"gpus": 1}, {"A": "b=c"})
        assert spec["python"].endswith("python3")


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize(
    "text", ["command: [./go]\nworkdir: sub\n", '{"command": ["./go"], "workdir": "sub"}']
)
def test_a_spec_is_read_from_standard_input_and_its_paths_begin_here(text, jobs_dir, tmp_path):
    (tmp_path / "sub").mkdir()
    result = CliRunner().invoke(group, ["submit", "-", "--name", "night"], input=text)
    assert result.exit_code == 0, result.output
    (path,) = jobs_dir.glob("night.*")
    assert yaml.safe_load(path.read_text())["workdir"] == str(tmp_path / "sub")
    assert "has no name" in CliRunner().invoke(group, ["submit", "-"], input=text).output
    assert "standard input" in CliRunner().invoke(group, ["submit", "-"], input="comand: x").output


@pytest.mark.usefixtures("accepting")
def test_a_spec_on_standard_input_that_is_too_long_is_refused_and_not_cut(jobs_dir):
    text = "name: night\ncommand: [./go]\nworkdir: .\n#" + "x" * BYTES_MAX + "\ngrace: 1s\n"
    assert (
        "standard input: the file is larger than"
        in CliRunner().invoke(group, ["submit", "-"], input=text).output
    )
    assert not list(jobs_dir.iterdir())


@pytest.mark.usefixtures("accepting")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name specs"),
        (("--",), "after --"),
        (("a.yaml", "--", "ls"), "after --"),
        (("-", "a.yaml"), "the only spec"),
        (("a.yaml", "--gpus", "1"), "are for a COMMAND"),
        (("a.yaml", "--name", "x"), "a spec has a field name"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(trainerd, words, message):
    assert message in trainerd("submit", *words, code=2).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("cd", "x", "&&", "python", "t.py"),
        ("python", "t.py", "|", "tee"),
        ("python", "t.py", ">>", "log"),
        ("source", "v"),
    ],
)
def test_a_command_for_a_shell_is_refused_with_what_to_write(words):
    with pytest.raises(UserError, match="started without one") as caught:
        spec_of_command(words)
    assert "bash -c" in caught.value.hint


def test_a_job_is_named_after_its_script():
    assert name_of_command(("python", "-u", "/x/My_Train.py"), ()) == "my-train"
    assert name_of_command(("python", "-m", "pkg.fit", "--x"), {"fit"}) == "fit-2"
    assert name_of_command(("./go.sh",), {"go", "go-2"}) == "go-3"
    assert as_name("___") == "job"


def test_wait_returns_when_all_are_there(trainerd, supervisor):
    supervisor.jobs["mnist"] = dataclasses.replace(MNIST, state="finished", reason="complete")
    assert trainerd("wait", "mnist").stdout == "mnist: finished: complete\n"
    assert trainerd("wait", "cifar", code=1).stdout.startswith("cifar: parked: ")
    trainerd("wait", "cifar", "--for", "rest")
    assert (
        "the time is up: later not finished"
        in trainerd("wait", "later", "--timeout", "0.01", code=124).stderr
    )
    assert "did you mean 'mnist'" in trainerd("wait", "mnits", code=1).stderr


def test_a_job_that_is_removed_ends_the_wait(trainerd, supervisor):
    jobs = [job("ant", "queued")]
    supervisor.jobs["ant"] = jobs[0]
    supervisor.list_jobs = lambda: (jobs.pop(),) if jobs else ()
    assert "ant was removed while it was waited for" in trainerd("wait", "ant", code=1).stderr


def test_wait_looks_again_until_the_job_moves(trainerd_json, supervisor):
    looks = iter(["queued", "starting", "running"])
    listed = supervisor.list_jobs

    def list_jobs():
        supervisor.jobs["ant"] = job("ant", next(looks, "running"))
        return listed()

    supervisor.jobs["ant"] = job("ant", "queued")
    supervisor.list_jobs = list_jobs
    assert [one["state"] for one in trainerd_json("wait", "ant", "--for", "running")] == ["running"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("list", "`trainerd ps`"),
        ("kill", "`trainerd stop`"),
        ("cancel", "`trainerd stop`"),
        ("top", "`trainerd ps --watch`"),
        ("describe", "`trainerd status`"),
        ("start", "`trainerd submit`"),
        ("verify", "`trainerd checkpoints --verify`"),
        ("version", "`trainerd --version`"),
        ("job.yaml", "`trainerd submit job.yaml`"),
        ("train.py", "`trainerd submit -- python train.py`"),
        ("subimt", "'submit'"),
        ("zzzzzz", "`trainerd --help`"),
    ],
)
def test_a_word_that_is_no_verb_leads_to_one(trainerd, word, meant):
    assert meant in trainerd(word, code=2).stderr


def test_each_word_of_another_program_leads_to_a_verb_and_is_none():
    verbs = set(group.list_commands(click.Context(group)))
    assert {meant.split()[0] for meant in ELSEWHERE.values()} <= {*verbs, "--version"}
    assert not verbs & set(ELSEWHERE)
    assert {verb for each in GROUPS.values() for verb in each} == verbs


def test_help_begins_with_what_a_newcomer_needs(trainerd):
    text = trainerd("--help").stdout
    first = text[text.index("Start with these:") :].split("\n\n")[0]
    assert [line.split()[0] for line in first.splitlines()[1:]] == ["run", "submit", "ps", "logs", "stop"]
    assert "\nMore:" not in text  # each verb has its place
