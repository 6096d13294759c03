"""Reasons of checkpoints, in manifests, on which something is decided. All others are texts for people."""

from __future__ import annotations

from typing import Final

FLUSHED: Final = "flushed"
"""A boundary that was held in memory was made durable because the attempt was about to end."""

FROM_MEMORY: Final = "memory"
"""A copy was in memory when its process died; it is made durable by the next attempt."""

SAVED_AT_END: Final = frozenset({FLUSHED, FROM_MEMORY})
"""Reasons of checkpoints that exist because an attempt ended."""
