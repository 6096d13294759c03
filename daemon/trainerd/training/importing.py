"""A run that begins where a plain training script left off: a first checkpoint out of a ``torch.save`` file.

The files are those that tutorials write: ``torch.save({"epoch": …, "model_state_dict": …,
"optimizer_state_dict": …, "loss": …})``, or a bare ``torch.save(model.state_dict())``. They are read with
``weights_only=True`` and in no other way: no pickle is executed.

What such a file does not hold is the state of the random generators and the place within an epoch. The run
begins at the start of an epoch, with the generators as at the start of a run with that seed.
"""

from __future__ import annotations

import argparse
import contextlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.counted import counted
from trainerd.contract.policy import RetentionPolicy
from trainerd.errors import UserError
from trainerd.training.engine.checkpoint_manager import CheckpointManager
from trainerd.training.engine.lineage import SaveDetails
from trainerd.training.engine.position import Position
from trainerd.training.engine.run_state import RunState
from trainerd.training.state.rng import isolated_cpu_generators

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainerd.checkpoint.store import Checkpoint
    from trainerd.contract.paths import RunPaths

STATE_SUFFIXES: Final = ("_state_dict", "_state")
STATE_NAMES: Final = frozenset(
    {"model", "net", "network", "optimizer", "scheduler", "lr_scheduler", "scaler", "ema", "model_ema"}
)
"""Keys under which scripts keep a state without saying so."""
MODEL_KEYS: Final = frozenset({"state_dict", "model_state"})
STEP_KEYS: Final = ("step", "global_step", "iteration")
WRAPPER_PREFIXES: Final = ("module.", "_orig_mod.")
IGNORED: Final = "args"


@dataclass(frozen=True)
class PlainCheckpoint:
    """What a plain file says.

    Attributes:
        states: State dicts by the name under which they are to be tracked.
        values: All else that a checkpoint can hold; `session.value` gives it back.
        step: Optimizer steps done.
        epochs_done: Epochs done.
        notes: What was decided where the file left it open, a sentence each.
    """

    states: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    epochs_done: int = 0
    notes: tuple[str, ...] = ()


def read_plain_checkpoint(
    file: Path,
    *,
    names: Mapping[str, str] | None = None,
    epochs_done: int | None = None,
    step: int | None = None,
) -> PlainCheckpoint:
    """Read a file that a plain training script wrote.

    Args:
        file: Path of the file to import.
        names: Under which name each key's state is to be tracked, where that is not plain from the key.
        epochs_done: Epochs done, if the file's ``epoch`` is not the number of the last one done, from 0.
        step: Optimizer steps done, if neither the file nor its optimizer says so.

    Raises:
        UserError: It cannot be read without executing code, or holds no state.
    """
    content = _loaded(file)
    if not isinstance(content, dict):
        raise UserError(
            f"{file} holds a {type(content).__name__}, not a dict of states", hint=_HOW_TO_CONVERT
        )
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        content = {"model_state_dict": content}
    content.pop(IGNORED, None)
    states, rest = _divided(content, names or {}, file)
    notes: list[str] = []
    epochs_done = _epochs_done(rest, epochs_done, notes)
    step = _step(rest, states, step, epochs_done, notes)
    return PlainCheckpoint(states, rest, step, epochs_done, tuple(notes))


def start_run(plain: PlainCheckpoint, run: RunPaths, *, seed: int, source: str) -> Checkpoint:
    """Write the first checkpoint of a run, from which a session resumes.

    Args:
        plain: What it is to hold.
        run: The run folder.
        seed: Of the data order and of the generators.
        source: Where the state came from, for the record.

    Raises:
        UserError: The run has checkpoints already.
        UnsupportedValueError: Some state has no exact form on disk.
        LockedError: The run is being trained.
    """
    store = CheckpointStore.of_run(run)
    state = RunState(seed)
    for name, value in plain.states.items():
        state.objects.track(name, _Fixed(value))
    state.values.load_state_dict(plain.values)
    state.position = Position(step=plain.step, epoch=plain.epochs_done, epoch_start_step=plain.step)
    with isolated_cpu_generators(seed):
        snapshot = state.snapshot()
    manager = CheckpointManager(store, RetentionPolicy(keep_last=None), rank=0)
    with contextlib.closing(manager.open()):
        if present := store.checkpoints():
            raise UserError(
                f"{run.root} has a checkpoint already: {present[-1].name}",
                hint="import into a run of another name",
            )
        details = SaveDetails(job=run.root.name, fingerprint={"imported_from": source})
        manifest = manager.lineage.manifest(
            step=plain.step, epoch=plain.epochs_done, scores={}, reason="imported", details=details
        )
        return manager.writer.write_and_wait(snapshot, manifest)


