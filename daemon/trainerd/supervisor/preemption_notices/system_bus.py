"""Calls methods over D-Bus: as much of the protocol as logind needs. Standard library only."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Final, Self

from trainerd.supervisor.preemption_notices.taking import NotSeenError

if TYPE_CHECKING:
    from collections.abc import Sequence

SYSTEM_BUS: Final = "/run/dbus/system_bus_socket"
BUS_LIMIT_S: Final = 2.0
"""How long the bus may take for each part of an answer, in seconds."""

MESSAGE_BYTES_MAX: Final = 1 << 20
MESSAGES_SKIPPED_MAX: Final = 1000
"""So many messages that are no answer are skipped; more than these are no bus that makes sense."""

METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
PATH, INTERFACE, MEMBER, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 5, 6, 8
_HEADER: Final = struct.Struct("<cBBBIII")


class SystemBus:
    """A connection. Use it as a context manager, or close it.

    Args:
        address: Path of the socket.

    Raises:
        NotSeenError: It cannot be reached.
    """

    def __init__(self, address: str = SYSTEM_BUS) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(BUS_LIMIT_S)
        self._serial = 0
        self._received = b""
        self._descriptors: list[int] = []
        try:
            self._socket.connect(address)
            self._log_in()
        except OSError as error:
            self.close()
            raise NotSeenError(f"the system bus does not answer: {error.strerror or error}") from None
        except NotSeenError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _log_in(self) -> None:
        uid = str(os.geteuid()).encode().hex()
        self._socket.sendall(b"\0AUTH EXTERNAL " + uid.encode() + b"\r\n")
        self._expect(b"OK ")
        self._socket.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        self._expect(b"AGREE_UNIX_FD")
        self._socket.sendall(b"BEGIN\r\n")
        self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")

    def _expect(self, start: bytes) -> None:
        while b"\r\n" not in self._received:
            self._receive()
        line, _, self._received = self._received.partition(b"\r\n")
        if not line.startswith(start):
            raise NotSeenError("the system bus does not let this user in")

    def call(self, service: str, path: str, interface: str, member: str, texts: Sequence[str] = ()) -> bytes:
        """Call a method with texts as arguments; return the body of the answer.

        Raises:
            NotSeenError: The bus does not answer, or answers with an error.
        """
        self._serial += 1
        fields = {PATH: ("o", path), INTERFACE: ("s", interface), MEMBER: ("s", member)}
        fields[DESTINATION] = ("s", service)
        try:
            self._socket.sendall(message(METHOD_CALL, self._serial, fields, texts))
            for _ in range(MESSAGES_SKIPPED_MAX):
                kind, reply_serial, body = self._next()
                if reply_serial != self._serial:
                    continue
                if kind == METHOD_RETURN:
                    return body
                if kind == ERROR:
                    raise NotSeenError(f"{member} was refused")
        except (OSError, struct.error, IndexError) as error:
            raise NotSeenError(f"the system bus does not answer: {type(error).__name__}") from None
        raise NotSeenError("the system bus does not answer the call")

    def take_descriptor(self) -> int | None:
        """Return the file descriptor that came with the last answer, None if there was none."""
        return self._descriptors.pop() if self._descriptors else None

    def _next(self) -> tuple[int, int | None, bytes]:
        head = self._exactly(16)
        _, kind, _, _, body_bytes, _, fields_bytes = _HEADER.unpack(head)
        padded = -(-fields_bytes // 8) * 8
        if padded + body_bytes > MESSAGE_BYTES_MAX:
            raise NotSeenError("the system bus answers with too much")
        rest = self._exactly(padded + body_bytes)
        return kind, reply_serial_in(rest[:fields_bytes]), rest[padded:]

    def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        found, self._received = self._received[:count], self._received[count:]
        return found

    def _receive(self) -> None:
        # A lock that a program inherits would hold up a shutdown until that program ends.
        data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 8, socket.MSG_CMSG_CLOEXEC)
        for descriptor in descriptors:  # not every kernel heeds the flag
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        if not data:
            raise ConnectionResetError("closed")
        self._received += data


def message(kind: int, serial: int, fields: dict[int, tuple[str, Any]], texts: Sequence[str] = ()) -> bytes:
    """Return a message with texts as its body."""
    body = b""
    for text in texts:
        body = _aligned(body, 4) + _text(text)
    if texts:
        fields = {**fields, SIGNATURE: ("g", "s" * len(texts))}
    array = b""
    for code, (signature, value) in fields.items():
        array = _aligned(array, 8) + bytes([code, 1]) + signature.encode() + b"\0"
        if signature == "u":
            array = _aligned(array, 4) + struct.pack("<I", value)
        elif signature == "g":
            array += bytes([len(value)]) + value.encode() + b"\0"
        else:
            array = _aligned(array, 4) + _text(value)
    head = _HEADER.pack(b"l", kind, 0, 1, len(body), serial, len(array))
    return _aligned(head + array, 8) + body


def reply_serial_in(fields: bytes) -> int | None:
    """Return which call a message answers, None if it answers none."""
    at = 0
    while at < len(fields):
        at = -(-at // 8) * 8
        code, length = fields[at], fields[at + 1]
        signature = fields[at + 2 : at + 2 + length]
        at += 3 + length
        if signature in {b"s", b"o"}:
            at = -(-at // 4) * 4
            at += 4 + struct.unpack_from("<I", fields, at)[0] + 1
        elif signature == b"g":
            at += fields[at] + 2
        elif signature == b"u":
            at = -(-at // 4) * 4
            value = int(struct.unpack_from("<I", fields, at)[0])
            if code == REPLY_SERIAL:
                return value
            at += 4
        else:
            return None
    return None


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _aligned(data: bytes, to: int) -> bytes:
    return data + b"\0" * (-len(data) % to)
