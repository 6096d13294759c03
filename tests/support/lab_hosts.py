"""Hosts on this machine with a network of their own: names, boot ids, machine ids, process numbers and links.

A host is a set of namespaces that one process keeps; with that process all others of the host end, and the
kernel removes the links and mounts. It reads a pipe from here, so none outlives the tests.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psutil

from tests.support.own_host import as_host
from tests.support.waiting import wait_for

START_LIMIT_S: Final = 20.0
"""How long the namespaces of a host may take to be there."""

LINKED: Final = {"n0": "10.200.0.1", "n1": "10.200.0.2"}
"""Names and addresses of `linked_hosts`."""

_COMMAND_LIMIT_S: Final = 30.0
# Bash reaps what is orphaned on the host while it reads.
_KEEPER: Final = (
    'mount --bind hosts /etc/hosts && ip link set lo up && echo up && exec bash -c "read -r; exit 0"'
)


class LabHost:
    """A host, as a context manager; everything on it is ended with it.

    Args:
        folder: Of the lab; the file `hosts` in it is /etc/hosts on the host.
        name: Its host name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        spaces = ["unshare", "--pid", "--fork", "--kill-child", "--net", "--mount-proc"]
        self._unshare = subprocess.Popen(
            [*spaces, *as_host(folder, name, ["sh", "-c", _KEEPER])],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # unshare has something to say of its signals when it is ended
        )
        assert self._unshare.stdout is not None
        assert self._unshare.stdout.readline() == b"up\n", f"host {name} did not start"
        (self._keeper,) = psutil.Process(self._unshare.pid).children()

    @property
    def pid(self) -> int:
        """Process 1 of the host, as numbered here."""
        return self._keeper.pid

    @property
    def is_up(self) -> bool:
        return self._unshare.poll() is None

    def command(self, *words: str, cwd: Path | None = None) -> list[str]:
        """Return a command that runs another one on the host, as a child of the process that is started."""
        spaces = ["--mount", "--uts", "--net", "--pid"]
        enter = ["nsenter", "--target", str(self.pid), *spaces]
        return [*enter, "env", f"--chdir={cwd or self._folder}", *words]

    def start(self, *words: str, cwd: Path | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Start a command on the host; `child_of` is its process."""
        return subprocess.Popen(self.command(*words, cwd=cwd), **options)

    def run(
        self,
        *words: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        limit_s: float = _COMMAND_LIMIT_S,
    ) -> str:
        """Run a command on the host to its end, which must be good; return what it printed."""
        done = subprocess.run(
            self.command(*words, cwd=cwd),
            env=env,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def power_off(self) -> None:
        """End everything on the host at once, as if the power were cut."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._keeper.kill()
        self._unshare.wait(_COMMAND_LIMIT_S)
        for pipe in (self._unshare.stdin, self._unshare.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()


class Cable:
    """A link between two hosts, each with an address on it; it vanishes with either of them."""

    def __init__(self, first: LabHost, second: LabHost, name: str, addresses: tuple[str, str]) -> None:
        self._first, self._second, self._name, self._addresses = first, second, name, addresses
        peer = ["peer", "name", name, "netns", str(second.pid)]
        _here_on(first, "ip", "link", "add", name, "type", "veth", *peer)
        for host, address in zip((first, second), addresses, strict=True):
            host.run("ip", "address", "add", address, "dev", name)
            host.run("ip", "link", "set", name, "up")

    def cut(self) -> None:
        """Take the link down: what is sent is lost, and no end is told."""
        self._first.run("ip", "link", "set", self._name, "down")

    def mend(self) -> None:
        self._first.run("ip", "link", "set", self._name, "up")

    def silence(self) -> None:
        """Have both hosts send to an address of hardware that there is not: neither is told anything."""
        for host, peer in self._ends():
            hardware = ["lladdr", "02:00:00:00:00:01", "nud", "permanent"]
            host.run("ip", "neighbour", "replace", peer, "dev", self._name, *hardware)

    def speak(self) -> None:
        """Let them find one another again."""
        for host, peer in self._ends():
            host.run("ip", "neighbour", "del", peer, "dev", self._name)

    def _ends(self) -> tuple[tuple[LabHost, str], tuple[LabHost, str]]:
        """Each host, and the address of the other."""
        first, second = (address.partition("/")[0] for address in self._addresses)
        return ((self._first, second), (self._second, first))


@contextlib.contextmanager
def linked_hosts(folder: Path) -> Iterator[tuple[LabHost, LabHost, Cable]]:
    """Start two hosts, with the names and addresses of `LINKED`, and the link that joins them."""
    (name, address), (other_name, other_address) = LINKED.items()
    with LabHost(folder, name) as first, LabHost(folder, other_name) as second:
        yield first, second, Cable(first, second, "wire", (f"{address}/24", f"{other_address}/24"))


def child_of(process: subprocess.Popen[Any]) -> psutil.Process:
    """Return the process that `LabHost.start` started on the host."""

    def children() -> list[psutil.Process]:
        found = psutil.Process(process.pid).children()
        assert found or process.poll() is None, f"{process.args} has ended"
        return found

    return wait_for(children, f"{process.args} to start", limit_s=START_LIMIT_S)[0]


def search_path() -> str:
    """Return where programs are looked for, those of administrators included."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing(programs: Iterable[str]) -> list[str]:
    """Return which programs are not installed."""
    path = search_path()
    return [name for name in programs if shutil.which(name, path=path) is None]


@functools.cache
def why_no_hosts() -> str:
    """Return why there can be no such hosts here, empty if there can."""
    try:
        with tempfile.TemporaryDirectory(prefix="trainerd-lab-") as name:
            folder = Path(name)
            write_hosts(folder, LINKED)
            with linked_hosts(folder):
                pass
    except (OSError, AssertionError, ValueError, subprocess.SubprocessError) as error:
        return f"needs root, namespaces and virtual links: {error}"
    return ""


def write_hosts(folder: Path, addresses: dict[str, str]) -> None:
    """Write the names that the hosts of a lab know."""
    lines = [f"{address} {name}\n" for name, address in ({"localhost": "127.0.0.1"} | addresses).items()]
    (folder / "hosts").write_text("".join(lines))


def _here_on(host: LabHost, *words: str) -> None:
    """Run a command in the network of a host with the process numbers of this one."""
    words_of: Sequence[str] = ["nsenter", "--target", str(host.pid), "--net", *words]
    subprocess.run(words_of, check=True, timeout=_COMMAND_LIMIT_S)
