"""Records what a program does to one folder, by watching its system calls (strace).

Nothing of ours is between the program and the kernel, so SQLite's calls are seen like our own, and so is
whatever goes past the page cache. A call that changes files and that this module does not understand ends the
recording: an unknown change must not become a missing one.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.power_cut.operations import (
    ROOT,
    Inode,
    Link,
    Mark,
    Operation,
    Resize,
    Symlink,
    Sync,
    Trace,
    Unlink,
    Write,
    apply,
)
from chaos.waiting import HarnessError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BEGIN", "MARKS_SUFFIX", "record"]

LIMIT_S: Final = 120.0
BEGIN: Final = "begin"
"""The mark from which on operations count; what was done before is taken to be durable."""

MARKS_SUFFIX: Final = ".marks"
"""Beside the folder: a file into which the program writes its marks, one a call."""

_UNDERSTOOD: Final = [
    "open",
    "openat",
    "creat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "symlink",
    "symlinkat",
]
_NOT_UNDERSTOOD: Final = [
    "truncate",
    "writev",
    "pwritev",
    "pwritev2",
    "link",
    "linkat",
    "copy_file_range",
    "sendfile",
    "splice",
    "sync",
    "syncfs",
    "sync_file_range",
    "io_uring_setup",
    "io_submit",
]
_CALL: Final = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?(?: .*)?")
_PAUSED: Final = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>")
_GOES_ON: Final = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_ARGUMENT: Final = re.compile(
    r' *(?:"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?|(-?\w+)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?|([^, ][^,]*))'
)


def record(command: Sequence[str], folder: Path) -> Trace:
    """Run `command` and return what it did to `folder` since its mark `begin`.

    Raises:
        HarnessError: strace is missing, the command failed, or it did something this module does not
            understand.
    """
    marks = folder.with_name(folder.name + MARKS_SUFFIX)
    marks.touch()
    reader = _Reader(folder.resolve(), marks.resolve())
    with tempfile.NamedTemporaryFile(prefix="trainerd-strace-") as log:
        watched = [
            *("strace", "-f", "-y", "-xx", "-s", str(64 << 20), "-o", log.name),
            *("-e", "trace=" + ",".join([*_UNDERSTOOD, *(f"?{name}" for name in _NOT_UNDERSTOOD)])),
        ]
        try:
            done = subprocess.run([*watched, *command], capture_output=True, timeout=LIMIT_S, check=False)
        except FileNotFoundError:
            raise HarnessError("strace is missing: apt-get install strace") from None
        if done.returncode:
            raise HarnessError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr.decode()}")
        for line in _whole_lines(Path(log.name).read_text().splitlines()):
            reader.read(line)
    if not reader.has_begun:
        raise HarnessError(f"{' '.join(command)} never said {BEGIN!r}")
    return Trace(reader.inodes, tuple(reader.operations))


def _whole_lines(lines: list[str]) -> list[str]:
    """Join the halves of a call during which another thread made one, at the place where it ended."""
    paused: dict[str, str] = {}
    whole = []
    for line in lines:
        if found := _PAUSED.fullmatch(line):
            paused[found[1]] = found[2]
        elif found := _GOES_ON.fullmatch(line):
            whole.append(f"{found[1]} {paused.pop(found[1])}{found[2]}")
        else:
            whole.append(line)
    return whole


class _Reader:
    """Turns lines into operations.

    Keeps the folder as it is at each moment to know which file a path means.
    """

    def __init__(self, folder: Path, marks: Path) -> None:
        self.inodes: dict[int, Inode] = {}
        self.operations: list[Operation] = []
        self.has_begun = False
        self._folder = folder
        self._marks = str(marks)
        self._names: dict[int, dict[str, int]] = {}
        self._take_in(folder)
        self._positions: dict[int, int] = {}

    def _take_in(self, path: Path) -> int:
        number = self._new()
        if path.is_symlink():
            self.inodes[number] = Symlink(str(path.readlink()))
        elif path.is_dir():
            self._names[number] = {one.name: self._take_in(one) for one in sorted(path.iterdir())}
            self.inodes[number] = dict(self._names[number])
        else:
            self.inodes[number] = path.read_bytes()
        return number

    def _new(self, content: Inode = b"") -> int:
        number = len(self.inodes)
        self.inodes[number] = content
        if isinstance(content, dict):
            self._names[number] = {}
        return number

    def read(self, line: str) -> None:
        found = _CALL.fullmatch(line)
        if found is None:
            if " +++ " in line or " --- " in line:
                return
            raise HarnessError(f"strace wrote a line that cannot be read: {line[:300]}")
        _, name, arguments, result, path = found.groups()
        values = [_value(*one.groups()) for one in _ARGUMENT.finditer(arguments)]
        if int(result) >= 0:
            self._call(name, values, int(result), _text(path) if path else "")

    def _call(self, name: str, values: list[str | bytes], result: int, path: str) -> None:
        if name in _NOT_UNDERSTOOD:
            if any(isinstance(value, str) and value.startswith(str(self._folder)) for value in values):
                raise HarnessError(f"the program called {name} on {values[0]!r}, which is not understood")
        elif name in {"open", "openat", "creat"}:
            self._open(path, "".join(str(value) for value in values if isinstance(value, str)))
        elif name in {"write", "pwrite64"}:
            self._write(name, values, result)
        elif name in {"fsync", "fdatasync"}:
            if (inode := self._at(values[0])) is not None:
                self._do(Sync(inode, f"{name} {self._short(values[0])}"))
        elif name in {"ftruncate", "fallocate"}:
            self._resize(name, values)
        elif name.startswith("rename"):
            old, new = _paths(values)
            self._rename(old, new)
        elif name.startswith(("unlink", "rmdir")):
            (gone,) = _paths(values)
            self._unlink(gone)
        elif name.startswith("mkdir"):
            (made,) = _paths(values)
            self._link(made, {}, "mkdir")
        elif name.startswith("symlink"):
            target, made = values[0], _paths(values[1:])[-1]
            assert isinstance(target, bytes)
            self._link(made, Symlink(target.decode()), "symlink")

    def _do(self, operation: Operation) -> None:
        if isinstance(operation, Link):
            self._names[operation.folder][operation.name] = operation.inode
        elif isinstance(operation, Unlink):
            del self._names[operation.folder][operation.name]
        if self.has_begun:
            self.operations.append(operation)
        else:
            apply(self.inodes, operation)

    def _open(self, path: str, flags: str) -> None:
        if not self._is_inside(path) or "O_PATH" in flags:
            return
        inode = self._at(path)
        if inode is None:
            assert "O_CREAT" in flags, path
            inode = self._link(path, b"", "create")
        elif "O_TRUNC" in flags:
            self._do(Resize(inode, 0, f"open with O_TRUNC {self._short(path)}"))
        assert "O_APPEND" not in flags or isinstance(self.inodes[inode], bytes)
        self._positions[inode] = -1 if "O_APPEND" in flags else 0

    def _write(self, name: str, values: list[str | bytes], written: int) -> None:
        path, data = values[0], values[1]
        assert isinstance(data, bytes)
        if path == self._marks:
            for mark in data.decode().splitlines():
                self._do(Mark(mark))
                self.has_begun |= mark == BEGIN
        elif (inode := self._at(path)) is not None:
            offset = int(values[3]) if name == "pwrite64" else self._positions[inode]
            if offset < 0:
                offset = self._size(inode)
            if name == "write" and self._positions[inode] >= 0:
                self._positions[inode] += written
            self._do(
                Write(inode, offset, data[:written], f"{name} {self._short(path)} {written} at {offset}")
            )

    def _size(self, inode: int) -> int:
        size = len(self._content(inode))
        for one in self.operations:
            if isinstance(one, Write) and one.inode == inode:
                size = max(size, one.offset + len(one.data))
            elif isinstance(one, Resize) and one.inode == inode:
                size = one.size
        return size

    def _content(self, inode: int) -> bytes:
        content = self.inodes[inode]
        assert isinstance(content, bytes)
        return content

    def _resize(self, name: str, values: list[str | bytes]) -> None:
        if (inode := self._at(values[0])) is None:
            return
        if name == "ftruncate":
            size = int(values[1])
        elif values[1] == "0":
            size = max(self._size(inode), int(values[2]) + int(values[3]))
        else:
            raise HarnessError(f"fallocate with mode {values[1]!r} is not understood")
        self._do(Resize(inode, size, f"{name} {self._short(values[0])} to {size}"))

    def _rename(self, old: str, new: str) -> None:
        if not self._is_inside(old) and not self._is_inside(new):
            return
        inode = self._at(old)
        if inode is None or not self._is_inside(new):
            raise HarnessError(f"{old} was renamed to {new}, across the border of what is watched")
        text = f"rename {self._short(old)} to {self._short(new)}"
        (folder, name), (old_folder, old_name) = self._place(new), self._place(old)
        self._do(Link(folder, name, inode, text))
        self._do(Unlink(old_folder, old_name, text))

    def _link(self, path: str, content: Inode, what: str) -> int:
        if not self._is_inside(path):
            return -1
        inode = self._new(content)
        folder, name = self._place(path)
        self._do(Link(folder, name, inode, f"{what} {self._short(path)}"))
        return inode

    def _unlink(self, path: str) -> None:
        if self._is_inside(path):
            self._do(Unlink(*self._place(path), f"unlink {self._short(path)}"))

    def _place(self, path: str) -> tuple[int, str]:
        folder = self._at(str(Path(path).parent))
        assert folder is not None, path
        return folder, Path(path).name

    def _is_inside(self, path: str | bytes) -> bool:
        return isinstance(path, str) and (path == str(self._folder) or path.startswith(f"{self._folder}/"))

    def _at(self, path: str | bytes) -> int | None:
        """Return the inode of a path, None if it is elsewhere, not there, or was deleted."""
        if not self._is_inside(path):
            return None
        number = ROOT
        for name in Path(str(path)).relative_to(self._folder).parts:
            found = self._names[number].get(name)
            if found is None:
                return None
            number = found
        return number

    def _short(self, path: str | bytes) -> str:
        return str(Path(str(path)).relative_to(self._folder))


def _value(
    text: str | None,
    is_cut: str | None,
    _number: str | None,
    path: str | None,
    deleted: str | None,
    other: str | None,
) -> str | bytes:
    """Return an argument: bytes for a string, the path for a descriptor, text for anything else."""
    if is_cut:
        raise HarnessError("strace cut a string short")
    if text is not None:
        return bytes.fromhex(text.replace("\\x", ""))
    if path is not None:
        return _text(path) + (" (deleted)" if deleted else "")
    assert other is not None
    return other.strip()


def _text(path: str) -> str:
    return bytes.fromhex(path.replace("\\x", "")).decode()


def _paths(values: list[str | bytes]) -> list[str]:
    """Return the paths among arguments; a relative one belongs to the folder before it."""
    paths = []
    for before, value in zip([None, *values], values, strict=False):
        if isinstance(value, bytes):
            text = value.decode()
            if isinstance(before, str) and not text.startswith("/"):
                text = f"{before}/{text}"
            paths.append(text)
    return paths
