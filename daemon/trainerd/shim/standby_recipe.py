"""What a shim that is started in advance is told, by the option and the descriptor named here.

It imports nothing of what such a shim needs: an ordinary one loads no more than its attempt takes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from trainerd.contract import codec
from trainerd.contract.records import LaunchRecord

PREPARED_OPTION: Final = "--prepared"

WAITING_BYTES_MAX: Final = 1 << 30
"""What a standby with a limit of memory may hold until it is used, in bytes; torch needs a third of it."""

RECIPE_FORMAT: Final = "trainerd.standby/1"
RECIPE_DESCRIPTOR: Final = 3


@dataclass(frozen=True)
class StandbyRecipe:
    """What a prepared shim makes ready.

    Attributes:
        attempt_dir: Folder of the attempt that is expected next.
        launch: What that attempt will start.
        note_path: Where the last attempt noted what it imported.
        cgroup_record: Where a cgroup that is made in advance is put on record.
    """

    attempt_dir: str
    launch: LaunchRecord
    note_path: str
    cgroup_record: str


def read_recipe() -> StandbyRecipe:
    """Read what the supervisor wrote on `RECIPE_DESCRIPTOR`.

    Raises:
        CorruptError: It is no recipe.
    """
    with os.fdopen(RECIPE_DESCRIPTOR, "rb") as file:
        return codec.from_json(file.read(), StandbyRecipe, RECIPE_FORMAT, source="standby recipe")
