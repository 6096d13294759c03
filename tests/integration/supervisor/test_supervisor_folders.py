"""State folders and jobs folders that cannot be used: one clear message, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from tests.support.daemon_bench import OBEDIENT, script

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


def run(bench, *, jobs=None, state=None) -> subprocess.CompletedProcess:
    """Run a supervisor that is expected to refuse."""
    command = [sys.executable, "-m", "trainerd", "run"]
    command += ["--jobs", str(jobs or bench.jobs), "--state", str(state or bench.state.root)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1, ended.stdout
    assert "Traceback" not in ended.stderr
    return ended


@contextlib.contextmanager
def mounted(*arguments, target):
    done = subprocess.run(["mount", *arguments, str(target)], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@pytest.mark.root
@needs_root
def test_a_read_only_state_folder_is_named(bench):
    folder = bench.root / "readonly"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "ro", "tmpfs", target=folder):
        ended = run(bench, state=folder)
    assert str(folder) in ended.stderr
    assert "Read-only file system" in ended.stderr


@pytest.mark.slow
@pytest.mark.root
@needs_root
def test_a_full_state_folder_is_named_and_works_again_when_there_is_room(bench):
    folder = bench.root / "state"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", target=folder):
        ballast = folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)
        ended = run(bench, state=folder)
        assert str(folder) in ended.stderr
        assert "No space left" in ended.stderr or "full" in ended.stderr
        ballast.unlink()
        bench.start()
        assert bench.stop() == 0


@pytest.mark.root
@needs_root
def test_a_disk_that_fills_up_while_jobs_run_loses_nothing(bench):
    """What ends meanwhile is judged when there is room; a request that cannot be recorded is refused."""
    folder = bench.root / "state"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", target=folder):
        bench.start()
        bench.drop("ant", script("ant", "while ! test -e go; do sleep 0.02; done; exit 0"))
        bench.wait_running("ant")
        ballast = folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)
        assert bench.post("/v1/jobs/ant/stop").status_code == 503
        assert bench.job("ant")["state"] == "running"
        (bench.work / "go").touch()
        ballast.unlink()
        bench.wait_state("ant", "finished")
        assert bench.starts("ant") == 1
        assert bench.stop() == 0


def test_a_state_folder_whose_place_is_taken_by_a_file_is_named(bench):
    place = bench.root / "file"
    place.touch()
    assert str(place) in run(bench, state=place).stderr


def test_a_damaged_journal_is_left_as_it_is(bench):
    bench.start()
    bench.drop("ant", script("ant", "exit 0"))
    bench.wait_state("ant", "finished")
    assert bench.stop() == 0
    with bench.state.journal.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    before = bench.state.journal.read_bytes()
    ended = run(bench)
    assert "the journal is damaged" in ended.stderr
    assert "move it aside" in ended.stderr
    assert bench.state.journal.read_bytes() == before


def test_a_journal_of_a_newer_trainerd_is_left_as_it_is(bench):
    bench.start()
    assert bench.stop() == 0
    with contextlib.closing(sqlite3.connect(bench.state.journal)) as database:
        database.execute("UPDATE schema SET version = 999")
        database.commit()
    ended = run(bench)
    assert "schema 999" in ended.stderr


@pytest.mark.slow
def test_a_jobs_folder_that_vanished_is_not_an_empty_one(bench):
    """A missing mount must not have all jobs drained and forgotten."""
    bench.start()
    bench.drop("ant", script("ant", OBEDIENT))
    before = bench.wait_running("ant")
    shutil.move(bench.jobs, bench.root / "elsewhere")
    bench.wait_for(
        lambda: any(line["event"] == "jobs-folder.unreadable" for line in bench.log()), "the complaint"
    )
    assert bench.job("ant")["pids"] == before["pids"]
    bench.kill()
    assert "mount it" in run(bench).stderr
    shutil.move(bench.root / "elsewhere", bench.jobs)
    bench.start()
    assert bench.wait_running("ant")["pids"] == before["pids"]


def test_a_jobs_folder_that_others_may_write_to_is_refused(bench):
    bench.jobs.chmod(0o777)
    bench.start()
    bench.drop("ant", script("ant", "exit 0"))
    bench.wait_for(
        lambda: any(
            "chmod" in line.get("reason", "")
            for line in bench.log()
            if line["event"].startswith("jobs-folder")
        ),
        "the refusal",
    )
    assert bench.job("ant") is None
    bench.jobs.chmod(0o755)
    bench.wait_state("ant", "finished")
