"""Checkpoints of two runs compared: what cannot be read is a difference, and no end of the drill."""

from types import SimpleNamespace
from unittest import mock

import pytest

from trainerd.drill import state_comparison
from trainerd.drill.state_comparison import checkpoint_difference
from trainerd.errors import CorruptError
from trainerd.training.engine.row_comparison import Patterns


@pytest.mark.parametrize("error", [CorruptError("rank-0.tree does not verify"), OSError(5, "I/O error")])
def test_a_checkpoint_that_cannot_be_read_is_a_difference(error):
    checkpoint = SimpleNamespace(manifest=SimpleNamespace(world_size=1))
    with mock.patch.object(state_comparison, "read_verified", side_effect=error):
        found = checkpoint_difference(checkpoint, checkpoint, uncompared=Patterns())
    assert found == ("", f"a checkpoint cannot be read: {error}")
