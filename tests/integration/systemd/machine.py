"""A machine to install trainerd on: a real systemd in namespaces of its own, over an overlay of this one's
root.

What it writes goes to a tmpfs folder, its disk, which survives a shutdown and is gone at the end. It has its
own processes, mounts, cgroups, network (none) and name; this machine's /tmp, /run, clock and kernel are out
of its reach. Whatever becomes of the test, a keeper in a session of its own ends and removes everything.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).resolve().parents[3]
BOOT = Path(__file__).with_name("boot.sh")
DISKS = Path("/dev/shm")

BOOT_LIMIT_S = 60
COMMAND_LIMIT_S = 90
WAIT_S = 60
LOOK_S = 0.05
DISK_BYTES_MIN = 500 * 1024**2

NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net")
LESS = "-sys_module,-sys_time,-sys_rawio,-syslog,-wake_alarm,-mac_admin,-mac_override"
"""What even its root may not do: these reach beyond namespaces."""

KEEPER = """
cat > /dev/null  # until the test has ended, however
echo 1 > "$2/cgroup.kill"
for try in $(seq 100); do
    find "$2" -depth -type d -exec rmdir {} + 2> /dev/null
    [ -d "$2" ] || break
    sleep 0.1
done
rm -rf "$1"
"""

TRIAL = """
mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root &&
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root &&
mount -t cgroup2 cgroup2 /mnt/root/mnt
"""

_numbers = itertools.count(1)


def why_not() -> str | None:
    """Return why no systemd can be booted here, None if one can."""
    if os.geteuid() != 0:
        return "booting a systemd in namespaces needs root"
    for program in ("systemd", "systemctl", "unshare", "nsenter", "setpriv", "make"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/lib/systemd") is None:
            return f"there is no {program} here"
    if _cgroup_parent() is None:
        return "there is no cgroup v2 hierarchy here"
    if not DISKS.is_dir() or shutil.disk_usage(DISKS).free < DISK_BYTES_MIN:
        return f"{DISKS} has no room for the disk of a machine"
    for path in (REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)):
        if path.is_relative_to("/tmp") or path.is_relative_to("/run"):
            return f"{path} cannot be seen from a machine with a /tmp and a /run of its own; clone elsewhere"
    trial = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "sh", "-c", TRIAL], capture_output=True, text=True, check=False
    )
    return f"no namespaces or no overlay here: {trial.stderr.strip()}" if trial.returncode else None


def _cgroup_parent() -> Path | None:
    """Return the folder of this process in the cgroup v2 hierarchy."""
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    points = [Path(left.split()[4]) for left, right in mounts if right.split()[0] == "cgroup2"]
    own = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    if not points or not own or not (points[0] / own[0].lstrip("/")).is_dir():
        return None
    return points[0] / own[0].lstrip("/")


class Machine:
    """One machine: boots, runs commands as root, is shut down or loses power, boots again from the same
    disk."""

    def __init__(self) -> None:
        self.disk = Path(tempfile.mkdtemp(prefix="trainerd-systemd-", dir=DISKS))
        self.cgroup = _cgroup_parent() / f"trainerd-systemd-{os.getpid()}-{next(_numbers)}"
        self.cgroup.mkdir()
        self._keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "keeper", str(self.disk), str(self.cgroup)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._boot: subprocess.Popen | None = None
        self.pid1 = 0
        self.disk.chmod(0o755)
        for name in ("upper", "work", "root"):
            (self.disk / name).mkdir(mode=0o755)
        self._forget("/etc/systemd/system")  # what is enabled on this machine is not on that one
        self._forget("/var/log/journal")
        for path in (REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)):
            self._let_everybody_pass(path)

    # --- its disk ---

    def _upper(self, path: str | Path) -> Path:
        """Return a folder of the disk, made with the rights that it has on this machine."""
        there = self.disk / "upper"
        for part in Path(path).parts[1:]:
            there /= part
            if not there.exists():
                here = Path("/") / there.relative_to(self.disk / "upper")
                there.mkdir()
                there.chmod(here.stat().st_mode & 0o7777 if here.exists() else 0o755)
        return there

    def _forget(self, path: str) -> None:
        """Have a folder be empty there."""
        os.setxattr(self._upper(path), "trusted.overlay.opaque", b"y")

    def _let_everybody_pass(self, path: Path) -> None:
        """Let the user of the service reach what may lie in a home folder here."""
        for folder in reversed([path, *path.parents]):
            if not folder.stat().st_mode & 0o001:
                there = self._upper(folder)
                there.chmod(there.stat().st_mode | 0o011)

    def path(self, path: str | Path) -> Path:
        """Return how a file of the running machine is reached from here."""
        return Path(f"/proc/{self.pid1}/root") / Path(path).relative_to("/")

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file there, at once, as root would by `cp`."""
        there = self.path(path)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        there.chmod(mode)

    def changed(self) -> set[str]:
        """Return every file that has been made or changed since it was new, as paths there."""
        upper = self.disk / "upper"
        return {f"/{path.relative_to(upper)}" for path in upper.rglob("*") if not path.is_dir()}

    # --- its life ---

    def boot(self) -> None:
        binds = [
            str(path)
            for path in (REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), Path("/usr"))
            if path.stat().st_dev != Path("/").stat().st_dev
        ]
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        less = ["setpriv", "--pdeathsig", "KILL", f"--bounding-set={LESS}"]
        unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child"]
        with (self.disk / "console").open("ab") as console:
            self._boot = subprocess.Popen(
                ["sh", "-c", enter, self.cgroup, *less, *unshare, BOOT, self.disk, *binds],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self.pid1 = wait_for(self._find_pid1, "systemd to begin", limit_s=BOOT_LIMIT_S)
        wait_for(
            lambda: (
                self.run("systemctl", "is-system-running", check=False).strip() in {"running", "degraded"}
            ),
            "systemd to be up",
            limit_s=BOOT_LIMIT_S,
        )

    def _find_pid1(self) -> int | None:
        boot = self._boot.pid
        assert self._boot.poll() is None, (self.disk / "console").read_text()
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{boot}/task/{boot}/children").read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return None

    def power_off(self) -> None:
        """Shut it down in order."""
        self.run("systemctl", "poweroff", check=False)
        self._boot.wait(BOOT_LIMIT_S)

    def cut_power(self) -> None:
        """End every process at once."""
        os.kill(self.pid1, 9)
        self._boot.wait(BOOT_LIMIT_S)

    def remove(self) -> None:
        """End and remove everything."""
        self._keeper.stdin.close()
        self._keeper.wait(BOOT_LIMIT_S)
        if self._boot is not None:
            self._boot.wait(BOOT_LIMIT_S)

    # --- commands ---

    def run(self, *command: str | Path, check: bool = True, limit_s: float = COMMAND_LIMIT_S) -> str:
        """Run a command there as root; return what it printed."""
        enter = ["nsenter", "--target", str(self.pid1), "--all", "env", "-i", "HOME=/root", "LANG=C.UTF-8"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            [*enter, path, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def property(self, name: str) -> str:
        """Return what systemd says of the service."""
        return self.run("systemctl", "show", "--value", "--property", name, "trainerd").strip()

    def ask(self, path: str, *, state: str = "/var/lib/trainerd"):
        """Return what the supervisor's API answers, None if nobody does or there is no such thing."""
        way = httpx.HTTPTransport(uds=str(self.path(f"{state}/trainerd.sock")), verify=False)
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.Client(transport=way, base_url="http://trainerd") as client,
        ):
            answer = client.get(path)
            return answer.json() if answer.status_code == httpx.codes.OK else None
        return None

    def job(self, name: str) -> dict | None:
        """Return how a job is, None if it is not known or nobody answers."""
        return self.ask(f"/v1/jobs/{name}")

    def outcomes(self, name: str) -> list[dict]:
        """Return how the attempts of a job ended, oldest first."""
        return wait_for(lambda: self.ask(f"/v1/jobs/{name}/outcomes"), f"the endings of {name}")

    def wait_running(self, name: str, *, beyond_step: int = -1) -> dict:
        """Wait until a job has a live rank that has finished a step later than the given one."""

        def look() -> dict | None:
            job = self.job(name)
            is_up = job is not None and job["state"] == "running" and job["pids"]
            return job if is_up and (job["step"] or 0) > beyond_step else None

        return wait_for(
            look, lambda: f"{name} to run: {self.job(name)}\n{self.run('journalctl', '-n', '40')}"
        )

    def wait_state(self, name: str, state: str) -> dict:
        def look() -> dict | None:
            job = self.job(name)
            return job if job is not None and job["state"] == state else None

        return wait_for(look, lambda: f"{name} to be {state}: {self.job(name)}")


def wait_for(condition, what, *, limit_s: float = WAIT_S):
    """Return what `condition` returns once it is true."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        found = condition()
        if found:
            return found
        time.sleep(LOOK_S)
    raise AssertionError(f"waited {limit_s} s for {what() if callable(what) else what}")
