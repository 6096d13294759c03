"""What an accepted spec says, in each of the three formats, and how it is completed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from trainerd.contract import environment, resolved
from trainerd.contract.policy import (
    Cadence,
    CheckpointPolicy,
    KeepBest,
    KeepEvery,
    Resources,
    RestartPolicy,
    RetentionPolicy,
)
from trainerd.contract.resolved import ResolvedJob
from trainerd.errors import SpecError
from trainerd.supervisor.specs.load import load_spec

FULL_YAML = """\
name: mnist
command: [python, train.py, --epochs, "2"]
workdir: src
env: {OMP_NUM_THREADS: "2"}
nproc: 2
resources: {gpus: 1, cpus: 1.5, memory: 2GiB}
checkpoint:
  every: {steps: 200, seconds: 10m, epochs: never}
  at_start: true
  keep_last: all
  keep_best: {metric: accuracy, n: 2, on_tie: latest}
  keep_every: {epochs: 10}
restart: {budget: 7, backoff: {initial: 2s, max: 1m30s}}
grace: 45
stall_timeout: never
priority: -3
"""

FULL_TOML = """\
name = "mnist"
command = ["python", "train.py", "--epochs", "2"]
workdir = "src"
nproc = 2
grace = 45.0
stall_timeout = "never"
priority = -3
[env]
OMP_NUM_THREADS = "2"
[resources]
gpus = 1
cpus = 1.5
memory = "2GiB"
[checkpoint]
every = {steps = 200, seconds = 600, epochs = "never"}
at_start = true
keep_last = "all"
keep_every.epochs = 10
[[checkpoint.keep_best]]
metric = "accuracy"
n = 2
on_tie = "latest"
[restart]
budget = 7
backoff = {initial = 2, max = "90s"}
"""

FULL_JSON = """\
{"name": "mnist", "command": "python train.py --epochs '2'", "workdir": "src",
 "env": {"OMP_NUM_THREADS": "2"},
 "nproc": 2, "resources": {"gpus": 1, "cpus": 1.5, "memory": "2GiB"},
 "checkpoint": {"every": {"steps": 200, "seconds": "10m", "epochs": "never"}, "at_start": true,
                "keep_last": "all", "keep_best": [{"metric": "accuracy", "n": 2, "on_tie": "latest"}],
                "keep_every": {"epochs": 10}},
 "restart": {"budget": 7, "backoff": {"initial": "2s", "max": "1m30s"}},
 "grace": "45s", "stall_timeout": "never", "priority": -3}
