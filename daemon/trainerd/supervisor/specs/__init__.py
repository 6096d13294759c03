"""Job specs: what a user may write, how it is read, and the folder into which it is dropped."""

from __future__ import annotations

from trainerd.supervisor.specs.folder import Accepted, FolderView, Refused, SpecFolder
from trainerd.supervisor.specs.load import load_spec
from trainerd.supervisor.specs.trust import TrustPolicy

__all__ = ["Accepted", "FolderView", "Refused", "SpecFolder", "TrustPolicy", "load_spec"]
