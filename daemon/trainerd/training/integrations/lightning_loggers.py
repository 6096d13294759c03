"""Loggers of a resumed trainer: the same version, and one curve in the file of a `CSVLogger`.

A checkpoint holds both. An attempt that ends before its first checkpoint leaves the folder of a logger:
the versions are in a file of the run folder too, and the next attempt begins again in the same folder.
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.durable import write_file
from trainerd.training.state.files import as_tensor

if TYPE_CHECKING:
    import torch

VERSIONS: Final = "lightning-loggers.json"
"""In the run folder: the kind and the version of each logger. Replaced as a whole."""
_BYTES_MAX: Final = 1 << 16
_EMPTY_EVENTS: Final = "events.out.tfevents.*"


def loggers_state(trainer: Any) -> list[dict[str, Any]]:
    """Return the version of each logger, and the rows of one that writes a CSV file."""
    return [
        {"kind": type(each).__name__, "version": _version(each), "rows": _rows(each)}
        for each in trainer.loggers
    ]


def record_versions(trainer: Any, run_dir: Path) -> None:
    """Note the versions in the run folder, for an attempt that finds no checkpoint."""
    if trainer.is_global_zero:
        versions = [[type(each).__name__, _version(each)] for each in trainer.loggers]
        write_file(run_dir / VERSIONS, json.dumps(versions).encode())


def recorded_loggers(run_dir: Path) -> list[dict[str, Any]]:
    """Return what an attempt without a checkpoint has noted, with no rows; nothing if it is unreadable."""
    try:
        with (run_dir / VERSIONS).open("rb") as file:
            versions = json.loads(file.read(_BYTES_MAX))
        return [
            {"kind": str(kind), "version": version, "rows": as_tensor(b"")}
            for kind, version in versions
            if type(version) in (int, str)
        ]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def put_back_loggers(trainer: Any, saved: list[dict[str, Any]]) -> None:
    """Have loggers go on with the version that they had, before others derive folders from it.

    Rows of a CSV file that were written after the checkpoint are removed: they come again.
    """
    for logger, state in zip(trainer.loggers, saved, strict=False):
        if type(logger).__name__ != state["kind"]:
            continue
        version = _version(logger)
        if version is not None and version != state["version"] and hasattr(logger, "_version"):
            if trainer.is_global_zero:
                _leave_new_folder(logger)
            logger._version = state["version"]  # noqa: SLF001 - Lightning has no public way to it
            logger._experiment = None  # noqa: SLF001 - as above
        if state["rows"] is not None and _has_csv_file(logger):
            _put_back_rows(logger.experiment, state["rows"].numpy().tobytes().decode())


def _version(logger: Any) -> Any:
    version = getattr(logger, "version", None)
    return version if type(version) in (int, str) else None


def _has_csv_file(logger: Any) -> bool:
    experiment = getattr(logger, "_experiment", None) or getattr(logger, "experiment", None)
    # The experiment of a rank that does not log has every attribute, and no path.
    return isinstance(getattr(experiment, "metrics_file_path", None), str | Path)


def _rows(logger: Any) -> torch.Tensor | None:
    if not _has_csv_file(logger):
        return None
    logger.experiment.save()
    path = Path(logger.experiment.metrics_file_path)
    content = path.read_bytes() if path.is_file() else b""
    return as_tensor(content)  # without rows as well: later ones are removed by a resume


def _put_back_rows(experiment: Any, text: str) -> None:
    experiment.metrics = []
    experiment.metrics_keys = next(csv.reader(io.StringIO(text)), [])
    path = Path(experiment.metrics_file_path)
    if text:
        path.write_text(text, newline="")
    else:
        path.unlink(missing_ok=True)


def _leave_new_folder(logger: Any) -> None:
    """Remove the folder that a logger has just made for another version, if nothing is in it."""
    folder = Path(str(logger.log_dir))
    close = getattr(getattr(logger, "_experiment", None), "close", None)
    if close is not None:
        close()
    with suppress(OSError):
        inside = list(folder.iterdir())
        if all(each.match(_EMPTY_EVENTS) for each in inside):
            for each in inside:
                each.unlink()
            folder.rmdir()
