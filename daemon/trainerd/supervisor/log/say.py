"""Logs an event by its name, at the level that the catalogue gives it."""

from __future__ import annotations

import logging
from typing import Any, Final

import structlog

from trainerd.supervisor.log.catalogue import CATALOGUE

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_log = structlog.get_logger(__name__)


def log_event(name: str, **fields: Any) -> None:
    """Log an event whose name is not known where it is logged."""
    _log.log(_LEVELS[CATALOGUE[name].level], name, **fields)
