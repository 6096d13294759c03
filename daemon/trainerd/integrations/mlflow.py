"""MLflow: `follow` writes what a session logs as one run, without doubled or missing points."""

from __future__ import annotations

from trainerd.training.integrations.mlflow_curve import follow

__all__ = ["follow"]
