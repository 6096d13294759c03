"""Checkpoints asked for, pinned, pruned and gone back to, by the command line on a real run."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support.daemon_bench import Bench
from tests.support.training_runs import TINY, result_of, train
from trainerd.checkpoint.committed import read_checkpoint
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.paths import RunPaths

pytestmark = pytest.mark.torch

EVERY = {"TRAINERD_CHECKPOINT_EVERY_STEPS": 5, "TRAINERD_CHECKPOINT_KEEP_LAST": "all"}
LONG = ("--batches", 40)


def trainerd(*arguments, state, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "trainerd", *map(str, arguments), "--state", str(state)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def bench(tmp_path):
    tmp_path.chmod(0o755)
    bench = Bench(tmp_path)
    yield bench
    bench.clean_up()


def submit(bench, *arguments, **checkpoint):
    bench.drop(
        "tiny",
        "",
        command=[sys.executable, str(TINY), *map(str, arguments)],
        env={"OMP_NUM_THREADS": "1"},
        checkpoint=checkpoint,
    )


@pytest.mark.slow
def test_a_running_job_saves_when_it_is_asked(bench):
    bench.start()
    submit(bench, "--step-ms", 50, "--batches", 1000, every={"epochs": "never", "seconds": "never"})
    run = bench.state.run("tiny")
    bench.wait_running("tiny")
    bench.wait_for(lambda: (bench.job("tiny") or {}).get("step"), "a first step")
    answer = json.loads(trainerd("checkpoint", "tiny", "--json", state=bench.state.root))
    made = CheckpointStore.of_run(run).find(answer["checkpoint"])
    assert made.manifest.reason == "asked"
    assert bench.stop() == 0


@pytest.mark.slow
def test_a_run_goes_back_to_an_older_checkpoint_and_ends_as_if_it_had_never_left_it(bench, tmp_path):
    bench.start()
    # Long enough that it is still at work when two commands have been started, on a busy machine too.
    submit(bench, *LONG, "--step-ms", 30, every={"steps": 4}, keep_last=99)
    store = CheckpointStore.of_run(bench.state.run("tiny"))
    bench.wait_for(lambda: len(store.checkpoints()) >= 4, "some checkpoints")
    assert "stop it first" in trainerd("resume", "tiny", "--from", 4, state=bench.state.root, code=1)
    trainerd("stop", "tiny", "--wait", state=bench.state.root)
    left = [checkpoint.name for checkpoint in store.checkpoints()[1:]]
    oldest = store.checkpoints()[0]
    trainerd("resume", "tiny", "--from", oldest.step, state=bench.state.root)
    bench.wait_state("tiny", "finished", limit_s=60)
    assert [aside.path.name for aside in store.abandoned()] == left
    lines = {checkpoint.manifest.lineage for checkpoint in store.checkpoints()[1:]}
    assert len(lines) == 1
    assert oldest.manifest.lineage not in lines
    assert train(tmp_path / "undisturbed", *LONG, **EVERY).code == 0
    assert result_of(bench.state.run("tiny").root) == result_of(tmp_path / "undisturbed")


@pytest.fixture
def finished(tmp_path):
    """A state folder with one finished run, made without a supervisor."""
    run = tmp_path / "state" / "runs" / "tiny"
    assert train(run, "--epochs", 1, **EVERY).code == 0
    return tmp_path / "state"


@pytest.mark.slow
def test_prune_says_what_it_would_do_and_why_and_does_it(finished):
    run = RunPaths(finished / "runs" / "tiny")
    store = CheckpointStore.of_run(run)
    assert len(store.checkpoints()) == 3  # of step 5, of the end of the epoch, and the final one
    plan = json.loads(trainerd("prune", "tiny", "--dry-run", "--json", state=finished))
    assert [each["is_kept"] for each in plan["decisions"]] == [True, True, True]
    run.retention.write_text(run.retention.read_text().replace('"keep_last": null', '"keep_last": 1'))
    plan = json.loads(trainerd("prune", "tiny", "--dry-run", "--json", state=finished))
    assert [each["is_kept"] for each in plan["decisions"]] == [False, False, True]
    assert len(store.checkpoints()) == 3
    trainerd("pin", "tiny", 5, "--note", "in the paper", state=finished)
    assert "pinned: in the paper" in trainerd("prune", "tiny", state=finished)
    trainerd("pin", "tiny", 5, "--remove", state=finished)
    trainerd("prune", "tiny", state=finished)
    assert [checkpoint.step for checkpoint in store.checkpoints()] == [10]


def test_prune_is_refused_while_somebody_trains(finished):
    with CheckpointStore.of_run(RunPaths(finished / "runs" / "tiny")).lock():
        assert str(os.getpid()) in trainerd("prune", "tiny", state=finished, code=1)


def test_the_planned_interval_is_said_and_used(tmp_path):
    ending = train(tmp_path / "run", "--epochs", 1, TRAINERD_CHECKPOINT_AUTO=1)
    assert "trainerd: a checkpoint every" in ending.output


@pytest.mark.slow
@pytest.mark.root
def test_a_full_disk_pauses_the_job_and_room_lets_it_finish(bench, tmp_path):
    """A tiny tmpfs holds the run; a stranger's file fills it and is removed."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    bench.state.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(bench.state.root)], check=True)
    try:
        bench.start()
        submit(bench, "--step-ms", 50, every={"steps": 4}, keep_last=1)
        bench.wait_for(lambda: (bench.job("tiny") or {}).get("checkpoint_step"), "a checkpoint")
        filler = bench.state.root / "filler"
        subprocess.run(["fallocate", "-l", "29M", str(filler)], check=True)
        paused = bench.wait_state("tiny", "paused")
        assert "MiB" in paused["reason"] or "space" in paused["reason"], paused["reason"]
        filler.unlink()
        bench.wait_state("tiny", "finished", limit_s=60)
        result = result_of(bench.state.run("tiny").root)
    finally:
        bench.clean_up()
        subprocess.run(["umount", str(bench.state.root)], check=True)
    assert train(tmp_path / "undisturbed", **EVERY).code == 0
    assert result == result_of(tmp_path / "undisturbed")


def test_a_second_signal_does_not_spoil_a_save(tmp_path):
    both = "training.batch=SIGTERM@6;checkpoint.data.written=SIGTERM@2"
    ending = train(tmp_path / "run", failpoints=both, **EVERY)
    assert (ending.code, signal.SIGTERM.name in ending.output) == (85, True)
    store = CheckpointStore.of_run(RunPaths(tmp_path / "run"))
    newest = store.checkpoints()[-1]
    store.verify(newest)
    assert read_checkpoint(newest.path).step == 6
