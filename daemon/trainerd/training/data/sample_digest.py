"""A running digest of which samples were trained on, in which order: 64 bits that say it for a whole run.

Two runs with the same digest after the same step have seen the same samples in the same batches. It is kept
in the checkpoint and in the metric history, so that steps which are run again after a crash can be compared
with what they were the first time.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

import xxhash

BEGINNING: Final = 0
"""The digest of a run that has seen nothing."""

_PLAIN: Final = (int, str, bytes, float, type(None))


def folded_in(digest: int | None, indices: Any) -> int | None:
    """Return the digest after one more batch.

    Args:
        digest: After the batches before it; None if one of them had no digest.
        indices: What the sampler gave for the batch: a list of indices, or one. An index is a whole number, a
            text, or a tuple of such; of anything else it is not known how to say the same thing twice, and
            the digest is None from there on.
    """
    if digest is None:
        return None
    if isinstance(indices, int):
        indices = (indices,)
    try:
        data = array("q", indices).tobytes()
    except (TypeError, OverflowError):
        if not _is_plain(indices):
            return None
        data = repr(indices).encode("utf-8", "surrogatepass")
    return xxhash.xxh3_64_intdigest(data, digest)


def _is_plain(indices: Any) -> bool:
    if isinstance(indices, list | tuple):
        return all(map(_is_plain, indices))
    return type(indices) in _PLAIN
