"""Comparing the whole state of a run with checkpoints that an earlier run of the same steps made.

A run that resumes from an older checkpoint passes the boundaries of newer ones again: of those that a
rollback left behind, above all. Two runs of the same steps must have the same state there.

Invariants:
    A step costs one dictionary look-up.
    The state is read and not changed; the random generators are as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainerd.checkpoint.checkpoint_names import CheckpointName
from trainerd.checkpoint.committed import read_checkpoint
from trainerd.contract.verdict import Reason
from trainerd.errors import TrainerdError
from trainerd.training.engine.run_state import EARLIER, GRADIENTS
from trainerd.training.state.rank_files import read_verified
from trainerd.training.state.restore import StateTree
from trainerd.training.state.rng import capture_rng, restore_rng
from trainerd.training.state.snapshot import take_snapshot
from trainerd.training.state.tree_difference import UNCOMPARED, first_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trainerd.checkpoint.store import Checkpoint, CheckpointStore
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.state.tree_difference import TreeDifference


class SelfComparison:
    """Compares the state at a boundary with the checkpoint of that boundary, if an earlier run made one.

    Args:
        state: State of the run.
        is_left_out: Tells whether the state of that path is not compared.
    """

    def __init__(self, state: RunState, *, is_left_out: Callable[[str], bool]) -> None:
        self._state = state
        self._is_left_out = is_left_out
        self._ahead: dict[tuple[int, int, int], list[Checkpoint]] = {}
        self._found: Callable[[str, Reason | None], None] = lambda _name, _difference: None

    def expect(self, checkpoints: Iterable[Checkpoint], found: Callable[[str, Reason | None], None]) -> None:
        """Compare with these from here on.

        Args:
            checkpoints: What an earlier run made of later boundaries.
            found: Told the name of each that was compared, and the first difference, if any.
        """
        self._found = found
        for checkpoint in checkpoints:
            manifest = checkpoint.manifest
            key = manifest.step, manifest.epoch, manifest.batch
            self._ahead.setdefault(key, []).append(checkpoint)

    def pass_boundary(self, *, is_final: bool = False) -> None:
        """Compare the state at the boundary that was crossed just now, if there is something to compare with.

        Args:
            is_final: Whether the run ends here. The final checkpoint of a run may hold what its script did
                after the last boundary.
        """
        if not self._ahead:
            return
        position = self._state.position
        key = position.step, position.epoch, position.batch
        for checkpoint in self._ahead.get(key, ()):
            if checkpoint.manifest.is_final == is_final:
                self._compare(checkpoint)

    def _compare(self, checkpoint: Checkpoint) -> None:
        try:
            tree = read_verified(checkpoint, 0)
            own = tree.extra["session"]
            if own["position"].get("loop", 0) != self._state.position.loop:
                return
            found = state_difference(tree, self._state, is_left_out=self._is_left_out)
        except (TrainerdError, OSError, KeyError):
            return  # damaged, or gone: it says nothing about this run
        reason = None
        if found is not None:
            detail = f"at the boundary of {checkpoint.name}, which an earlier run made: {found.detail}"
            reason = Reason("different-state", f"step {checkpoint.step}, {found.path}", detail)
        self._found(checkpoint.name, reason)


def state_difference(
    tree: StateTree, state: RunState, *, is_left_out: Callable[[str], bool]
) -> TreeDifference | None:
    """Return the first difference between a checkpoint and the whole live state; None if they are equal."""
    generators = capture_rng()
    try:
        live = state.snapshot()
        now = StateTree(live.document, live.tensors)
        then_own, now_own = (
            {key: value for key, value in each.extra["session"].items() if key not in UNCOMPARED}
            for each in (tree, now)
        )
        for own, other in ((then_own, now_own), (now_own, then_own)):
            own[GRADIENTS] = _in_both(own.get(GRADIENTS, {}), other.get(GRADIENTS, {}))
        if EARLIER not in then_own:
            now_own.pop(EARLIER, None)  # an older version made the checkpoint
        then = {**tree.states_for(state.objects), "module_changes": tree.module_changes, **then_own}
        return first_difference(
            then,
            {**now.objects, "module_changes": now.module_changes, **now_own},
            "",
            is_left_out=is_left_out,
        )
    finally:
        restore_rng(generators)  # a state_dict of the user's may draw


def _in_both(gradients: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return the gradients that two checkpoints of a boundary have: one that is made later knows better."""
    mine, theirs = (each.get(GRADIENTS, {}) for each in (gradients, others))
    return {GRADIENTS: {name: mine[name] for name in mine if name in theirs}}


def restored_difference(
    tree: StateTree, state: RunState, *, is_left_out: Callable[[str], bool]
) -> TreeDifference | None:
    """Return the first difference between a checkpoint and the objects that it was just restored into."""
    generators = capture_rng()
    try:
        live = take_snapshot(state.objects)
        now = StateTree(live.document, live.tensors).objects
        then = {name: each for name, each in tree.states_for(state.objects).items() if name in now}
        return first_difference(then, now, "", is_left_out=is_left_out)
    finally:
        restore_rng(generators)


def edited_difference(
    tree: StateTree, state: RunState, *, is_left_out: Callable[[str], bool]
) -> TreeDifference | None:
    """Return the first difference between a checkpoint and the live objects and values it was restored into.

    Values that the checkpoint does not have are left out.
    """
    generators = capture_rng()
    try:
        live = state.snapshot()
        now = StateTree(live.document, live.tensors)
        then_values, now_values = (each.extra["session"]["values"] for each in (tree, now))
        return first_difference(
            {**tree.states_for(state.objects), "module_changes": tree.module_changes, "values": then_values},
            {
                **now.objects,
                "module_changes": now.module_changes,
                "values": {name: now_values[name] for name in then_values if name in now_values},
            },
            "",
            is_left_out=is_left_out,
        )
    finally:
        restore_rng(generators)


def newer_checkpoints(store: CheckpointStore, used: Checkpoint) -> list[Checkpoint]:
    """Return the checkpoints that rollbacks left behind and that are of later boundaries than `used`."""
    found = []
    for aside in store.abandoned():
        try:
            checkpoint = read_checkpoint(
                aside.path, name=CheckpointName.parse(aside.path.name.partition("~")[0])
            )
        except (TrainerdError, OSError):
            continue
        if checkpoint.place > used.place:
            found.append(checkpoint)
    return found
