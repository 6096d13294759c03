"""The state of a run at one step boundary: what is tracked, and what the session itself must remember."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from trainerd.checkpoint.fingerprint import DATA
from trainerd.contract.verdict import Reason
from trainerd.errors import UserError
from trainerd.training.data.sample_digest import BEGINNING, folded_in
from trainerd.training.data.seeds import derive_seed
from trainerd.training.engine.earlier_generators import EarlierGenerators
from trainerd.training.engine.hook_memory import HookMemory
from trainerd.training.engine.loop_sources import SOURCES_FORM, LoopSources
from trainerd.training.engine.position import Position
from trainerd.training.engine.suspicions import without_line
from trainerd.training.state.audit_coverage import Coverage
from trainerd.training.state.ddp_buckets import BucketOrders
from trainerd.training.state.in_place import changeable_in
from trainerd.training.state.left_gradients import LeftGradients
from trainerd.training.state.objects import TrackedObjects
from trainerd.training.state.optimizer_changes import OptimizerChanges, replaced_steps
from trainerd.training.state.optimizer_names import check_groups
from trainerd.training.state.program_fingerprint import take_fingerprint
from trainerd.training.state.restore import StateTree
from trainerd.training.state.rng import capture_rng, restore_rng, seed_everything
from trainerd.training.state.snapshot import Snapshot, take_snapshot
from trainerd.training.state.values import Values

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trainerd.training.data.passes import Source
    from trainerd.training.state.device_generators import SeededGenerators

_NO_DIGEST_YET: Final = f"{BEGINNING:x}"
"""What is taken to stand in a checkpoint that was made before there were digests."""
GRADIENTS: Final = "gradients"
_NOT_KEPT: Final = "not_kept"
"""What was known not to be in the checkpoint, in words: of each where, what, and what to do."""
_STEPS: Final = "optimizer_steps"
"""What functions training had put in the place of the ``step`` of optimizers, by the optimizer's name."""
EARLIER: Final = "rng_earlier"
_RANKS: Final = "ranks"
"""How many ranks the generators are of, where the batches are not sharded to as many."""
_DEVICE: Final = 0x646576696365
_RANK: Final = 0x72616E6B
"""Keep the seeds of devices and ranks that had no generators in a checkpoint apart from those of the order
and the samples."""


