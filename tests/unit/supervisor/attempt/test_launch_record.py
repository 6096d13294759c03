"""What a shim is told to start."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.supervisor_objects import spec
from trainerd.contract.environment import EVERY_STEPS, from_environ
from trainerd.contract.paths import RunPaths
from trainerd.contract.policy import Cadence, CheckpointPolicy, Resources, RetentionPolicy
from trainerd.supervisor.attempt.launch_record import launch_record

RUN = RunPaths(Path("/state/runs/ant"))


def record(job=None, environ=None, **fields):
    return launch_record(job or spec(), RUN, 7, environ=environ or {}, **fields)


def test_python_means_the_interpreter_of_the_job():
    job = spec(command=("python", "train.py"), python="/venv/bin/python")
    assert record(job).command == ("/venv/bin/python", "train.py")


def test_python_without_one_is_the_supervisors_own():
    assert record(spec(command=("python", "x.py"))).command == (sys.executable, "x.py")


def test_what_the_spec_reserves_of_memory_is_what_it_may_take():
    assert record(spec(resources=Resources(memory_bytes=2 << 30))).memory_bytes == 2 << 30
    assert record(spec()).memory_bytes is None


def test_other_programs_are_left_as_they_are():
    assert record(spec(command=("python3", "python"))).command == ("python3", "python")


def test_what_is_said_to_the_supervisor_alone_is_not_inherited():
    environ = {
        "PATH": "/bin",
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "RANK": "3",
        "MASTER_ADDR": "elsewhere",
        "TRAINERD_FAILPOINTS": "a=kill",
        "TORCHELASTIC_RUN_ID": "x",
        "LD_LIBRARY_PATH": "/opt/lib",
    }
    env = record(environ=environ).env
    assert env["PATH"] == "/bin"
    assert env["LD_LIBRARY_PATH"] == "/opt/lib"
    assert not env.keys() & {
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "RANK",
        "MASTER_ADDR",
        "TRAINERD_FAILPOINTS",
        "TORCHELASTIC_RUN_ID",
    }


def test_the_spec_wins_over_what_is_inherited_and_trainerd_over_both():
    job = spec(env={"A": "spec", "PYTHONUNBUFFERED": "", "TRAINERD_JOB": "spoofed"})
    env = record(job, {"A": "inherited", "B": "inherited"}).env
    assert (env["A"], env["B"], env["PYTHONUNBUFFERED"]) == ("spec", "inherited", "")
    assert env["TRAINERD_JOB"] == "ant"


def test_the_rank_reads_what_the_spec_says():
    said = from_environ(record(spec("v9", grace_s=12.5)).env)
    assert said.run_dir == RUN.root
    assert said.attempt_dir == RUN.attempt(7).root
    assert (said.job, said.attempt, said.spec_digest, said.grace_s) == ("ant", 7, "v9", 12.5)


def test_what_the_spec_leaves_open_about_checkpoints_stays_the_scripts():
    policy = CheckpointPolicy(Cadence(steps=7), RetentionPolicy(keep_last=9))
    said = record(spec("v9", checkpoint=policy, checkpoint_variables=(EVERY_STEPS,))).env
    heard = from_environ(said, script=CheckpointPolicy(keep=RetentionPolicy(keep_last=1))).checkpoint
    assert (heard.every.steps, heard.keep.keep_last) == (7, 1)
    assert from_environ(record(spec("v9")).env).checkpoint is None


def test_a_job_that_asked_for_gpus_sees_those_it_was_given():
    job = spec(resources=Resources(gpus=2))
    assert record(job, gpus=(1, 3)).env["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert "CUDA_VISIBLE_DEVICES" not in record().env


def test_each_rank_has_a_log_of_its_own():
    logs = record(spec(nproc=2)).log_paths
    assert logs == (str(RUN.rank_log(0)), str(RUN.rank_log(1)))


def test_only_a_job_that_says_nproc_is_told_of_ranks():
    assert not record(spec()).is_group
    assert record(spec(is_group_of_one=True)).is_group
    assert record(spec(nproc=2)).is_group


def test_the_rank_hears_of_trackers_only_if_the_spec_speaks_of_them():
    assert from_environ(record(spec("v9")).env).trackers is None
    assert from_environ(record(spec("v9", trackers=())).env).trackers == ()
    assert from_environ(record(spec("v9", trackers=("wandb",))).env).trackers == ("wandb",)


def test_compiled_code_is_kept_in_the_run_folder_of_this_node():
    assert from_environ(record().env).compiled_dir == RUN.root / "compiled"
