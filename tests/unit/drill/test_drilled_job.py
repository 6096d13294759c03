"""The job of a drill sees the GPUs that the caller sees."""

from __future__ import annotations

import dataclasses

import pytest

from trainerd.contract.paths import RunPaths
from trainerd.contract.policy import Resources
from trainerd.contract.resolved import ResolvedJob
from trainerd.drill.drilled_job import job_of_spec, visible_devices
from trainerd.errors import UserError
from trainerd.supervisor.attempt.launch_record import launch_record

SPEC = ResolvedJob(
    name="mnist",
    command=("python", "train.py"),
    workdir="/",
    spec_path="/job.yaml",
    spec_digest="d",
    resources=Resources(gpus=2),
)


@pytest.mark.parametrize("environ", [{"CUDA_VISIBLE_DEVICES": "3,4"}, {}], ids=["named", "all"])
def test_a_job_with_gpus_inherits_those_of_the_caller(tmp_path, environ):
    job = job_of_spec(SPEC, environ, find_devices=lambda: 8)
    env = launch_record(job, RunPaths(tmp_path), 1, environ=environ).env
    assert env.get("CUDA_VISIBLE_DEVICES") == environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    "environ",
    [{"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "0"}, {}],
    ids=["none", "one", "machine"],
)
def test_a_job_that_asks_for_more_gpus_than_there_are_is_not_drilled(environ):
    with pytest.raises(UserError, match="asks for 2 GPUs"):
        job_of_spec(SPEC, environ, find_devices=lambda: 1)


def test_a_job_without_gpus_asks_for_no_count():
    plain = dataclasses.replace(SPEC, resources=Resources())
    assert job_of_spec(plain, {}, find_devices=lambda: pytest.fail("asked")).resources.gpus == 0


@pytest.mark.parametrize(
    ("named", "count"), [("", 0), ("-1", 0), ("0", 1), ("0, 1", 2), ("1,-1,2", 1), ("GPU-ab,MIG-cd", 2)]
)
def test_the_visible_devices_are_counted_as_cuda_counts_them(named, count):
    assert visible_devices({"CUDA_VISIBLE_DEVICES": named}, lambda: None) == count


def test_an_unknown_number_of_devices_is_no_reason_to_refuse():
    assert job_of_spec(SPEC, {}, find_devices=lambda: None).resources.gpus == 0