class RunState:
    """Everything that two equal runs have equal.

    Attributes:
        objects: What the script tracks, by name.
        values: Plain values of the script's.
        buckets: Order in which gradients are reduced.
        gradients: What a step leaves for the next one.
        changes: What training changes about the optimizers themselves.
        not_kept: State of the script's that no checkpoint of this attempt has.
        position: The boundary.
        seed: Of the data order and of sample randomness.
        loop_sources: Where the batches of each training loop of an epoch come from.
        earlier_generators: Global generators before code that a resume within a loop runs again.
        digest: Of the samples of all batches so far; None if some had none.
        seeded_generators: Generators of devices that the last `restore` could not put back, if any.
    """

    def __init__(
        self,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        suspect: Callable[[Reason], None] = lambda _reason: None,
        is_strict: bool = True,
    ) -> None:
        self._suspect = suspect
        self._is_strict = is_strict
        self.objects = TrackedObjects()
        self.values = Values()
        self.changes = OptimizerChanges(self.objects, self.values.state_dict)
        self._saved_steps: dict[str, str] = {}
        self.not_kept: list[Reason] = []
        self.buckets = BucketOrders(self.objects)
        self.gradients = LeftGradients(self.objects, suspect)
        self.hooks = HookMemory({})
        self.position = Position(world_size=world_size)
        self._rank = rank
        self._world_size = world_size
        self.seed = seed
        self.loop_sources = LoopSources(suspect)
        self.earlier_generators = EarlierGenerators()
        self.digest: int | None = BEGINNING
        self._fingerprint: dict[str, Any] | None = None
        self._is_restored = False
        self.seeded_generators: SeededGenerators | None = None

    def begin(self) -> None:
        """Training begins, and nothing is restored yet: what there is now is the program's."""
        self.objects.begin()
        self.changes.begin()
        self.hooks = HookMemory(self.objects)

    def check_changes(self, *, step: int | None = None) -> None:
        """Check that training has changed nothing about the optimizers that a checkpoint cannot hold.

        Args:
            step: The step that is done and not counted yet, None if all are counted.

        Raises:
            UserError: It has, and the session is strict, or a group has no list of parameters.
        """
        check_groups(self.objects)
        for reason in self.changes.errors():
            if self._is_strict:
                after = f"after step {self.position.step if step is None else step}"
                raise UserError(f"{after}, {reason.where}: {reason.detail}", hint=reason.hint)
            self._suspect(reason)
        for reason in self.changes.changes():
            self._suspect(reason)

    def keeps(self, value: Any) -> bool:
        """Tell whether a checkpoint holds an object: it is tracked, a value, or a part of a loader."""
        if isinstance(value, Dataset | Sampler | DataLoader) or type(value).__module__.startswith(
            "trainerd."
        ):
            return True
        values = self.values.state_dict()
        if any(value is part for _, part in changeable_in(values)):
            return True
        coverage = Coverage(self.objects, values)
        is_tensor = isinstance(value, torch.Tensor)
        return coverage.keeps(value) or (is_tensor and coverage.keeps_tensor(value))

    def replaced_steps(self) -> list[Reason]:
        """Return which ``step`` of an optimizer training had replaced at the checkpoint, and here has not."""
        saved, self._saved_steps = self._saved_steps, {}
        live = self.changes.own_steps()
        now = {name: live[name] for name in saved if name in live}
        return list(replaced_steps(saved, now, "at the checkpoint", "here"))

    def snapshot(self) -> Snapshot:
        """Take all of it. The tensors are live memory until they are copied.

        Raises:
            UserError: See `check_changes`.
        """
        self.check_changes()
        own: dict[str, Any] = {
            "position": self.position.state_dict(),
            "seed": self.seed,
            "values": self.values.state_dict(),
            "digest": None if self.digest is None else f"{self.digest:016x}",
            "rng": capture_rng(),
            "sources": self.loop_sources.saved(self.position),
            "sources_form": SOURCES_FORM,
            "source_owners": self.loop_sources.owners(),
            GRADIENTS: self.gradients.state_dict(),
        }
        if self.not_kept:
            # At which line it was noticed first depends on where the attempt began.
            own[_NOT_KEPT] = sorted(
                [each.kind, without_line(each.where), each.detail, each.hint] for each in self.not_kept
            )
        if steps := self.changes.changed_steps():
            own[_STEPS] = steps
        if self.position.world_size != self._world_size:
            own[_RANKS] = self._world_size
        if self.position.batch:
            own[EARLIER] = self.earlier_generators.saved()
        if former := self.loop_sources.saved_of_former():
            own["former_sources"] = former
        if objects := self.values.objects():
            own["value_objects"] = objects
        if hooks_kept := self.hooks.saved():
            own["hooks"] = hooks_kept
        told = [each.where for each in self.changes.changes()]
        for reason in self.objects.other_parameters():
            if not any(where.startswith(f"{reason.where}.") for where in told):
                self._suspect(reason)
        if self._world_size > 1:
            own["ddp_buckets"] = self.buckets.state_dict()
            if hooks := self.buckets.hook_states():
                own["comm_hooks"] = hooks
        return take_snapshot(self.objects, extra={"session": own})

    def restore(self, tree: StateTree, *, source: str) -> None:
        """Put all of it back, the generators last: nothing is drawn in between.

        Raises:
            MismatchError: It does not fit; nothing was changed.
        """
        own = tree.extra["session"]
        tree.apply(self.objects, source=source, was_restored=self._is_restored)
        self.position.load_state_dict(own["position"])
        self.seed = own["seed"]
        self.values.load_state_dict(own["values"], own.get("value_objects"), is_at_loop=self._is_restored)
        self._is_restored = True
        self.buckets.load_state_dict(own.get("ddp_buckets"))
        self.buckets.load_hook_states(own.get("comm_hooks", {}))
        self.hooks.put_back(own.get("hooks", {}))
        self._saved_steps = own.get(_STEPS, {})
        for each in own.get(_NOT_KEPT, []):
            self._suspect(Reason(*each))
        saved = own.get("digest", _NO_DIGEST_YET)
        self.digest = None if saved is None else int(saved, 16)
        self.loop_sources.restore(
            own["sources"],
            form=own.get("sources_form", 1),
            former=own.get("former_sources"),
            owners=own.get("source_owners"),
        )
        if self._is_of_as_many(own):
            self.gradients.load_state_dict(own.get(GRADIENTS))
            self.earlier_generators.restore(own.get(EARLIER, {}))
        self.restore_generators(tree)

    def restore_objects(self, tree: StateTree, names: Collection[str], *, source: str) -> None:
        """Put back some of the tracked objects, and nothing else.

        Raises:
            MismatchError: They do not fit; nothing was changed.
        """
        tree.apply(self.objects, source=source, only=list(names))

    def restore_generators(self, tree: StateTree) -> None:
        """Put back the global random generators, and nothing else."""
        own = tree.extra["session"]
        step = int(own["position"]["step"])
        if self._is_of_as_many(own) or self._rank == 0:
            here = (self.seed, self._rank, step)
            self.seeded_generators = restore_rng(
                own["rng"], seed_of=lambda device: derive_seed(*here, _DEVICE, device)
            )
        else:
            seed_everything(derive_seed(self.seed, _RANK, self._world_size, self._rank, step))

    def _is_of_as_many(self, own: dict[str, Any]) -> bool:
        """Return whether as many ranks as there are now made a state."""
        return bool(own.get(_RANKS, int(own["position"].get("world_size", 1))) == self._world_size)

    def fingerprint(self, *, with_data: bool = False) -> dict[str, Any]:
        """Return what the program looked like when this was called first.

        With `with_data`, its data is added as it is now.
        """
        if self._fingerprint is None:
            self._fingerprint = take_fingerprint(self.objects, seed=self.seed, world_size=self._world_size)
        if not with_data:
            return self._fingerprint
        return self._fingerprint | {DATA: self.loop_sources.extents()}

    def note_samples(self, indices: Any) -> None:
        """Take the samples of a batch that is done into the digest."""
        self.digest = folded_in(self.digest, indices)

    def use_source(self, loop: int, source: Source) -> None:
        """Note where a training loop's batches come from, and give it back the state that it had."""
        self.loop_sources.use(loop, source, done=self.position.batch)

    def skip_source(self, loop: int, source: Source) -> None:
        """Note where the batches of a training loop came from that was finished before the checkpoint."""
        self.loop_sources.skip(loop, source)

    def put_back_skipped_sources(self) -> None:
        """The last loop that was finished before the checkpoint is skipped: what follows is new."""
        self.loop_sources.put_back_skipped()
