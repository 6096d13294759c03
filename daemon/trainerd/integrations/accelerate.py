"""Hugging Face Accelerate: `session` opens a training session that takes prepared objects."""

from __future__ import annotations

from trainerd.training.integrations.accelerate_session import session

__all__ = ["session"]
