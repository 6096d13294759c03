"""What a spec says, whatever it looks like: two texts that mean the same have one digest.

Comments, whitespace, the order of keys, the format of the file, other spellings of one value (``1m`` and
``60``), a field that says what its default is: none of these is another spec, and a running job is not
drained for them. Invariants: a field that a later trainerd adds changes no digest of a spec that does not use
it, so an upgrade drains no job; and what the machine is like (where the folder of the spec is, which program
a name in PATH means, whose home ``~`` is) is no part of it: every reader of the spec, wherever, has the same
digest.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import xxhash

from trainerd.supervisor.specs.resolve import spoken_of

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.supervisor.specs.model import JobSpec


def meaning_digest(spec: JobSpec, path: Path) -> str:
    """Return the digest of what `spec` means in the file `path`: 32 hexadecimal digits.

    Args:
        spec: What it says.
        path: Of the file; its stem is the name of a job that is not named.
    """
    said: dict[str, Any] = spec.model_dump(mode="json", exclude_defaults=True)
    said["name"] = spec.name or path.stem
    for field in ("workdir", "python", "env_file"):
        if (text := getattr(spec, field)) is not None:
            # "./python" is a file of this folder, and "python" one to look for in PATH.
            is_searched_for = field == "python" and "/" not in text
            said[field] = text if is_searched_for else f"./{os.path.normpath(text)}"
    # To write a default down is to overrule the training script: it differs from leaving it to the script.
    said["checkpoint"] = {"says": said.get("checkpoint", {}), "overrules": spoken_of(spec.checkpoint)}
    # The file's name may hold bytes that are no text; then the spec is refused, and is digested all the same.
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return xxhash.xxh3_128_hexdigest(text.encode())
