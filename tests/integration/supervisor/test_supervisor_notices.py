"""Hooks and preemption notices on a real supervisor."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.daemon_bench import OBEDIENT, script
from tests.support.loopback_servers import Answer, http_fake


@pytest.mark.slow
def test_hooks_are_told_by_command_and_webhook_and_one_that_hangs_delays_no_stop(bench):
    with http_fake(lambda asked: Answer(delay_s=30.0 if asked.path == "/hangs" else 0.0)) as fake:
        told = bench.work / "told"
        (bench.root / "trainerd.toml").touch(mode=0o600)
        config = (
            f'[notify.run]\ncommand = ["sh", "-c", "echo $TRAINERD_EVENT $TRAINERD_JOB >> {told}"]\n'
            f'[notify.dead]\nwebhook = "{fake.url}/hangs"\n'
            '[preemption]\nsources = [{file = "taken"}]\n'
        )
        bench.start(config=config)
        bench.drop(
            "ant", script("ant", "exit 0"), notify={"events": ["finished"], "webhook": f"{fake.url}/ok"}
        )
        bench.wait_state("ant", "finished")
        bench.wait_for(lambda: any(asked.path == "/ok" for asked in fake.asked), "the webhook")
        bench.wait_for(lambda: told.exists() and told.read_text() == "finished ant\n", "the command")
        (body,) = [json.loads(asked.body) for asked in fake.asked if asked.path == "/ok"]
        assert (body["event"], body["job"], body["state"]) == ("finished", "ant", "finished")
        assert "127.0.0.1" not in json.dumps(bench.get("/v1/daemon"))

        bench.drop("bee", script("bee", OBEDIENT))
        bench.wait_running("bee")
        (bench.root / "taken").write_text(json.dumps({"deadline": time.time() + 60, "reason": "a test"}))
        bench.wait_for(lambda: bench.job("bee")["state"] == "queued", "bee to be drained")
        assert "taken" in bench.get("/v1/daemon")["preemption"]
        assert "a test" in bench.job("bee")["reason"]
        bench.wait_for(lambda: "preemption" in told.read_text(), "the notice of it")
        (bench.root / "taken").unlink()
        bench.wait_running("bee")

        began = time.monotonic()
        bench.stop()
        assert time.monotonic() - began < 12
    log = bench.state.log.read_text()
    assert '"notice.dropped"' in log
    assert f"{fake.url}/hangs" not in log
