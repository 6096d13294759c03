"""Hugging Face Transformers: `protect` makes a `Trainer` drain and resume exactly."""

from __future__ import annotations

from trainerd.training.integrations.transformers_trainer import protect

__all__ = ["protect"]