class _Fixed:
    """A state that is there already."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def state_dict(self) -> Any:
        return self._state

    def load_state_dict(self, state: Any) -> None:
        self._state = state


_HOW_TO_CONVERT: Final = (
    "where you trust it, load it once with the program that wrote it and save plain states again: "
    'torch.save({"epoch": epoch, "model_state_dict": model.state_dict(), '
    '"optimizer_state_dict": optimizer.state_dict()}, "plain.pt")'
)


def _loaded(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals(
            [argparse.Namespace]
        ):  # a plain record, which torchvision's scripts add
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}") from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except Exception as error:  # bytes that are no such file make torch raise whatever comes
        reason = next(
            (line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), ""
        )
        raise UserError(
            f"{file} cannot be read without executing code in it, or is no file of torch.save "
            f"{reason}".rstrip(),
            hint=_HOW_TO_CONVERT,
        ) from error


def _divided(
    content: dict[str, Any], names: Mapping[str, str], file: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the states from the rest."""
    if unknown := sorted(set(names) - set(content)):
        raise UserError(f"{file} has no key {unknown[0]!r}", hint=f"it has: {', '.join(map(str, content))}")
    states: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in content.items():
        name = names.get(key) or (_tracked_name(key) if isinstance(value, dict) else None)
        if name is None:
            rest[str(key)] = value
        elif name in states or not name.isidentifier():
            raise UserError(
                f"{file}: {key!r} cannot be tracked as {name!r}", hint=f"say --map {key}=ANOTHER_NAME"
            )
        else:
            states[name] = _unwrapped(value)
    if not states:
        raise UserError(
            f"{file} holds no state dict under a name that says so: "
            f"{', '.join(map(str, content)) or 'it is empty'}",
            hint="name it with --map KEY=NAME, where NAME is what the script tracks it as",
        )
    return states, rest


def _tracked_name(key: Any) -> str | None:
    if key in MODEL_KEYS:
        return "model"
    if key in STATE_NAMES:
        return str(key)
    for suffix in STATE_SUFFIXES:
        if isinstance(key, str) and key.endswith(suffix):
            return key.removesuffix(suffix)
    return None


def _unwrapped(state: Any) -> Any:
    """Take away the prefix that DataParallel, DDP or torch.compile put before every key."""
    for prefix in WRAPPER_PREFIXES * 2:
        if isinstance(state, dict) and state and all(str(key).startswith(prefix) for key in state):
            plain = OrderedDict((key.removeprefix(prefix), value) for key, value in state.items())
            versions = getattr(state, "_metadata", {})
            plain._metadata = OrderedDict(  # type: ignore[attr-defined]  # noqa: SLF001 - where torch looks for it
                (key.removeprefix(prefix.rstrip(".")).removeprefix("."), value)
                for key, value in versions.items()
                if key
            )
            state = plain
    return state


def _epochs_done(rest: dict[str, Any], asked: int | None, notes: list[str]) -> int:
    if "epochs_done" in rest:
        noted = int(rest.pop("epochs_done"))
        rest.pop("epoch", None)
        return noted if asked is None else asked
    last = rest.pop("epoch", None)
    if asked is not None:
        return asked
    if not isinstance(last, int):
        notes.append("the file names no epoch: the run begins with epoch 0")
        return 0
    notes.append(f"epoch {last} of the file counts as done: the run goes on with epoch {last + 1}")
    return last + 1


def _step(
    rest: dict[str, Any], states: dict[str, Any], asked: int | None, epochs_done: int, notes: list[str]
) -> int:
    found = [rest.pop(key) for key in STEP_KEYS if isinstance(rest.get(key), int)]
    if asked is not None:
        return asked
    if found:
        return int(found[0])
    made = [
        int(entry["step"])
        for state in states.values()
        if isinstance(state, dict) and isinstance(state.get("state"), dict)
        for entry in state["state"].values()
        if isinstance(entry, dict) and "step" in entry
    ]
    if made:
        notes.append(f"the optimizer has made {counted(max(made), 'step')}")
        return max(made)
    notes.append(f"nothing in the file counts steps: each epoch counts as one, {epochs_done} so far")
    return epochs_done
