"""Ray Train: `session` opens a session in a worker, which hears preemptions and hands checkpoints over."""

from __future__ import annotations

from trainerd.training.integrations.ray_session import session

__all__ = ["session"]
