"""The manifest of a checkpoint: what it is, and which files with which digests belong to it.

It is written last, so a folder with a manifest had everything synced before. It carries a digest of itself:
the field ``digest`` is the digest of the file's own bytes with that field's 32 hexadecimal digits set to
zeros.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trainerd.checkpoint.checkpoint_names import is_plain_file_name
from trainerd.checkpoint.digest import DIGEST_PATTERN, digest_of_bytes
from trainerd.checkpoint.tree import decode_tree, encode_tree
from trainerd.contract.codec import from_plain, to_plain
from trainerd.contract.nonfinite import as_number, spelled
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "MANIFEST_FORMAT",
    "FileEntry",
    "Manifest",
    "NewerFormatError",
    "decode_manifest",
    "encode_manifest",
]

MANIFEST_FORMAT: Final = "trainerd.checkpoint/1"

_UNSIGNED: Final = "xxh3-128:" + "0" * 32
_DIGEST_FIELD: Final = re.compile(rb'"digest": "(xxh3-128:[0-9a-f]{32})"')
_FORMAT: Final = re.compile(r"trainerd\.checkpoint/(\d+)")


class NewerFormatError(UserError):
    """A checkpoint that a newer trainerd wrote. As far as can be told it is sound: never quarantined."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint: its name in the folder, its size in bytes, its digest."""

    name: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is.

    Attributes:
        job: Name of the job.
        lineage: Id of the line of checkpoints that follow from one another, in hexadecimal.
        parent: Name of the checkpoint before it in that line, None for the first.
        step: Optimizer steps done.
        epoch: Epochs done.
        batch: Batches done in the epoch that is going on.
        reason: Why it was made, a text for people: docs/formats.md lists those that the code gives.
        scores: Reported values by which it can be ranked; NaN and infinities as they are.
        world_size: Ranks whose state is in it.
        attempt: Number of the attempt that made it.
        fingerprint: What the program looked like that made it.
        history_bytes: Size in bytes of the metric history that belongs to it.
        files: All its files but the manifest.
        created_wall_s: When it was made, in seconds since the epoch.
        trainerd_version: Who made it.
        is_final: Whether training had ended.
    """

    job: str
    lineage: str
    parent: str | None
    step: int
    epoch: int
    batch: int
    reason: str
    scores: dict[str, float] = field(default_factory=dict)
    world_size: int = 1
    attempt: int = 1
    fingerprint: dict[str, Any] = field(default_factory=dict)
    history_bytes: int = 0
    files: tuple[FileEntry, ...] = ()
    created_wall_s: float = 0.0
    trainerd_version: str = ""
    is_final: bool = False

    @property
    def bytes(self) -> int:
        """Size of all files together, in bytes."""
        return sum(entry.bytes for entry in self.files)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the text of ``manifest.json``, its own digest included.

    Raises:
        UnsupportedValueError: The fingerprint holds what has no exact form.
    """
    plain = to_plain(manifest)
    plain["scores"] = {name: spelled(float(score)) for name, score in manifest.scores.items()}
    plain["fingerprint"] = encode_tree(manifest.fingerprint, leaf=lambda _, __: None, root="fingerprint")
    document = {"format": MANIFEST_FORMAT, "digest": _UNSIGNED, **plain}
    text = (json.dumps(document, allow_nan=False, indent=1, ensure_ascii=False) + "\n").encode()
    return text.replace(_UNSIGNED.encode(), digest_of_bytes(text).encode(), 1)


def decode_manifest(data: bytes, *, source: Path | str = "manifest") -> Manifest:
    """Read the text of ``manifest.json``.

    Raises:
        CorruptError: It is not what was written.
        NewerFormatError: A newer trainerd wrote it.
    """
    # Before anything is believed, the version included: the rule is the same for all versions.
    _check_digest(data, source)
    plain = _document(data, source)
    try:
        plain["scores"] = {name: as_number(score) for name, score in plain["scores"].items()}
        plain["fingerprint"] = decode_tree(plain["fingerprint"], leaf=_unknown_tag)
    except (KeyError, AttributeError) as error:
        raise CorruptError(f"{source}: a field is missing or ill-formed: {error}") from error
    manifest = from_plain(plain, Manifest, source=source)
    for entry in manifest.files:
        if (
            not is_plain_file_name(entry.name)
            or not DIGEST_PATTERN.fullmatch(entry.digest)
            or entry.bytes < 0
        ):
            raise CorruptError(f"{source}: the entry of the file {entry.name!r:.100} is ill-formed")
    if len({entry.name for entry in manifest.files}) != len(manifest.files):
        raise CorruptError(f"{source}: a file is listed twice")
    return manifest


def _document(data: bytes, source: Path | str) -> dict[str, Any]:
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{source}: not valid JSON: {error}") from error
    if not isinstance(plain, dict):
        raise CorruptError(f"{source}: not an object")
    found = plain.get("format")
    if found == MANIFEST_FORMAT:
        return plain
    if isinstance(found, str) and _FORMAT.fullmatch(found):
        raise NewerFormatError(
            f"{source}: it has the format {found!r}, and this trainerd reads {MANIFEST_FORMAT!r}",
            hint="resume with the trainerd that wrote it, or a newer one",
        )
    raise CorruptError(f"{source}: expected format {MANIFEST_FORMAT!r}, found {found!r:.100}")


def _check_digest(data: bytes, source: Path | str) -> None:
    found = _DIGEST_FIELD.search(data)
    if found is None:
        raise CorruptError(f"{source}: it has no digest of itself")
    unsigned = data[: found.start(1)] + _UNSIGNED.encode() + data[found.end(1) :]
    if digest_of_bytes(unsigned) != found[1].decode():
        raise CorruptError(f"{source}: its digest does not match what it says")


def _unknown_tag(tag: str, _payload: Any) -> Any:
    raise CorruptError(f"a fingerprint has the unknown tag {tag!r}")
