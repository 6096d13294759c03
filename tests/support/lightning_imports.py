"""Imports what a job with Lightning needs, once for all of its ranks."""

from tests.support.lightning_packages import import_torchvision_first

import_torchvision_first()

import lightning.pytorch  # noqa: E402, F401
import torchmetrics  # noqa: E402, F401
