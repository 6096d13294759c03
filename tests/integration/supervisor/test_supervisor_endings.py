"""What becomes of jobs under a real supervisor: plain commands, real processes."""

from __future__ import annotations

import os

from tests.support.daemon_bench import ENDLESS, OBEDIENT, script
from trainerd.contract.process import identify, is_alive


def test_a_command_that_exits_with_0_is_finished(bench):
    bench.start()
    bench.drop("ant", script("ant", "exit 0"))
    job = bench.wait_state("ant", "finished")
    assert job["last_outcome"]["kind"] == "finished"
    assert bench.starts("ant") == 1


def test_a_crash_is_tried_again_after_a_wait(bench):
    bench.start()
    bench.drop("ant", script("ant", "test $(wc -l < ant.starts) -ge 3 && exit 0; exit 1"))
    bench.wait_state("ant", "finished")
    assert [outcome["kind"] for outcome in bench.outcomes("ant")] == ["crashed", "crashed", "finished"]
    assert "run again" in bench.outcomes("ant")[0]["next_action"]


def test_a_command_that_never_gets_anywhere_is_parked(bench):
    bench.start()
    bench.drop("ant", script("ant", "exit 1"))
    job = bench.wait_state("ant", "parked")
    assert bench.starts("ant") == 3
    assert job["budget_left"] == 0
    assert "3 attempts in a row made no progress" in job["reason"]


def test_resuming_a_parked_job_tries_again(bench):
    bench.start()
    bench.drop("ant", script("ant", "test -e mended && exit 0; exit 1"))
    bench.wait_state("ant", "parked")
    (bench.work / "mended").touch()
    assert bench.post("/v1/jobs/ant/resume").status_code == 200
    bench.wait_state("ant", "finished")


def test_a_command_that_is_not_there_is_rejected_and_others_go_on(bench):
    bench.start()
    bench.drop("ant", "", command=["no-such-program"])
    bench.drop("bee", script("bee", "exit 0"))
    job = bench.wait_state("ant", "rejected")
    assert "no-such-program" in job["reason"]
    bench.wait_state("bee", "finished")


def test_a_script_with_a_syntax_error_is_rejected_and_tried_again_when_mended(bench):
    bench.start()
    program = bench.work / "train.py"
    program.write_text("def :\n")
    bench.drop("ant", "", command=["python", "train.py"])
    job = bench.wait_state("ant", "rejected")
    assert "SyntaxError" in job["reason"]
    assert job["attempt"] == 1
    program.write_text("print('mended')\n")
    bench.wait_state("ant", "finished")


def test_a_job_larger_than_the_machine_is_rejected_with_the_reason(bench):
    bench.start()
    bench.drop("ant", "exit 0", resources={"cpus": 4096})
    assert "asks for 4096 cpus" in bench.wait_state("ant", "rejected")["reason"]


def test_jobs_wait_for_a_slot_and_say_why(bench):
    bench.start()
    cpus = len(os.sched_getaffinity(0))
    bench.drop("ant", script("ant", OBEDIENT), resources={"cpus": cpus})
    bench.wait_running("ant")
    bench.drop("bee", script("bee", "exit 0"))
    assert "waits for 1 cpu (0 free)" in bench.wait_state("bee", "queued")["reason"]
    bench.post("/v1/jobs/ant/stop")
    bench.wait_state("bee", "finished")


def test_stop_keeps_a_job_stopped_until_it_is_resumed(bench):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    assert bench.post("/v1/jobs/ant/stop").json()["state"] == "draining"
    bench.wait_state("ant", "stopped")
    assert bench.post("/v1/jobs/ant/stop").status_code == 409
    bench.post("/v1/jobs/ant/resume")
    assert bench.wait_running("ant", attempt=2)["attempt"] == 2


def test_a_rank_that_ignores_the_request_is_killed_at_the_end_of_its_grace(bench):
    bench.start()
    bench.drop("ant", script("ant", f"trap '' TERM; {ENDLESS}"), grace=0.3)
    bench.wait_running("ant")
    bench.post("/v1/jobs/ant/stop")
    job = bench.wait_state("ant", "stopped")
    assert job["last_outcome"]["kind"] == "killed"
    assert "grace period" in job["last_outcome"]["reason"]


def test_a_removed_spec_drains_its_job_and_leaves_the_run_folder(bench):
    bench.start()
    spec = bench.drop("ant", script("ant", f"trap 'touch drained; exit 0' TERM; {ENDLESS}"))
    bench.wait_running("ant")
    spec.unlink()
    bench.wait_gone("ant")
    assert (bench.work / "drained").exists()
    assert bench.state.run("ant").rank_log(0).exists()


def test_a_removed_spec_that_returns_goes_on_with_the_next_attempt(bench):
    """The folder of an attempt is never used twice."""
    bench.start()
    spec = bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    spec.unlink()
    bench.wait_gone("ant")
    bench.drop("ant", script("ant", "exit 0"))
    assert bench.wait_state("ant", "finished")["attempt"] == 2


def test_a_changed_spec_drains_and_goes_on_under_the_new_one(bench):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    bench.drop("ant", script("ant", "touch new; exit 0"))
    job = bench.wait_state("ant", "finished")
    assert job["attempt"] == 2
    assert (bench.work / "new").exists()


def test_a_finished_job_goes_on_when_its_spec_changes(bench):
    bench.start()
    bench.drop("ant", script("ant", "exit 0"))
    bench.wait_state("ant", "finished")
    bench.drop("ant", script("ant", "touch more; exit 0"))
    bench.wait_file("more")
    assert bench.wait_state("ant", "finished")["attempt"] == 2


def test_a_broken_edit_leaves_the_running_job_alone_and_is_shown(bench):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    before = bench.wait_running("ant")
    bench.write("ant", '{"comand": ["sh"]}')
    job = bench.wait_for(
        lambda: (found := bench.job("ant")) and "did you mean 'command'" in found["reason"] and found,
        "the refusal to be shown",
    )
    assert (job["state"], job["pids"]) == ("running", before["pids"])


def test_the_environment_of_the_supervisor_is_inherited_but_for_what_is_said_to_it_alone(bench):
    bench.start(NOTIFY_SOCKET="/nowhere", RANK="7", ORDINARY="yes")
    bench.drop("ant", "env > seen; exit 0")
    bench.wait_state("ant", "finished")
    seen = dict(line.split("=", 1) for line in (bench.work / "seen").read_text().splitlines() if "=" in line)
    assert seen["ORDINARY"] == "yes"
    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT"} & seen.keys(), "the spec says no nproc"
    assert "NOTIFY_SOCKET" not in seen
    assert "TRAINERD_FAILPOINTS" not in seen
    assert seen["TRAINERD_JOB"] == "ant"


def test_a_shim_that_is_killed_leaves_nobody_behind_and_the_job_goes_on(bench):
    bench.start()
    bench.drop("ant", script("ant", f"test $(wc -l < ant.starts) -ge 2 && exit 0; {ENDLESS}"))
    job = bench.wait_running("ant")
    rank = identify(job["pids"][0])
    os.kill(job["shim_pid"], 9)
    bench.wait_state("ant", "finished")
    assert bench.outcomes("ant")[0]["kind"] == "lost"
    assert not is_alive(rank)
