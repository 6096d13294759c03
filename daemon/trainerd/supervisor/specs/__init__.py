"""Job specs: what a user may write, how it is read, and the folder into which it is dropped."""

from __future__ import annotations

from trainerd.supervisor.specs.folder import SpecFolder
from trainerd.supervisor.specs.json_schema import json_schema
from trainerd.supervisor.specs.load import load_spec
from trainerd.supervisor.specs.placement import place_spec, plan_placement
from trainerd.supervisor.specs.trust import TrustPolicy
from trainerd.supervisor.specs.view import Accepted, FolderView, Refused, SpecReading
from trainerd.supervisor.specs.watch import FolderWatcher

__all__ = [
    "Accepted",
    "FolderView",
    "FolderWatcher",
    "Refused",
    "SpecFolder",
    "SpecReading",
    "TrustPolicy",
    "json_schema",
    "load_spec",
    "place_spec",
    "plan_placement",
]
