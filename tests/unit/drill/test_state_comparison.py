"""Checkpoints of two runs compared: what cannot be read is a difference, and no end of the drill."""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from trainerd.drill import state_comparison
from trainerd.drill.state_comparison import checkpoint_difference
from trainerd.errors import CorruptError
from trainerd.training.engine.row_comparison import Patterns

FOLDERS = (Path("/drill/one"), Path("/drill/other"))


@pytest.mark.parametrize("error", [CorruptError("rank-0.tree does not verify"), OSError(5, "I/O error")])
def test_a_checkpoint_that_cannot_be_read_is_a_difference(error):
    checkpoint = SimpleNamespace(manifest=SimpleNamespace(world_size=1))
    with mock.patch.object(state_comparison, "read_verified", side_effect=error):
        found = checkpoint_difference(checkpoint, checkpoint, uncompared=Patterns(), folders=FOLDERS)
    assert found == ("", f"a checkpoint cannot be read: {error}")


def test_a_place_in_the_folder_of_a_run_is_the_same_in_another_run():
    def checkpoint(folder, file):
        state = {"best": {f"{folder}/work/best-1.ckpt": 0.5}, "json": f'{{"dir": "{folder}/{file}"}}'}
        return SimpleNamespace(manifest=SimpleNamespace(world_size=1), tree=state)

    def read(checkpoint, _rank):
        return SimpleNamespace(objects=checkpoint.tree, module_changes={}, extra={})

    with mock.patch.object(state_comparison, "read_verified", read):
        then, now, other = (
            checkpoint(FOLDERS[0], "a"),
            checkpoint(FOLDERS[1], "a"),
            checkpoint(FOLDERS[1], "b"),
        )
        assert checkpoint_difference(then, now, uncompared=Patterns(), folders=FOLDERS) is None
        found = checkpoint_difference(then, other, uncompared=Patterns(), folders=FOLDERS)
    assert found is not None
    assert found[0] == "json"
