"""The verbs that ask the supervisor."""

from __future__ import annotations

import dataclasses
import json
import math
import threading

import httpx
import pytest

from tests.support.fake_control import CRASH, MNIST, NOW_S, job, served
from trainerd.cli import waiting
from trainerd.contract.codec import to_plain
from trainerd.supervisor.api.control import EventView

PS = """\
NAME   STATE          EPOCH  STEP  LOSS  CHECKPOINT  ATTEMPT  SINCE  REASON
cifar  parked             -     -     -           -        5    42s  5 attempts without progress: M…
later  backing-off        -     -     -           -        1    42s  next attempt in 1m38s: crashed…
mnist  running      1.30/10   130  0.25         120        2    42s  making progress
queue  queued             -     -     -           -        -    42s  waits for 2 GPUs: mnist has th…
"""

STATUS = """\
mnist: running
  reason      making progress
  since       2027-01-15 07:59:18 (42s ago)
  attempt     2 (5 more without progress)
  progress    step 130, epochs 1.30/10, batch 30/100, in step
  loss        0.25
  checkpoint  step 120
  resume      exact: 10 steps run again, equal in samples and values
  processes   shim 4242, rank 0: 4243
  spec        /jobs/mnist.yaml
  run folder  /state/runs/mnist

notes on the resume
  changed-code: code.train.py: code.train.py changed

last outcome
  attempt 1 crashed, 2027-01-15 07:59:00 (1m00s ago)
    reason      ValueError: no more cheese (after step 120)
    evidence    rank 0 exited with 1
                outcome record: ValueError: no more cheese
    last step   120
    checkpoint  step-000000100
    next        run again at once from step-000000100: the job has made progress
"""


@pytest.mark.usefixtures("supervisor")
def test_ps_is_a_table_that_fits_the_terminal(trainerd):
    assert trainerd("ps").stdout == PS
    assert max(len(line) for line in trainerd("ps", columns=80).stdout.splitlines()) <= 80


@pytest.mark.usefixtures("supervisor")
def test_ps_cuts_nothing_in_a_pipe(trainerd):
    assert "ModuleNotFoundError: torchvision\n" in trainerd("ps", columns=None).stdout


def test_ps_as_json_is_what_the_api_says(trainerd_json, supervisor):
    supervisor.jobs["mnist"] = dataclasses.replace(MNIST, loss=math.nan)
    jobs = {one["name"]: one for one in trainerd_json("ps")}
    assert jobs["mnist"] == json.loads(json.dumps(to_plain(MNIST) | {"loss": "nan"}))
    assert list(jobs) == ["cifar", "later", "mnist", "queue"]


def test_ps_without_jobs_says_where_to_drop_one(trainerd, supervisor, jobs_dir):
    supervisor.jobs.clear()
    assert trainerd("ps").stdout == f"no jobs: drop a spec into {jobs_dir}, or use `trainerd submit`\n"


@pytest.mark.usefixtures("supervisor")
def test_status_shows_everything_about_a_job(trainerd):
    assert trainerd("status", "mnist").stdout == STATUS


def test_status_leaves_out_what_a_plain_command_does_not_say(trainerd, supervisor):
    supervisor.jobs["plain"] = job("plain", attempt=1)
    shown = trainerd("status", "plain").stdout
    assert not any(label in shown for label in ("progress ", "loss", "processes", "last outcome"))


@pytest.mark.usefixtures("supervisor")
def test_status_as_json_has_the_last_outcome_with_its_evidence(trainerd_json):
    shown = trainerd_json("status", "mnist")["last_outcome"]
    assert (shown["evidence"], shown["next_action"]) == (list(CRASH.evidence), CRASH.next_action)


def test_status_without_a_name_shows_the_supervisor(trainerd, trainerd_json, supervisor, jobs_dir, state):
    assert trainerd("status").stdout == (
        "trainerd 1.2.3, running\n"
        "  pid           99\n"
        "  since         2027-01-15 07:00:00 (1h00m ago)\n"
        "  jobs          1 running\n"
        f"  jobs folder   {jobs_dir}\n"
        f"  state folder  {state.root}\n"
    )
    assert trainerd_json("status") == to_plain(supervisor.daemon())


