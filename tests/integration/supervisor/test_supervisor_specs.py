"""What the jobs folder means to a real supervisor, where a folder that is looked at again is not enough to
tell."""

from __future__ import annotations

import json
import os
import subprocess

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


def test_a_running_job_does_not_notice_what_changes_nothing_about_its_spec(bench):
    """Renamed, put in another order, written anew with a default, replaced by a link: it says what it
    said."""
    bench.start()
    said = {"name": "ant", "command": ["sh", "-c", script("ant", OBEDIENT)], "workdir": str(bench.work)}
    path = bench.write("ant", json.dumps(said))
    before = bench.wait_running("ant")

    path = path.rename(bench.jobs / "renamed.json")
    bench.wait_for(lambda: bench.job("ant")["spec_path"] == str(path), "its new path to be known")
    changes = [
        lambda: path.write_text(json.dumps(dict(reversed(said.items())), indent=4) + "\n"),
        lambda: bench.write("renamed", json.dumps(said | {"priority": 0, "grace": "30s"})),
        lambda: _made_a_link(path, bench.root / "elsewhere.json"),
    ]
    for change in changes:
        change()
        # Read for certain once a later change of another is.
        bench.write("probe", json.dumps({"command": "true", "priority": changes.index(change)}))
        bench.wait_for(
            lambda change=change: (bench.job("probe") or {}).get("priority") == changes.index(change),
            "a later change to be known",
        )
    after = bench.job("ant")
    assert (after["state"], after["pids"], bench.starts("ant")) == ("running", before["pids"], 1)
    noted = [line for line in bench.log() if line.get("job") == "ant" and "noted" in line["event"]]
    assert [line["event"] for line in noted] == ["job.noted.spec-accepted"]
    assert str(path) in noted[0]["reason"]

    path.write_text(json.dumps(said | {"grace": "31s"}))  # through the link
    bench.post("/v1/rescan")
    bench.wait_running("ant", attempt=2)


def _made_a_link(path, target):
    target.write_text(path.read_text())
    link = path.with_name(".link")
    link.symlink_to(target)
    link.replace(path)


def test_a_running_job_outlives_a_spec_that_cannot_be_read_and_says_so(bench):
    """A folder in its place, half of it written: warned of, and shown. Gone for good: drained."""
    bench.start()
    path = bench.drop("ant", script("ant", OBEDIENT))
    whole = path.read_text()
    before = bench.wait_running("ant")

    def a_folder():
        path.unlink()
        path.mkdir()

    for harm, words in (
        (a_folder, "is a folder, not a file"),
        (lambda: path.write_text(whole[: len(whole) // 2]), "ant.json:1"),
    ):
        harm()
        shown = bench.wait_for(
            lambda words=words: (
                (job := bench.job("ant"))["state"] == "running" and words in job["reason"] and job["reason"]
            ),
            f"{words!r} to be shown",
        )
        assert "refused" in shown
        warned = [line for line in bench.log() if line["event"] == "job.noted.spec-refused"]
        assert (warned[-1]["level"], words in warned[-1]["reason"]) == ("warning", True)
        if path.is_dir():
            path.rmdir()
        bench.write("ant", whole)
        bench.wait_for(lambda: "refused" not in bench.job("ant")["reason"], "the spec to be good again")
    assert (bench.job("ant")["pids"], bench.starts("ant")) == (before["pids"], 1)
    path.unlink()
    bench.wait_gone("ant")
    assert json.loads((bench.state.run("ant").attempt(1).root / "exit.json").read_text())
    assert bench.starts("ant") == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a user namespace")
def test_without_inotify_the_folder_is_looked_at_every_second(bench):
    """In a user namespace that may have no inotify instance, as on a machine where they are used up."""
    limited = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    with bench.output.open("ab") as output:
        bench.supervisor = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "sh", "-c", limited, "sh", *bench.command()],
            stdout=output,
            stderr=output,
        )
    bench.wait_for(bench.state.socket.exists, "the supervisor to answer")
    bench.drop("ant", script("ant", OBEDIENT))
    bench.wait_running("ant")
    bench.wait_for(
        lambda: any(line["event"] == "jobs-folder.polled" for line in bench.log()), "a line that says so"
    )
    (bench.jobs / "ant.json").unlink()
    bench.wait_gone("ant")
    reasons = [line["reason"] for line in bench.log() if line["event"] == "jobs-folder.polled"]
    assert (len(reasons), "inotify is not to be had" in reasons[0]) == (1, True)
    assert json.loads((bench.state.run("ant").attempt(1).root / "exit.json").read_text())
    assert bench.stop() == 0
