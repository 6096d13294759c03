"""What people ask a real supervisor for: hold, drain, retry, reload; each outlives the supervisor."""

from __future__ import annotations

import pytest

from tests.support.daemon_bench import OBEDIENT, script


@pytest.mark.slow
def test_a_held_job_is_not_started_until_it_is_resumed_not_even_by_the_next_supervisor(bench):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    assert bench.post("/v1/jobs/ant/hold").json()["state"] == "draining"
    assert bench.wait_state("ant", "queued")["reason"] == "held until it is resumed"
    bench.kill()
    bench.start()
    bench.post("/v1/rescan")
    held = bench.job("ant")
    assert (held["state"], held["is_held"], bench.starts("ant")) == ("queued", True, 1)
    bench.post("/v1/jobs/ant/resume")
    assert bench.wait_running("ant", attempt=2)["is_held"] is False


def test_a_drained_supervisor_starts_nothing_until_it_is_released_and_goes_on_answering(bench):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    assert bench.post("/v1/hold").json()["is_on_hold"] is True
    bench.wait_state("ant", "queued")
    bench.drop("bee", script("bee", OBEDIENT))
    bench.wait_state("bee", "queued")
    bench.kill()
    bench.start()
    bench.post("/v1/rescan")
    assert bench.get("/v1/daemon")["is_on_hold"] is True
    assert "starts nothing" in bench.job("ant")["reason"]
    assert (bench.starts("ant"), bench.starts("bee")) == (1, 0)
    bench.post("/v1/release")
    bench.wait_running("ant", attempt=2)
    bench.wait_running("bee")


def test_a_supervisor_killed_between_the_decision_to_drain_all_and_the_drains_is_followed_by_one_that_drains(
    bench,
):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    bench.kill()
    bench.state.hold.write_text("{}")
    bench.start()
    bench.wait_state("ant", "queued")
    assert bench.outcomes("ant")[0]["attempt"] == 1


def test_retry_tries_a_parked_job_again_and_refuses_one_that_was_not_given_up(bench):
    bench.start()
    bench.drop("ant", script("ant", "exit 1"), restart={"budget": 1, "backoff": {"initial": 0, "max": 0}})
    parked = bench.wait_state("ant", "parked")
    bench.drop("bee", script("bee", OBEDIENT))
    bench.wait_running("bee")
    assert bench.post("/v1/jobs/ant/retry").status_code == 200
    bench.wait_for(lambda: bench.job("ant")["attempt"] > parked["attempt"], "another attempt")
    refused = bench.post("/v1/jobs/bee/retry")
    assert (refused.status_code, "has not been given up" in refused.json()["error"]) == (409, True)


@pytest.mark.slow
def test_a_reload_asked_for_over_the_api_begins_the_program_anew_and_no_job_notices(bench):
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    before = bench.wait_running("ant")
    started = bench.get("/v1/daemon")["started_wall_s"]
    assert bench.post("/v1/reload").status_code == 202

    def is_new() -> bool:
        return bench.answers() and bench.get("/v1/daemon")["started_wall_s"] > started

    bench.wait_for(is_new, "the supervisor to begin anew")
    assert bench.wait_running("ant")["pids"] == before["pids"]