def test_explain_shows_each_ending_oldest_first(trainerd, trainerd_json, supervisor):
    second = dataclasses.replace(CRASH, attempt=2, kind="lost", evidence=(), step=None, checkpoint=None)
    supervisor.outcomes["mnist"] = (CRASH, second)
    text = trainerd("explain", "mnist").stdout
    assert text.index("attempt 1 crashed") < text.index("attempt 2 lost")
    assert "  evidence    -\n  last step   -\n  checkpoint  -\n" in text
    assert [one["kind"] for one in trainerd_json("explain", "mnist")] == ["crashed", "lost"]
    assert [one["kind"] for one in trainerd_json("explain", "mnist", "--last", 1)] == ["lost"]


def fault(sequence, *lines):
    reason = "trainerd failed in deciding about SlotGranted: KeyError: 'x'; this is a bug of trainerd"
    data = {"event": "FaultSeen", "traceback": list(lines)}
    return EventView(sequence, NOW_S - 5, "queue", "job.faulted", reason, data)


def test_explain_shows_the_traceback_of_a_job_that_is_set_aside(trainerd, supervisor):
    supervisor.events = [fault(1, "old"), fault(2, "Traceback:", "  File \x1b[2J", "KeyError: 'x'")]
    assert "set aside" not in trainerd("explain", "queue").stdout  # it was handled again since
    supervisor.jobs["queue"] = dataclasses.replace(supervisor.jobs["queue"], state="faulted")
    supervisor.outcomes["queue"] = (CRASH,)
    text = trainerd("explain", "queue").stdout
    assert text.index("attempt 1 crashed") < text.index("set aside as faulted, 2027-01-15 07:59:55 (5s ago)")
    assert "reason      trainerd failed in deciding about SlotGranted: KeyError: 'x'" in text
    assert "traceback   Traceback:\n" in text
    assert "              KeyError: 'x'\n  next        none until `trainerd resume queue`" in text
    assert "old" not in text
    assert "\x1b" not in text


@pytest.mark.usefixtures("supervisor")
def test_explain_of_a_job_that_has_not_ended_says_so(trainerd, trainerd_json):
    assert trainerd("explain", "queue").stdout == "no attempt of queue has ended yet\n"
    assert trainerd_json("explain", "queue") == []


@pytest.mark.parametrize(
    ("verb", "name", "line"),
    [
        ("stop", "mnist", "mnist: stopped: asked to stop\n"),
        ("resume", "cifar", "cifar: queued: asked to resume\n"),
    ],
)
def test_stop_and_resume_pass_the_request_on(trainerd, trainerd_json, supervisor, verb, name, line):
    assert trainerd(verb, name).stdout == line
    assert supervisor.calls == [(verb, name)]
    assert [one["name"] for one in trainerd_json("stop", "mnist", "queue")] == ["mnist", "queue"]


def test_what_the_supervisor_refuses_is_shown_with_its_hint(trainerd, supervisor):
    supervisor.jobs["done"] = job("done", "finished")
    assert trainerd("stop", "done", code=1).stderr == "error: done is finished\n  there is nothing to stop\n"


def become_stopped_after(supervisor, looks: int) -> None:
    """Let the job drain until it has been looked at so often."""
    seen = []
    look = supervisor.get_job

    def get_job(name):
        seen.append(name)
        state = "draining" if len(seen) < looks else "stopped"
        supervisor.jobs[name] = dataclasses.replace(supervisor.jobs[name], state=state)
        return look(name)

    supervisor.get_job = get_job


