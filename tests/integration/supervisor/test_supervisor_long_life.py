"""A supervisor that lives long: what it holds does not grow with the jobs that came and went, and a disk that
the kernel makes read-only does not end it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.support.daemon_bench import script
from trainerd.contract.paths import StatePaths

pytestmark = pytest.mark.slow

JOBS_AT_ONCE = 10
ROUNDS = 8
TRIES = 100


def test_descriptors_threads_and_children_do_not_grow_with_the_jobs_that_come_and_go(bench):
    bench.start(config="[limits]\nmax_jobs = 10\n")
    held = []
    for number in range(ROUNDS):
        names = [f"job-{number}-{each}" for each in range(JOBS_AT_ONCE)]
        specs = [bench.drop(name, "exit 0") for name in names]
        for name in names:
            bench.wait_state(name, "finished", limit_s=60)
        for spec in specs:
            spec.unlink()
        for name in names:
            bench.wait_gone(name)
        process = psutil.Process(bench.supervisor.pid)
        held.append((process.num_fds(), process.num_threads(), len(process.children())))
    # A thread or a connection of the pools may come in the second round, and one look may find a file that is
    # about to be closed; none stays with every round.
    assert min(held[3:]) <= max(held[:2]), held
    assert bench.stop() == 0


@contextlib.contextmanager
def ext4(folder: Path, image: Path):
    """Mount a small filesystem that its kernel makes read-only after an error, as disks are configured."""
    done = subprocess.run(
        ["mount", "-o", "loop,errors=remount-ro", image, folder], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield Path(f"/sys/fs/ext4/{Path(_device_of(folder)).name}/trigger_fs_error")
    finally:
        for _ in range(TRIES):  # until the last process below it has ended
            if subprocess.run(["umount", folder], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", folder], check=True)


def _device_of(folder: Path) -> str:
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return next(device for device, place, *_ in reversed(lines) if place == str(folder))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs e2fsprogs")
def test_a_disk_that_becomes_read_only_under_a_running_job_ends_nothing_and_loses_nothing(bench):
    """The kernel does that after an error of the disk. What ended meanwhile is judged after the repair."""
    folder, image = bench.root / "state", bench.root / "image"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    with ext4(folder, image) as trigger:
        if not trigger.exists():
            pytest.skip("this kernel cannot be asked for an error of a filesystem")
        bench.state = StatePaths(folder / "state")
        bench.start()
        bench.drop("ant", script("ant", "while ! test -e go; do sleep 0.02; done; exit 0"))
        bench.wait_running("ant")
        trigger.write_text("1")
        assert bench.post("/v1/jobs/ant/stop").status_code == 503
        (bench.work / "go").touch()
        bench.drop("bee", script("bee", "exit 0"))
        bench.wait_for(lambda: "cannot be written" in bench.output.read_text(), "the supervisor to say it")
        assert bench.answers()
        assert bench.starts("bee") == 0
        bench.kill()  # as the machine is switched off, with its shims
        for path in bench.state.root.glob("runs/*/attempts/*/shim.json"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(path.read_text())["process"]["pid"], signal.SIGKILL)
    subprocess.run(["fsck.ext4", "-y", image], check=False, capture_output=True)
    with ext4(folder, image):
        bench.start()
        bench.wait_state("bee", "finished")
        bench.wait_state("ant", "finished")
        assert bench.starts("bee") == 1
        assert bench.starts("ant") <= 2, "its end may not have been on record"
        assert bench.stop() == 0
