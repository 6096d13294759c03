"""What the class of an object says about its part in training."""

from __future__ import annotations

from typing import Final

from trainerd.analysis.syntax import last_part

OPTIMIZER: Final = "an optimizer"
SCHEDULER: Final = "a learning-rate scheduler"
_AVERAGE: Final = "an average of the model's weights"

_BY_NAME: Final = {
    "GradScaler": "a gradient scaler",
    "ShardedGradScaler": "a gradient scaler",
    "AveragedModel": _AVERAGE,
    "ExponentialMovingAverage": _AVERAGE,
    "ModelEma": _AVERAGE,
    "ModelEmaV2": _AVERAGE,
    "ModelEmaV3": _AVERAGE,
    "ModelEMA": _AVERAGE,
    "EMA": _AVERAGE,
    "EarlyStopping": "a count of epochs without improvement",
    "EarlyStopper": "a count of epochs without improvement",
    "SWALR": SCHEDULER,
}
_OPTIMIZERS: Final = frozenset(
    {
        "SGD", "Adam", "AdamW", "Adamax", "Adadelta", "Adafactor", "Adagrad", "ASGD", "LBFGS", "NAdam",
        "RAdam", "RMSprop", "Rprop", "SparseAdam", "Muon", "Lion", "Lamb", "LAMB", "LARS", "SAM", "Sophia",
        "FusedAdam", "AdaBelief", "Ranger", "AdamW8bit", "Adam8bit", "ZeroRedundancyOptimizer",
        "create_optimizer",
        "create_optimizer_v2", "configure_optimizers",
    }
)  # fmt: skip
_GENERATORS: Final = frozenset(
    {
        "torch.Generator", "numpy.random.default_rng", "numpy.random.RandomState", "numpy.random.Generator",
        "random.Random",
    }
)  # fmt: skip


def kind_of(resolved: str) -> str | None:
    """Return what an object of a class, or made by a function, is; None if it is none that needs tracking.

    Args:
        resolved: Dotted name of the class or function, imports spelled out.
    """
    package, _, last = resolved.rpartition(".")
    if last in _BY_NAME:
        return _BY_NAME[last]
    if last.startswith("get_") and last.endswith(("_scheduler", "_warmup")):
        return SCHEDULER
    if last[:1].isupper() and (
        "lr_scheduler" in package.split(".")
        or last.endswith(("LR", "Scheduler", "WarmRestarts", "OnPlateau"))
    ):
        return SCHEDULER
    if last in _OPTIMIZERS or (last_part(package) == "optim" and last[:1].isupper()):
        return OPTIMIZER
    return None


def is_generator(resolved: str) -> bool:
    """Tell whether a class or function makes a random generator."""
    return resolved in _GENERATORS