def test_stop_can_wait_until_the_job_has_ended(trainerd, supervisor, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_S", 0.001)
    become_stopped_after(supervisor, looks=6)
    result = trainerd("stop", "mnist", "--wait")
    assert result.stderr == "mnist: draining: asked to stop\nmnist: stopped: asked to stop\n"


def test_waiting_outlives_a_restart_of_the_supervisor(trainerd_json, control, state, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    looked, results = threading.Event(), []
    look = control.get_job

    def get_job(name):
        if control.calls:  # it was told to stop
            looked.set()
            control.jobs[name] = dataclasses.replace(MNIST, state=state_now)
        return look(name)

    control.get_job, state_now = get_job, "draining"
    thread = threading.Thread(target=lambda: results.extend(trainerd_json("stop", "mnist", "--wait")))
    with served(control, state.socket):
        thread.start()
        assert looked.wait(20)
    state_now = "stopped"
    with served(control, state.socket):
        thread.join(20)
    assert [one["state"] for one in results] == ["stopped"]


def events(count: int) -> list[EventView]:
    return [
        EventView(number, NOW_S, "mnist" if number % 2 else None, "job.running", f"message {number}")
        for number in range(1, count + 1)
    ]


def test_events_shows_the_newest(trainerd, trainerd_json, supervisor):
    supervisor.events = events(60)
    supervisor.daemon_view = dataclasses.replace(supervisor.daemon_view, last_event=60)
    lines = trainerd("events").stdout.splitlines()
    assert len(lines) == 50
    assert lines[0] == "2027-01-15 08:00:00  mnist            job.running              message 11"
    assert [one["sequence"] for one in trainerd_json("events", "-n", 2)] == [59, 60]


def test_events_of_one_job_are_found_however_thinly_spread(trainerd_json, supervisor):
    supervisor.events = events(2500)
    assert [one["sequence"] for one in trainerd_json("events", "--job", "mnist", "-n", 2)] == [2497, 2499]
    assert len(trainerd_json("events", "-n", 0)) == 2500


@pytest.mark.usefixtures("supervisor")
@pytest.mark.parametrize("verb", ["status", "explain", "stop", "resume", "logs", "metrics", "checkpoints"])
def test_an_unknown_job_is_an_error_that_names_the_nearest(trainerd, verb):
    result = trainerd(verb, "mnits", code=1)
    assert result.stderr == "error: no job 'mnits'\n  did you mean 'mnist'?\n"


@pytest.mark.parametrize("name", ["../etc", "UPPER", "a b", ""])
def test_a_name_that_can_be_no_job_is_an_error_before_anybody_is_asked(trainerd, supervisor, name):
    assert "is not a job name" in trainerd("stop", name, code=1).stderr
    assert supervisor.calls == []


@pytest.mark.parametrize(
    "words", [("ps",), ("status", "mnist"), ("stop", "mnist"), ("events",), ("submit", "job.yaml")]
)
def test_without_a_supervisor_the_error_says_how_to_start_one(trainerd, state, words):
    assert trainerd(*words, code=1).stderr == (
        "error: no supervisor is running on .trainerd\n"
        "  start one with `trainerd run --state .trainerd`, or name another state folder with --state-dir\n"
    )
    state.socket.touch()  # nor is a file one
    assert "no supervisor is running" in trainerd(*words, code=1).stderr


def test_without_a_state_folder_the_error_says_how_to_name_one(trainerd):
    assert trainerd("ps", code=1).stderr.startswith("error: no state folder: there is no ./.trainerd here")


def test_the_state_folder_may_be_named_by_option_or_variable(trainerd, control, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with served(control, elsewhere / "trainerd.sock"):
        assert trainerd("ps", "--state-dir", elsewhere).stdout == PS
        old = trainerd("ps", "--state", elsewhere)
        assert old.stdout == PS
        assert old.stderr.startswith("--state of `ps` is a job's state now; taken as --state-dir")
        monkeypatch.setenv("TRAINERD_STATE", str(elsewhere))
        assert trainerd("ps").stdout == PS


@pytest.mark.usefixtures("state")
def test_fields_of_a_newer_supervisor_are_ignored(trainerd, monkeypatch, control):
    answers = {
        "/v1/jobs": [to_plain(MNIST) | {"color": "blue"}],
        "/v1/daemon": to_plain(control.daemon_view) | {"color": "blue"},
    }
    monkeypatch.setattr(
        httpx.Client,
        "request",
        lambda _self, _method, path, **_options: httpx.Response(
            200, content=json.dumps(answers[path.partition("?")[0]]).encode()
        ),
    )
    assert "mnist" in trainerd("ps").stdout


@pytest.mark.usefixtures("state")
def test_a_supervisor_that_does_not_answer_in_time_is_an_error(trainerd, monkeypatch):
    def hang(*_args, **_options):
        raise httpx.ReadTimeout("")

    monkeypatch.setattr(httpx.Client, "request", hang)
    assert "did not answer within 10 s" in trainerd("ps", code=1).stderr
