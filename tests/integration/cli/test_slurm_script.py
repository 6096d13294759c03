"""The batch script of `trainerd slurm`, run against a controller that answers as Slurm 22.05 did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from trainerd.cli.slurm import command
from trainerd.cli.slurm_script import SlurmWish, batch_script, limit_s
from trainerd.contract.policy import Resources
from trainerd.contract.resolved import ResolvedJob

JOB = ResolvedJob("mnist", ("true",), "/", "/mnist.yaml", "0", grace_s=30.0)
LIMIT_S = 20.0

FAKES = {
    # How the controller answers; it fails as often as FAILURES says.
    "scontrol": """
        echo "scontrol $*" >> calls
        if [ -s failures ]; then tail -n +2 failures > rest; mv rest failures; exit 1; fi
        [ "$1" = requeue ] || cat answer""",
    "sleep": 'echo "sleep $*" >> calls',
    "sbatch": 'cat > submitted; echo "Submitted batch job 7"',
}


class Cluster:
    """A folder of fake programs, and the script in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, body in FAKES.items():
            path = folder / name
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(0o755)
        (folder / "calls").touch()

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}

    def start(self, program: str, *, state: str, reason: str, failures: int = 0) -> subprocess.Popen:
        answer = f"JobId=7 JobName=mnist JobState={state} Reason={reason} Dependency=(null)\n"
        (self.folder / "answer").write_text(answer)
        (self.folder / "failures").write_text("x\n" * failures)
        script = batch_script(JOB, SlurmWish(), command=("bash", "-c", program), margin_s=30.0)
        return subprocess.Popen(["bash", "-c", script], cwd=self.folder, env=self.environment)

    def run(self, program: str, **answer) -> tuple[int, bool]:
        """Return the exit code, and whether the job was put back into the queue."""
        code = self.start(program, **answer).wait(LIMIT_S)
        return code, "scontrol requeue 7\nsleep 300\n" in (self.folder / "calls").read_text()


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.mark.parametrize(
    ("state", "reason", "is_back"),
    [
        ("RUNNING", "None", True),
        ("COMPLETING", "TimeLimit", True),
        ("COMPLETING", "None", False),
        ("CANCELLED", "None", False),
        ("PENDING", "BeginTime", False),
        ("COMPLETING", "TimeLimitXX", False),
    ],
    ids=["warned", "limit", "cancelled or requeued by Slurm", "cancelled", "requeued", "another reason"],
)
def test_a_job_is_put_back_only_if_slurm_does_not_and_nobody_cancelled_it(cluster, state, reason, is_back):
    code, was_put_back = cluster.run("exit 85", state=state, reason=reason)
    assert was_put_back == is_back
    assert code == (0 if is_back else 85), "the sleep that stands for the end by Slurm exits with 0"


@pytest.mark.parametrize("code", [0, 1, 93, 137])
def test_what_is_not_to_be_run_again_is_not(cluster, code):
    assert cluster.run(f"exit {code}", state="RUNNING", reason="None") == (code, False)
    assert (cluster.folder / "calls").read_text() == ""


def test_a_controller_that_fails_for_a_while_is_asked_again(cluster):
    assert cluster.run("exit 85", state="RUNNING", reason="None", failures=3) == (0, True)


def test_without_an_answer_a_job_is_not_put_back(cluster):
    assert cluster.run("exit 85", state="RUNNING", reason="None", failures=9) == (85, False)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_the_shell_stays_until_the_job_has_left(cluster, signum):
    """Slurm tells the shell alone of a limit that comes, and every process of a cancellation."""
    program = "trap 'echo told >> told; exit 85' USR1 TERM; touch up; while :; do read -t 0.05 <> <(:); done"
    script = cluster.start(program, state="RUNNING", reason="None")
    deadline_s = time.monotonic() + LIMIT_S
    while not (cluster.folder / "up").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    script.send_signal(signum)
    if signum == signal.SIGTERM:
        child = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
        os.kill(int(child[0]), signum)
    assert script.wait(LIMIT_S) == 0
    assert (cluster.folder / "told").read_text() == "told\n"
    assert "requeue" in (cluster.folder / "calls").read_text()


