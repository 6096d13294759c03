"""TensorBoard: `follow` writes what a session logs as one curve, without doubled or missing points."""

from __future__ import annotations

from trainerd.training.integrations.tensorboard_curve import follow

__all__ = ["follow"]