"""


@pytest.mark.parametrize(
    ("suffix", "text"),
    [("yaml", FULL_YAML), ("yml", FULL_YAML), ("YAML", FULL_YAML), ("toml", FULL_TOML), ("json", FULL_JSON)],
)
def test_the_same_spec_is_the_same_job_in_every_format(bench, suffix, text):
    (bench.folder / "src").mkdir()
    job = bench.load(text, name=f"file.{suffix}")
    assert job == ResolvedJob(
        name="mnist",
        command=("python", "train.py", "--epochs", "2"),
        workdir=str(bench.folder / "src"),
        spec_path=str(bench.folder / f"file.{suffix}"),
        spec_digest=job.spec_digest,
        env={"OMP_NUM_THREADS": "2"},
        nproc=2,
        resources=Resources(gpus=1, cpus=1.5, memory_bytes=2 * 2**30),
        checkpoint=CheckpointPolicy(
            Cadence(steps=200, seconds=600.0, epochs=None, at_start=True),
            RetentionPolicy(
                keep_last=None,
                keep_best=(KeepBest("accuracy", 2, "max", "latest"),),
                keep_every=KeepEvery(epochs=10),
            ),
        ),
        restart=RestartPolicy(7, 2.0, 90.0),
        grace_s=45.0,
        stall_timeout_s=None,
        priority=-3,
        checkpoint_variables=(
            environment.EVERY_STEPS,
            environment.EVERY_SECONDS,
            environment.EVERY_EPOCHS,
            environment.AUTO,
            environment.AT_START,
            environment.KEEP_LAST,
            environment.KEEP_BEST,
            environment.KEEP_EVERY,
        ),
    )
    assert resolved.decode(resolved.encode(job)) == job


def test_a_command_alone_gets_the_defaults_of_the_contract(bench):
    job = bench.load("command: [true-ish]")
    assert job == ResolvedJob(
        name="job",
        command=("true-ish",),
        workdir=str(bench.folder),
        spec_path=job.spec_path,
        spec_digest=job.spec_digest,
    )


def test_a_field_without_a_value_counts_as_not_written(bench):
    job = bench.load("command: a\nenv:\n#  A: b\nname:\ncheckpoint:\n  every:\nresources: {memory: null}")
    assert (job.name, job.env, job.checkpoint, job.resources) == ("job", {}, CheckpointPolicy(), Resources())


def test_each_cadence_keeps_its_default_unless_it_says_never(bench):
    assert bench.load("command: a\ncheckpoint: {every: {steps: 5}}").checkpoint.every == Cadence(steps=5)
    off = bench.load("command: a\ncheckpoint: {every: {steps: never, seconds: never, epochs: never}}")
    assert off.checkpoint.every == Cadence(None, None, None)


def test_every_auto_leaves_the_interval_to_measurement(bench):
    assert bench.load("command: a\ncheckpoint: {every: auto}").checkpoint.every == Cadence(auto=True)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("", ()),
        ("checkpoint:", ()),
        ("checkpoint: {every: }", ()),
        ("checkpoint: {keep_last: 3}", (environment.KEEP_LAST,)),
        ("checkpoint: {every: {epochs: 1}}", (environment.EVERY_EPOCHS, environment.AUTO)),
        ("checkpoint: {every: auto}", (environment.AUTO,)),
    ],
)
def test_only_what_the_spec_says_about_checkpoints_overrules_the_script(bench, section, expected):
    assert bench.load(f"command: a\n{section}").checkpoint_variables == expected


def test_one_rule_and_a_list_of_rules_are_both_taken_for_keep_best(bench):
    one = bench.load("command: a\ncheckpoint: {keep_best: {metric: val/loss, mode: min}}")
    two = bench.load("command: a\ncheckpoint: {keep_best: [{metric: val/loss, mode: min}, {metric: b}]}")
    assert one.checkpoint.keep.keep_best == (KeepBest("val/loss", mode="min"),)
    assert two.checkpoint.keep.keep_best == (KeepBest("val/loss", mode="min"), KeepBest("b"))


def test_a_text_is_split_as_a_shell_would_and_not_expanded(bench):
    job = bench.load(r"""command: python train.py --name "a b" '$HOME' *.py x\ y""")
    assert job.command == ("python", "train.py", "--name", "a b", "$HOME", "*.py", "x y")


def test_text_that_looks_like_a_date_is_text(bench):
    assert bench.load("command: [a, 2024-01-01]").command == ("a", "2024-01-01")


def test_merges_and_anchors_work_in_yaml(bench):
    job = bench.load("command: a\nenv: &e {A: x, B: y}\nresources: {gpus: 1}\n")
    assert job.env == {"A": "x", "B": "y"}
    text = (
        "command: &c [a, b]\ncheckpoint:\n  keep_best:\n  - &r {metric: m, n: 2}\n  - {<<: *r, metric: k}\n"
    )
    assert bench.load(text).checkpoint.keep.keep_best == (KeepBest("m", 2), KeepBest("k", 2))


def test_a_byte_order_mark_is_ignored(bench):
    assert bench.load(b"\xef\xbb\xbfcommand: a").command == ("a",)


def test_the_file_stem_names_the_job_dots_and_all(bench):
    assert bench.load("command: a", name="mnist.v2.yaml").name == "mnist.v2"


def test_relative_paths_begin_at_the_folder_of_the_spec(bench):
    (bench.folder / "code").mkdir()
    (bench.folder / "secrets.env").touch(mode=0o600)
    job = bench.load("command: a\nworkdir: ./code/../code\nenv_file: secrets.env")
    assert job.workdir == str(bench.folder / "code")
    assert job.env_file == str(bench.folder / "secrets.env")


def test_a_python_of_a_virtual_environment_is_not_followed_to_the_one_it_links_to(bench):
    (bench.folder / "venv").mkdir()
    (bench.folder / "venv" / "python").symlink_to(sys.executable)
    assert bench.load("command: a\npython: venv/python").python == str(bench.folder / "venv" / "python")


def test_a_python_without_a_slash_is_looked_for_in_path(bench):
    assert bench.load("command: a\npython: sh").python == shutil.which("sh")


def test_a_tilde_means_the_home_of_the_user(bench, monkeypatch):
    monkeypatch.setenv("HOME", str(bench.folder))
    (bench.folder / "w").mkdir()
    (bench.folder / "py").symlink_to(sys.executable)
    job = bench.load("command: a\nworkdir: ~/w\npython: ~/py")
    assert (job.workdir, job.python) == (str(bench.folder / "w"), str(bench.folder / "py"))


@pytest.mark.parametrize(
    ("mode", "remedy"),
    [
        (0o644, "chmod 600"),
        (0o604, "chmod 600"),
        (0o602, "chmod 600"),
        (0o640, "chmod 600"),
        (0o600, None),
        (0o400, None),
    ],
)
def test_a_file_of_secrets_must_not_be_open_to_everybody(bench, mode, remedy):
    path = bench.folder / "secrets.env"
    path.touch()
    path.chmod(mode)
    text = "command: a\nenv_file: secrets.env"
    if remedy is None:
        assert bench.load(text).env_file == str(path)
    else:
        assert remedy in bench.error(text)


def test_nothing_of_a_file_of_secrets_is_in_the_job(bench):
    path = bench.folder / "secrets.env"
    path.write_text("TOKEN=hunter2\n")
    path.chmod(0o600)
    assert b"hunter2" not in resolved.encode(bench.load("command: a\nenv_file: secrets.env"))


def test_a_spec_behind_a_link_takes_name_and_folder_from_the_link(bench):
    (bench.folder / "elsewhere").mkdir()
    (bench.folder / "elsewhere" / "target.yaml").write_text("command: a")
    (bench.folder / "linked.yaml").symlink_to("elsewhere/target.yaml")
    job = load_spec(bench.folder / "linked.yaml", trust=None)
    assert (job.name, job.workdir) == ("linked", str(bench.folder))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (os.mkfifo, "is a named pipe, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
        (lambda path: path.symlink_to("/nowhere/x"), "is a link to /nowhere/x, which does not exist"),
        (lambda path: path.symlink_to(path.name), "is a link that leads back to itself"),
        (lambda path: None, "there is no such file"),
    ],
    ids=["folder", "pipe", "device", "dangling", "loop", "nothing"],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, make, expected):
    make(tmp_path / "job.yaml")
    with pytest.raises(SpecError, match=expected):
        load_spec(tmp_path / "job.yaml", trust=None)


def test_the_example_specs_of_the_repository_are_accepted_where_they_are_meant_to_be_dropped(tmp_path):
    jobs = Path(__file__).parents[4] / "jobs"
    for example in sorted((jobs / "examples").glob("*/job.yaml")):
        text = example.read_text()
        (tmp_path / "examples").mkdir(exist_ok=True)
        (tmp_path / "examples" / example.parent.name).mkdir(exist_ok=True)
        dropped = tmp_path / f"{example.parent.name}.yaml"
        dropped.write_text(text)
        assert load_spec(dropped, trust=None).workdir == str(tmp_path / "examples" / example.parent.name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"command": "a", "env": {"A": "\\ud83d\\ude00"}}', "\U0001f600"),
        ('\t{"command": "a", "env": {"A": "x"}}', "x"),
        ('{"command": "a", "env": {"A"\n: "x"}}', "x"),
        ('{"command": "a", "env": {"A": "\x7f"}}', "\x7f"),
    ],
    ids=["surrogate pair", "tab at the beginning", "line break before a colon", "DEL"],
)
def test_json_that_the_yaml_parser_refuses_is_read(bench, text, value):
    assert bench.load(text, name="job.json").env["A"] == value


@pytest.mark.parametrize(
    ("text", "ranks"),
    [("", (1, False)), ("nproc: 1", (1, True)), ("nproc:", (1, False)), ("nproc: 2", (2, False))],
)
def test_one_rank_is_a_group_only_if_the_spec_says_so(tmp_path, text, ranks):
    path = tmp_path / "ant.yaml"
    path.write_text(f"command: a\n{text}\n")
    job = load_spec(path, trust=None)
    assert (job.nproc, job.is_group_of_one) == ranks


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", None),
        ("trackers:", None),
        ("trackers: []", ()),
        ("trackers: tensorboard", ("tensorboard",)),
        ("trackers: [wandb, tensorboard, wandb]", ("wandb", "tensorboard")),
    ],
)
def test_trackers_are_a_list_or_one_name(bench, line, expected):
    job = bench.load(f"command: a\n{line}")
    assert job.trackers == expected
    assert resolved.decode(resolved.encode(job)) == job


def test_a_tracker_that_there_is_not_is_named(bench):
    with pytest.raises(SpecError, match=r"trackers.*mlflow.*tensorboard.*wandb"):
        bench.load("command: a\ntrackers: [tensorbord]")
