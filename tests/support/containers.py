"""Containers of podman and runc on the root of this machine, read-only, as another user: without an image."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Self

from tests.support.training_runs import REPOSITORY
from tests.support.waiting import wait_for

USER = 12345
LIMIT_S = 90.0
ULIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
"""podman asks for more, which a process may not have everywhere."""


def why_not() -> str | None:
    """Return why there can be no containers here, None if there can."""
    if os.geteuid() != 0:
        return "podman on the root of this machine needs root"
    missing = [name for name in ("podman", "runc") if shutil.which(name) is None]
    return f"{' and '.join(missing)} missing: apt-get install podman runc" if missing else None


def refusal() -> str | None:
    """Return what podman says where it can run no container, such as within some containers; else None."""
    probe = [*_podman("run"), "--rm", "--network=none", *ULIMITS, "--rootfs", "/:O", "/bin/true"]
    said = subprocess.run(probe, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return None if said.returncode == 0 else f"podman cannot run a container: {said.stderr.strip()[-200:]}"


class Container:
    """One container; a context manager that leaves none behind.

    Args:
        folder: A folder of the test: ``/mnt`` inside, writable, with what is kept between containers.
        command: Command; ``python`` stands for the interpreter of the tests.
        has_tmp: Whether there is a writable folder for temporary files.
    """

    def __init__(self, folder: Path, *command: str, has_tmp: bool = True) -> None:
        self.name = f"trainerd-test-{uuid.uuid4().hex[:12]}"
        self.log = folder.parent / f"{self.name}.log"
        words = [sys.executable if word == "python" else word for word in command]
        tmp = ["--tmpfs", "/tmp:notmpcopyup,mode=1777"] if has_tmp else []
        self._command = [
            *_podman("run"),
            "--name",
            self.name,
            *_options(folder),
            *tmp,
            "--rootfs",
            "/:O",
            *words,
        ]

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        return self

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, word: str) -> None:
        def is_said() -> bool:
            is_there = word in self.output
            assert is_there or self.process.poll() is None, self.output
            return is_there

        wait_for(is_said, repr(word), limit_s=LIMIT_S, story=lambda: self.output)

    def wait_until_python(self) -> int:
        """Wait until process 1 of the container is Python, and no longer; return its number on the host."""

        def first() -> int:
            found = self._inspect("{{.State.Pid}}")
            with contextlib.suppress(OSError):
                if found not in {"", "0"} and Path(f"/proc/{found}/exe").readlink().name.startswith("python"):
                    return int(found)
            assert self.process.poll() is None, self.output
            return 0

        return wait_for(first, "Python", limit_s=LIMIT_S, look_s=0.0, story=lambda: self.output)

    def signal(self, name: str) -> None:
        subprocess.run([*_podman("kill"), "--signal", name, self.name], check=True, capture_output=True)

    def host_pids(self, word: str) -> list[int]:
        """Return the host's numbers of the processes inside that have a word in their command line."""
        first = int(self._inspect("{{.State.Pid}}"))
        space = Path(f"/proc/{first}/ns/pid").readlink()
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            try:
                is_inside = (each / "ns" / "pid").readlink() == space
                if is_inside and word in (each / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                    found.append(int(each.name))
            except OSError:
                continue
        return found

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(LIMIT_S)

    def __exit__(self, *_: object) -> None:
        subprocess.run(
            [*_podman("rm"), "--force", "--ignore", "--time", "0", self.name],
            capture_output=True,
            check=False,
        )
        self.process.wait(LIMIT_S)

    def _inspect(self, what: str) -> str:
        said = subprocess.run(
            [*_podman("container", "inspect"), "--format", what, self.name],
            capture_output=True,
            text=True,
            check=False,
        )
        return said.stdout.strip()


def _podman(*verb: str) -> list[str]:
    return ["podman", "--runtime", "runc", *verb]


def _options(folder: Path) -> list[str]:
    mounts = [f"{folder}:/mnt", f"{REPOSITORY}:/src:ro", *_interpreter_mounts(folder)]
    variables = {"PYTHONPATH": "/src/daemon:/src", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return [
        "--rm",
        "--network=none",
        "--read-only",
        "--read-only-tmpfs=false",
        f"--user={USER}",
        "--unsetenv=HOME",
        *ULIMITS,
        *[f"--volume={mount}" for mount in mounts],
        *[f"--env={name}={value}" for name, value in variables.items()],
    ]


def _interpreter_mounts(folder: Path) -> list[str]:
    """Return what lets another user reach the interpreter, which may lie in a home that is root's alone."""
    prefix = Path(sys.base_prefix)
    top = Path("/", prefix.parts[1])
    if top.stat().st_mode & 0o001:
        return []
    stand_in = folder.parent / "home-of-python"
    (stand_in / prefix.relative_to(top)).mkdir(parents=True, exist_ok=True)
    return [f"{stand_in}:{top}:ro", f"{prefix}:{prefix}:ro"]