def test_a_warning_that_ends_the_command_before_it_listens_is_no_failure(cluster):
    assert cluster.run("kill -USR1 $$", state="RUNNING", reason="None") == (0, True)


def test_the_options_come_from_the_spec():
    job = ResolvedJob(
        "big", ("true",), "/", "/big.yaml", "0", grace_s=100.5, resources=Resources(2, 3.5, 5 << 30)
    )
    wish = SlurmWish("4:00:00", ("partition=gpu", "cpus-per-task=8"))
    lines = batch_script(job, wish, command=("x",), margin_s=30.0).splitlines()
    options = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"signal=B:USR1@161", "time=4:00:00", "gpus-per-node=2", "mem=5120M", "partition=gpu"} <= options
    assert {"cpus-per-task=8", "requeue", "open-mode=append", "nodes=1", "job-name=big"} <= options
    assert "cpus-per-task=4" not in options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("1:30", 90), ("4:00:00", 14400), ("1-12", 129600), ("1-0:30", 88200), ("0-0:1:1", 61)],
)
def test_time_limits_are_read_as_slurm_reads_them(text, seconds):
    assert limit_s(text) == seconds


@pytest.mark.parametrize("text", ["", "4h", "1:2:3:4", "-1", "1-", "unlimited time"])
def test_what_is_no_time_limit_is_refused(text):
    with pytest.raises(ValueError, match="no time limit"):
        limit_s(text)


def invoke(tmp_path, *words):
    spec = tmp_path / "my job.yaml"
    spec.write_text("name: ant\ncommand: [python, train.py]\ngrace: 30s\n")
    return CliRunner().invoke(command, [str(spec), *words])


def test_the_verb_prints_a_script_that_bash_reads(tmp_path):
    result = invoke(tmp_path, "--time", "4:00:00", "--sbatch", "--partition=low prio", "--state", "a b")
    assert result.exit_code == 0, result.output
    assert subprocess.run(["bash", "-n"], input=result.output, text=True, check=False).returncode == 0
    assert f"'{tmp_path}/my job.yaml' --state '{Path('a b').absolute()}' &" in result.output
    assert "#SBATCH --partition=low prio\n" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "1"], "leaves no time to train"),
        (["--time", "soon"], "no time limit"),
        (["--sbatch", "signal=USR1@3"], "needs its own signal"),
        (["--sbatch", "partition=a\nrm -rf x"], "no option of sbatch"),
        (["--nodes", "0"], "0"),
        (["--run", "r"], "--run is for several nodes"),
    ],
    ids=["short", "time", "own", "line", "nodes", "run"],
)
def test_what_would_not_work_is_refused(tmp_path, words, said):
    result = invoke(tmp_path, *words)
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_several_nodes_are_started_by_srun_each_with_the_cores_of_the_spec(tmp_path, cluster, monkeypatch):
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    words = ("--nodes", "2", "--run", "/shared/ant", "--sbatch", "cpus-per-task=3", "--submit", "--json")
    result = invoke(tmp_path, *words)
    assert result.exit_code == 0, result.output
    script = json.loads(result.output)["script"]
    assert {"#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=1"} <= set(script.splitlines())
    started = "\nsrun --kill-on-bad-exit=0 --ntasks-per-node=1 --cpus-per-task=3 "
    assert started in script
    assert script.count(" --run /shared/ant &\n") == 1
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_a_run_folder_of_several_nodes_is_in_the_state_folder_that_all_see(tmp_path):
    result = invoke(tmp_path, "--nodes", "2", "--state", "/shared/ant")
    assert " --state /shared/ant --run /shared/ant/run &" in result.output


def test_submit_gives_the_script_to_sbatch(tmp_path, cluster, monkeypatch):
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    monkeypatch.chdir(tmp_path)
    result = invoke(tmp_path, "--submit", "--json")
    answer = json.loads(result.output)
    assert answer["submitted"] == "Submitted batch job 7"
    assert (tmp_path / "submitted").read_text() == answer["script"]


def test_a_cluster_without_sbatch_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sbatch" in str(invoke(tmp_path, "--submit").exception)
