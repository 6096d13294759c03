"""A folder on a network filesystem with caches: GlusterFS, of which server and clients are ordinary programs.

A client keeps what it has seen of a name, also that there is none, and of the size and times of a file, for
`STALE_S` seconds; it writes behind and reads ahead. So a host sees late what the other one has done, as it
may on NFS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support.lab_hosts import START_LIMIT_S, Cable, LabHost, missing
from tests.support.waiting import wait_for

STALE_S: Final = 3
PROGRAMS: Final = ("glusterfs", "glusterfsd")
ADDRESS: Final = "10.200.9.1"
_PORT: Final = 24900  # of an address that only the hosts of this lab have
_SERVER: Final = """\
volume disk
  type storage/posix
  option directory {disk}
end-volume
volume shared
  type features/locks
  subvolumes disk
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.listen-port {port}
  option auth.addr.shared.allow *
  subvolumes shared
end-volume
"""
_REMOTE: Final = """\
volume remote
  type protocol/client
  option transport-type tcp
  option remote-host {address}
  option remote-port {port}
  option remote-subvolume shared
end-volume
"""
_CACHES: Final = (
    ("write-behind", ""),
    ("read-ahead", ""),
    ("io-cache", ""),
    ("quick-read", ""),
    ("md-cache", f"option md-cache-timeout {STALE_S}"),
)


def why_no_network_folder() -> str:
    """Return why there can be none here, empty if there can."""
    if missing(PROGRAMS) or not Path("/dev/fuse").exists():
        return f"needs /dev/fuse and {', '.join(PROGRAMS)} (glusterfs-client)"
    return ""


class NetworkFolder:
    """The folder, served by a host and mounted on others at the same place, `net` in the folder of the lab.

    Attributes:
        disk: Where the server has it: what is there is what counts.
    """

    def __init__(self, folder: Path, server: LabHost, clients: tuple[LabHost, ...]) -> None:
        self.disk = folder / "disk"
        self._place = folder / "net"
        self._folder = folder
        for path in (self.disk, self._place):
            path.mkdir()
        (folder / "server.vol").write_text(_SERVER.format(disk=self.disk, port=_PORT))
        (folder / "client.vol").write_text(_client_volume())
        server.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        self._run(server, "glusterfsd", "server")
        for number, client in enumerate(clients):
            ends = (f"10.200.1{number}.1", f"10.200.1{number}.2")
            Cable(server, client, f"disk-{number}", (f"{ends[0]}/24", f"{ends[1]}/24"))
            client.run("ip", "route", "add", f"{ADDRESS}/32", "via", ends[0])
            names = ("attribute", "entry", "negative")
            self._run(client, "glusterfs", "client", *(f"--{name}-timeout={STALE_S}" for name in names))

    def _run(self, host: LabHost, program: str, role: str, *words: str) -> None:
        """Start a server or a client, which stay in the background."""
        own = ["-f", str(self._folder / f"{role}.vol"), "-l", str(self._folder / f"{host.name}-{role}.log")]
        if role == "server":
            host.run(program, *own, "-p", str(self._folder / "server.pid"), *words)
            return
        host.run(program, *own, *words, str(self._place))
        wait_for(
            lambda: "fuse.glusterfs" in host.run("cat", "/proc/self/mounts"),
            f"{host.name} to mount {self._place}",
            limit_s=START_LIMIT_S,
        )


def _client_volume() -> str:
    text, below = _REMOTE.format(address=ADDRESS, port=_PORT), "remote"
    for kind, option in _CACHES:
        text += f"volume {kind}\n  type performance/{kind}\n  {option}\n  subvolumes {below}\nend-volume\n"
        below = kind
    return text
