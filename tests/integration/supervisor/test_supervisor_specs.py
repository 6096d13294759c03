"""What the jobs folder means to a real supervisor, where a folder that is looked at again is not enough to tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.daemon_bench import OBEDIENT, script


def test_a_hundred_specs_at_once_are_all_run_once(bench):
    bench.start()
    for number in range(100):
        name = f"ant-{number:03d}"
        bench.drop(name, script(name, "exit 0"), resources={"cpus": 0.05})
    bench.wait_for(
        lambda: bench.get("/v1/daemon")["jobs_by_state"] == {"finished": 100}, "all to finish", limit_s=60
    )
    assert {bench.starts(f"ant-{number:03d}") for number in range(100)} == {1}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a user namespace")
def test_without_inotify_the_folder_is_looked_at_every_second(bench):
    """In a user namespace that may have no inotify instance, as on a machine where they are used up."""
    command = [
        sys.executable,
        "-m",
        "trainerd",
        "run",
        "--jobs",
        str(bench.jobs),
        "--state",
        str(bench.state.root),
    ]
    limited = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    with bench.output.open("ab") as output:
        bench.supervisor = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh", *command],
            stdout=output,
            stderr=output,
        )
    bench.wait_for(bench.state.socket.exists, "the supervisor to answer")
    bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    bench.wait_for(
        lambda: any(line["event"] == "jobs folder is polled" for line in bench.log()), "it to be said aloud"
    )
    (bench.jobs / "ant.json").unlink()
    bench.wait_gone("ant")
    reasons = [line["reason"] for line in bench.log() if line["event"] == "jobs folder is polled"]
    assert (len(reasons), "inotify is not to be had" in reasons[0]) == (1, True)
    assert json.loads((bench.state.run("ant").attempt(1).root / "exit.json").read_text())
    assert bench.stop() == 0
