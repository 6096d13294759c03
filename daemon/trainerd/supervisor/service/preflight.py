"""`trainerd run --check`: whether a supervisor could start here; starts none and changes nothing."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sqlite3
from typing import TYPE_CHECKING, Final

from trainerd.errors import CorruptError, UserError
from trainerd.supervisor.journal.journal_schema import SCHEMA_VERSION
from trainerd.supervisor.service.socket_group import check_socket_group

if TYPE_CHECKING:
    from pathlib import Path

    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.service.configuration import Configuration

_PACKAGES: Final = ("trainerd.contract", "trainerd.checkpoint", "trainerd.supervisor")
_ENTRY_POINTS: Final = "__main__"
"""Modules of this name run a program when they are imported; they are compiled only."""


def check_code() -> None:
    """Import all of the supervisor's code.

    Raises:
        Exception: Whatever the code raises when it is imported.
    """
    for package in _PACKAGES:
        _import_all(package)


def check_soundness(paths: StatePaths, jobs_dir: Path, configuration: Configuration) -> None:
    """Look at a supervisor's folders, its journal and its socket's group.

    Raises:
        UserError: A folder cannot be used, or the journal is of a newer trainerd.
        CorruptError: The journal is no journal.
    """
    _check_folder(jobs_dir, "--jobs", os.R_OK | os.X_OK)
    _check_folder(paths.root, "--state", os.R_OK | os.W_OK | os.X_OK)
    if paths.journal.exists():
        _check_journal(paths.journal)
    check_socket_group(configuration.socket, paths.root)


def _import_all(package: str) -> None:
    folder = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(folder, prefix=f"{package}."):
        if module.name.endswith(f".{_ENTRY_POINTS}"):
            assert module.module_finder is not None
            spec = module.module_finder.find_spec(module.name, None)
            assert spec is not None
            assert spec.loader is not None
            spec.loader.get_code(module.name)  # type: ignore[attr-defined] # a file's loader has it
        else:
            importlib.import_module(module.name)


def _check_folder(path: Path, option: str, mode: int) -> None:
    if path.exists() and not (path.is_dir() and os.access(path, mode, effective_ids=True)):
        raise UserError(
            f"{path} is not a folder that this user may use",
            hint=f"choose another {option}, or correct its permissions",
        )


def _check_journal(path: Path) -> None:
    try:
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1.0)
        try:
            row = database.execute("SELECT version FROM schema").fetchone()
        finally:
            database.close()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            raise CorruptError(f"{path}: it is no journal", hint="move it aside") from error
        return  # busy, or being made: nothing is known against it
    except sqlite3.DatabaseError as error:
        raise CorruptError(f"{path}: the journal is damaged: {error}", hint="move it aside") from error
    if row is not None and row[0] > SCHEMA_VERSION:
        raise UserError(
            f"{path}: the journal has schema {row[0]}; this trainerd reads up to {SCHEMA_VERSION}",
            hint="run the newer trainerd that wrote it, or use another state folder",
        )
