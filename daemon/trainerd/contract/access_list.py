"""POSIX access lists: what they allow beyond the nine bits of a mode.

With a list, the middle three bits are a mask of what it may grant at most, not what the group may do.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

ATTRIBUTE: Final = "system.posix_acl_access"

READ: Final = 4
WRITE: Final = 2
SEARCH: Final = 1

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_USER: Final = 0x02
_GROUP_OWNER: Final = 0x04
_GROUP: Final = 0x08
_MASK: Final = 0x10
_NO_LIST: Final = frozenset({errno.ENODATA, errno.ENOTSUP, errno.ENOSYS})


@dataclass(frozen=True)
class AccessList:
    """What a file grants to named users and groups, besides its owner and all users.

    Attributes:
        group: What the file's own group may do, as three bits.
        users: What each user that is named may do.
        groups: What each group that is named may do.
    """

    group: int
    users: dict[int, int]
    groups: dict[int, int]

    def granted_groups(self, gid: int) -> dict[int, int]:
        """Return what each group may do, the file's own among them."""
        return {**self.groups, gid: self.group | self.groups.get(gid, 0)}


def read_access_list(file: Path | int, mode: int) -> AccessList:
    """Return what a file grants, from its access list, or from its mode where it has none.

    Args:
        file: Its path, of which links are followed, or a descriptor.
        mode: As `stat` says.

    Raises:
        OSError: It cannot be found out, or the list cannot be understood.
    """
    try:
        data = os.getxattr(file, ATTRIBUTE)
    except OSError as error:
        if error.errno not in _NO_LIST:
            raise
        return AccessList((mode >> 3) & 7, {}, {})
    return _decoded(data)


def _decoded(data: bytes) -> AccessList:
    if len(data) < _HEADER.size or (len(data) - _HEADER.size) % _ENTRY.size or _version(data) != _VERSION:
        raise OSError(errno.EINVAL, "the access list cannot be understood")
    entries = list(_ENTRY.iter_unpack(data[_HEADER.size :]))
    mask = next((permissions for tag, permissions, _ in entries if tag == _MASK), 7)
    group = next((permissions & mask for tag, permissions, _ in entries if tag == _GROUP_OWNER), 0)
    users = {who: permissions & mask for tag, permissions, who in entries if tag == _USER}
    groups = {who: permissions & mask for tag, permissions, who in entries if tag == _GROUP}
    return AccessList(group, users, groups)


def _version(data: bytes) -> int:
    (version,) = _HEADER.unpack_from(data)
    assert isinstance(version, int)
    return version


def encoded(entries: list[tuple[int, int, int]]) -> bytes:
    """Return the attribute for entries of tag, permissions and number, in the order of their tags."""
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)
