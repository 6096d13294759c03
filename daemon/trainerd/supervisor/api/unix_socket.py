"""The Unix socket on which the supervisor answers.

Where it may be bound, who may speak, how it is reached.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING, Final, Protocol

from trainerd.contract.durable import TEMPORARY_INFIX
from trainerd.errors import LockedError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADDRESS_BYTES_MAX: Final = 107
"""Longest path that the kernel takes as a socket address, in bytes."""
SOCKET_MODE: Final = 0o600
GROUP_SOCKET_MODE: Final = 0o660
BACKLOG: Final = 128

_PROBE_TIMEOUT_S: Final = 1.0
_CREDENTIALS: Final = struct.Struct("3i")
_ROOT_UID: Final = 0
_SO_PEERGROUPS: Final = 59
_GROUP_BYTES: Final = 4
_GROUPS_BYTES: Final = 1024
"""The largest buffer that CPython hands to the kernel, in bytes: room for 256 groups."""
_GROUPS_BYTES_MAX: Final = _GROUP_BYTES * 65536
"""Room for as many groups as Linux allows a process, in bytes."""


class _HasOptions(Protocol):
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...

    def fileno(self) -> int: ...


def bind_socket(path: Path, *, group_id: int | None = None) -> socket.socket:
    """Listen on `path`, in the place of a socket without a listener; with mode 0600, or 0660 for a group.

    The socket is bound under a temporary name and renamed when its mode is right and it listens: there is no
    moment at which others could connect, whatever the umask. A crash before the rename leaves a temporary
    name, which the next call removes; after it, a dead socket, which the next call replaces.

    Raises:
        LockedError: Another process answers on it.
        UserError: There is something else of that name, or its folder cannot be written.
    """
    _refuse_taken(path)
    try:
        _sweep(path)
        temporary = path.with_name(f".{path.name}{TEMPORARY_INFIX}{os.getpid()}")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with reachable_address(temporary) as address:
                listener.bind(address)
            _admit(temporary, group_id)
            listener.listen(BACKLOG)
            temporary.replace(path)
        except BaseException:
            listener.close()
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise UserError(
            f"cannot listen on {path}: {os.strerror(error.errno or 0)}",
            hint="choose a state folder on a local filesystem that this user can write",
        ) from error
    return listener


@contextlib.contextmanager
def listening(
    path: Path, *, inherited: tuple[int, tuple[int, int]] | None = None, group_id: int | None = None
) -> Iterator[socket.socket]:
    """Listen on `path` while the context lasts, then remove it unless another process has replaced it.

    A socket that was detached meanwhile goes on listening: nothing is closed or removed.

    Args:
        path: Where.
        inherited: A descriptor that listens there already, and the device and inode of its name.
        group_id: Group whose members may connect too, None for none.

    Raises:
        LockedError: As `bind_socket`.
        UserError: As `bind_socket`.
    """
    listener = _adopted(path, *inherited) if inherited is not None else None
    if listener is None:
        listener = bind_socket(path, group_id=group_id)
    else:
        _admit(path, group_id)
    ours = path.lstat()
    try:
        yield listener
    finally:
        is_detached = listener.fileno() < 0
        listener.close()
        if not is_detached:
            _remove(path, ours)


def _admit(path: Path, group_id: int | None) -> None:
    """Let the user, and a group if there is one, connect."""
    try:
        if group_id is None:
            path.chmod(SOCKET_MODE)
        else:
            os.chown(path, -1, group_id)
            path.chmod(GROUP_SOCKET_MODE)
    except PermissionError as error:
        raise UserError(
            f"socket.group: {path} cannot be given to the group {group_id}",
            hint="the supervisor's user must be one of its members",
        ) from error


def _remove(path: Path, ours: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        if os.path.samestat(path.lstat(), ours):
            path.unlink()


def _adopted(path: Path, descriptor: int, file: tuple[int, int]) -> socket.socket | None:
    """Return the socket of an inherited descriptor, if it listens and its name still leads to it."""
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        found = path.lstat()
        is_ours = (found.st_dev, found.st_ino) == file
        if is_ours and listener.family == socket.AF_UNIX and _is_listening(listener):
            return listener
    except OSError:
        pass
    listener.close()
    return None


def _is_listening(listener: socket.socket) -> bool:
    return listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


@contextlib.contextmanager
def reachable_address(path: Path) -> Iterator[str]:
    """Give an address that means `path` for as long as the context lasts, however long the path is."""
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def is_answered(path: Path) -> bool:
    """Return whether a process listens on `path`.

    Raises:
        OSError: It could not be found out; then a process may well be listening.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, reachable_address(path) as address:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except (BlockingIOError, TimeoutError):  # a full queue is a listener's
            return True
        return True


def is_trusted_peer(connection: _HasOptions, *, group_id: int | None = None) -> bool:
    """Return whether the other end, as the kernel says, runs as our own user, as root, or in the group.

    A peer that cannot be identified is not trusted, whatever the reason.
    """
    try:
        _, uid, gid = peer_credentials(connection)
        if uid in {os.geteuid(), _ROOT_UID}:
            return True
        return group_id is not None and (gid == group_id or group_id in _peer_groups(connection))
    except Exception as error:  # noqa: BLE001 - a guard that fails refuses
        import structlog  # here: the command line imports this module and must not pay for it

        structlog.get_logger(__name__).warning("api.peer-unknown", reason=f"{type(error).__name__}: {error}")
        return False


def peer_credentials(connection: _HasOptions) -> tuple[int, int, int]:
    """Return process, user and group of the other end when it connected.

    Raises:
        OSError: The kernel does not say.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(credentials)
    return pid, uid, gid


def _peer_groups(connection: _HasOptions) -> tuple[int, ...]:
    """Return the supplementary groups that the other end had when it connected.

    Raises:
        OSError: The kernel does not say.
    """
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        data = _long_option(connection.fileno(), _SO_PEERGROUPS)
    return struct.unpack(f"{len(data) // _GROUP_BYTES}I", data)


def _long_option(descriptor: int, option: int) -> bytes:
    """Return an option that is longer than `socket.getsockopt` takes."""
    buffer = ctypes.create_string_buffer(_GROUPS_BYTES_MAX)
    size = ctypes.c_uint32(_GROUPS_BYTES_MAX)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(descriptor, socket.SOL_SOCKET, option, buffer, ctypes.byref(size)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw[: size.value]


def _refuse_taken(path: Path) -> None:
    try:
        found = path.lstat()
        taken = stat.S_ISSOCK(found.st_mode) and is_answered(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot look at {path}: {os.strerror(error.errno or 0)}") from error
    if taken:
        raise LockedError(
            f"another process answers on {path} already",
            hint="another supervisor uses this state folder: stop it, or give this one a folder of its own",
        )
    if not stat.S_ISSOCK(found.st_mode):
        raise UserError(f"{path} is in the way: it is not a socket", hint="move it aside and start again")


def _sweep(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.name}{TEMPORARY_INFIX}*"):
        leftover.unlink(missing_ok=True)
