"""Which standby an attempt is given: that of its job, the spare, or none."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from trainerd.contract import codec
from trainerd.contract.environment import ATTEMPT, JOB, STANDBY
from trainerd.contract.records import LaunchRecord
from trainerd.shim.standby_recipe import RECIPE_FORMAT, StandbyRecipe
from trainerd.supervisor.attempt.standbys import Standbys, traits
from trainerd.supervisor.machine.standby_policy import REST_LIMIT_S, StandbyState


def launch(job="ant", attempt=2, command=("python", "train.py"), **changes):
    env = {"PATH": "/bin", STANDBY: "1", JOB: job, ATTEMPT: str(attempt)}
    record = LaunchRecord(
        job=job, attempt=attempt, command=command, workdir="/w", env=env, nproc=1, is_group=False,
        grace_s=30.0, log_paths=(f"/state/{job}/rank-0.log",),
    )  # fmt: skip
    return replace(record, **changes)


class Shims:
    """Stands for the processes: each is ready at once, and takes any order."""

    def __init__(self):
        self.jobs, self.orders, self.pids = [], [], []

    def spawn(self, orders, recipe):
        self.orders.append(socket.socket(fileno=os.dup(orders)))
        self.orders[-1].send(b"ready 1000000")
        content = codec.from_json(os.pread(recipe, 1 << 20, 0), StandbyRecipe, RECIPE_FORMAT, source="recipe")
        self.jobs.append((content.launch.job, self.orders[-1]))
        self.pids.append(os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}))
        return self.pids[-1]

    def given(self):
        """Return the job for which the shim was prepared that has been given an order; None without one."""
        for job, orders in self.jobs:
            with contextlib.suppress(BlockingIOError):
                if orders.recv(10, socket.MSG_DONTWAIT) == b"order":
                    return job
        return None

    def has_left(self, number):
        return bool(select.select([self.orders[number]], [], [], 0)[0])

    def wait_until_left(self, number):
        # A process that was started just now may hold the other end for some microseconds.
        assert select.select([self.orders[number]], [], [], 10.0)[0], "its orders did not end"

    def end(self):
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@pytest.fixture
def shims():
    subject = Shims()
    yield subject
    subject.end()


@pytest.fixture
def standbys(shims, monkeypatch):
    subject = Standbys(shims.spawn)
    subject.shims = shims
    monkeypatch.setattr(
        "trainerd.supervisor.attempt.standbys._hand_over", lambda orders, _: orders.send(b"order") and None
    )
    return subject


def prepare(standbys, record):
    recipe = StandbyRecipe(f"/state/{record.job}/attempts/{record.attempt}", record, "note", "cgroup")
    standbys.prepare(recipe, StandbyState(record.attempt, "digest", "preparing"))
    assert standbys.state(record.job).phase == "ready"


def take(standbys, record):
    """Return whose standby an attempt is given."""
    standbys.take(f"/state/{record.job}/attempts/{record.attempt}", record)
    return standbys.shims.given()


def test_one_that_does_not_say_in_time_that_it_waits_for_the_next_exec_is_killed(standbys, monkeypatch):
    """It may be late, and would be left behind without notice."""
    monkeypatch.setattr("trainerd.supervisor.attempt.standbys.ANSWER_LIMIT_S", 0.01)
    prepare(standbys, launch())
    assert not standbys.park("ant")
    _, status = os.waitpid(standbys.shims.pids[0], 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


@pytest.mark.parametrize(
    "changed",
    ["echo 500 > /proc/self/oom_score_adj", "umask 0123", "ulimit -n 99"],
    ids=["oom_score_adj", "umask", "limits"],
)
def test_what_a_process_inherits_beside_its_launch_record_counts(changed):
    program = "from trainerd.supervisor.attempt.standbys import traits; print(traits())"
    words = [sys.executable, "-c", program]
    plain, same, other = (
        subprocess.run(
            ["/bin/sh", "-c", f'{before}; exec "$@"', "sh", *words], capture_output=True, check=True
        ).stdout
        for before in (":", ":", changed)
    )
    assert plain == same
    assert plain != other


def test_the_groups_and_capabilities_of_a_process_count():
    """Files that it makes would have that group."""
    status = Path("/proc/self/status").read_text()
    own = traits()
    for name in ("Gid", "Groups", "CapEff", "NoNewPrivs", "Seccomp"):
        line = next(each for each in status.splitlines() if each.startswith(f"{name}:"))
        assert line in repr(own).replace("\\t", "\t"), name


def test_a_job_is_given_its_own(standbys):
    prepare(standbys, launch())
    prepare(standbys, launch("bee"))
    assert take(standbys, launch()) == "ant"


def test_a_job_is_not_given_that_of_a_job_that_may_need_it(standbys):
    prepare(standbys, launch())
    assert take(standbys, launch("bee", 1)) is None


@pytest.mark.parametrize(
    "record",
    [
        launch("bee", 1),
        launch("ant", 3),
        launch("bee", 1, ("python", "other.py", "--lr=1")),
        launch("bee", 1, ("python", "-m", "train")),
    ],
    ids=["another job", "another attempt", "another script", "a module"],
)
def test_one_that_was_released_is_the_spare_of_any_job_with_its_interpreter_and_environment(standbys, record):
    prepare(standbys, launch())
    standbys.release("ant")
    assert standbys.names == frozenset()
    assert take(standbys, record) == "ant"
    assert take(standbys, record) is None, "there is one"


def env(**changes):
    return launch("bee").env | changes


@pytest.mark.parametrize(
    "record",
    [
        launch("bee", 1, ("/usr/bin/python3", "train.py")),
        launch("bee", 1, ("python", "-O", "train.py")),
        launch("bee", 1, ("bash", "run.sh")),
        launch("bee", 1, workdir="/elsewhere"),
        launch("bee", 1, env=env(OMP_NUM_THREADS="2")),
        launch("bee", 1, env={name: value for name, value in env().items() if name != STANDBY}),
        launch("bee", 1, env_file="/secrets"),
        launch("bee", 1, memory_bytes=1 << 30),
        launch("bee", 1, is_group=True),
        launch("bee", 1, uses_cgroup=False),
    ],
    ids=[
        "interpreter", "options", "no interpreter", "working folder", "environment", "asks for none",
        "env_file", "limit of memory", "ranks", "no cgroup",
    ],
)  # fmt: skip
def test_another_start_is_not_given_the_spare_which_stays(standbys, record):
    prepare(standbys, launch())
    standbys.release("ant")
    assert take(standbys, record) is None
    assert take(standbys, launch("bee", 1)) == "ant"


def test_one_with_a_limit_of_memory_is_no_spare(standbys, shims):
    prepare(standbys, launch(memory_bytes=1 << 30))
    standbys.release("ant")
    shims.wait_until_left(0)


def test_the_newest_is_the_spare_and_the_one_before_is_ended(standbys, shims):
    for number, job in enumerate(["ant", "bee"]):
        prepare(standbys, launch(job))
        standbys.release(job)
        assert not shims.has_left(number)
    shims.wait_until_left(0)
    assert take(standbys, launch("cat", 1)) == "bee"


def test_a_standby_that_an_edit_of_the_spec_made_unfit_for_its_job_is_used_all_the_same(standbys):
    prepare(standbys, launch())
    assert take(standbys, launch(command=("python", "train.py", "--lr=1"))) == "ant"


def test_the_spare_is_ended_after_a_while(standbys, shims, monkeypatch):
    prepare(standbys, launch())
    standbys.release("ant")
    began_s = time.monotonic()
    for after_s, has_left in ((REST_LIMIT_S - 1, False), (REST_LIMIT_S + 1, True)):
        with monkeypatch.context() as patched:
            patched.setattr(time, "monotonic", lambda now_s=began_s + after_s: now_s)
            standbys.dismiss_spare(after_s=REST_LIMIT_S)
        if has_left:
            shims.wait_until_left(0)
        assert shims.has_left(0) == has_left
    assert take(standbys, launch("bee", 1)) is None


def test_the_spare_ends_with_all_others(standbys, shims):
    prepare(standbys, launch())
    standbys.release("ant")
    standbys.dismiss_all()
    shims.wait_until_left(0)
