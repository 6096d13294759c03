"""Whether a checkpoint fits the live objects, field by field. Nothing is changed here.

Modules and optimizers can be compared with what is in the file. Other objects are asked by loading them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.counted import counted
from trainerd.training.state.selection import entries_of
from trainerd.training.state.tracked import Objects, Stateful, class_name, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRA_STATE: Final = "_extra_state"
"""The key under which a module keeps what its ``get_extra_state`` returns: any value, not a tensor of a
shape."""

_PARAMETER_SHAPED: Final = frozenset(
    {
        "acc_delta",
        "ax",
        "exp_avg",
        "exp_avg_sq",
        "exp_inf",
        "grad_avg",
        "max_exp_avg_sq",
        "momentum_buffer",
        "prev",
        "square_avg",
        "step_size",
        "sum",
    }
)
"""State of the optimizers of torch that has the shape of its parameter."""


def fitting_states(objects: Objects, states: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the part of `states` that fits, and one line for each part that does not."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for name, state in states.items():
        if name not in objects:
            left_out.append(f"{name}: in the checkpoint, not tracked by the program")
            continue
        target = unwrapped(objects[name])
        if isinstance(target, torch.nn.Module):
            live = target.state_dict()
            misfits = dict(_entry_differences(name, live, state, is_dtype_free=True))
            kept[name] = entries_of(state, [key for key in state if key not in misfits])
            left_out.extend(misfits.values())
        elif problems := list(_object_differences(name, target, state, None)):
            left_out.extend(problems)
        else:
            kept[name] = state
    return kept, left_out


def differences(
    objects: Objects, states: dict[str, Any], *, classes: dict[str, str], is_partial: bool
) -> Iterator[str]:
    """Yield one line for each field that does not fit.

    Args:
        objects: The live ones.
        states: What is to be loaded into them.
        classes: The classes of the optimizers when they were saved, as far as that is known.
        is_partial: Whether only a part is to be loaded: then what is missing is not a difference.
    """
    for name in states:
        if name not in objects:
            yield f"{name}: in the checkpoint, not tracked by the program"
    for name, value in objects.items():
        if name not in states:
            if not is_partial:
                yield f"{name}: tracked by the program, not in the checkpoint"
            continue
        target = unwrapped(value)
        if isinstance(target, torch.nn.Module):
            live = target.state_dict()
            if not is_partial:
                yield from _missing_entries(name, live, states[name])
            yield from dict(_entry_differences(name, live, states[name])).values()
        else:
            yield from _object_differences(name, target, states[name], classes.get(name))


def is_stock_state(state: Any) -> bool:
    """Tell whether a state has the form of torch's optimizers. One around another may have its own."""
    return isinstance(state, dict) and {"state", "param_groups"} <= state.keys()


def _missing_entries(name: str, live: dict[str, Any], saved: Any) -> Iterator[str]:
    for key, value in live.items():
        if key not in saved:
            yield f"{name}.{key}: missing in the checkpoint, here {_described(value)}"


def _entry_differences(
    name: str, live: dict[str, Any], saved: Any, *, is_dtype_free: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield the keys of a module's saved state that do not fit, each with the reason."""
    for key, value in saved.items():
        if key not in live:
            yield key, f"{name}.{key}: unexpected, in the checkpoint {_described(value)}"
        elif key.rpartition(".")[2] == EXTRA_STATE or torch.nn.parameter.is_lazy(live[key]):
            continue
        elif _shape(value) != _shape(live[key]) or (
            not is_dtype_free and _described(value) != _described(live[key])
        ):
            yield key, f"{name}.{key}: in the checkpoint {_described(value)}, here {_described(live[key])}"


def _object_differences(name: str, target: Stateful, state: Any, saved_class: str | None) -> Iterator[str]:
    if not isinstance(target, torch.optim.Optimizer):
        return
    if not is_stock_state(state):
        if is_stock_state(target.state_dict()):
            yield f"{name}: the checkpoint does not hold the state of an optimizer"
    elif saved_class is not None and saved_class != class_name(target):
        yield f"{name}: in the checkpoint a {saved_class}, here a {class_name(target)}"
    elif len(state["param_groups"]) != len(target.param_groups):
        saved, live = len(state["param_groups"]), len(target.param_groups)
        yield f"{name}.param_groups: in the checkpoint {counted(saved, 'group')}, here {live}"
    else:
        yield from _group_differences(name, target, state)


def _group_differences(name: str, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Iterator[str]:
    for index, (saved, live) in enumerate(zip(state["param_groups"], optimizer.param_groups, strict=True)):
        place = f"{name}.param_groups[{index}]"
        # A key that only this program knows is a newer torch's, and load_state_dict fills it in. One that
        # only the checkpoint knows may be a scheduler's. Both together are another optimizer.
        ours, theirs = optimizer.defaults.keys() - saved.keys(), saved.keys() - live.keys()
        if ours and theirs:
            yield (
                f"{place}: in the checkpoint with {', '.join(sorted(theirs))}, here with "
                f"{', '.join(sorted(ours))}"
            )
        if len(saved["params"]) != len(live["params"]):
            then = counted(len(saved["params"]), "parameter")
            yield f"{place}: in the checkpoint {then}, here {len(live['params'])}"
            continue
        labels = zip(saved.get("param_names", ()), live.get("param_names", ()), strict=False)
        for position, (saved_label, live_label) in enumerate(labels):
            if saved_label != live_label:
                yield f"{place}.params[{position}]: in the checkpoint {saved_label}, here {live_label}"
        for number, parameter in zip(saved["params"], live["params"], strict=True):
            for key, value in state["state"].get(number, {}).items():
                if (
                    key in _PARAMETER_SHAPED
                    and isinstance(value, torch.Tensor)
                    and value.dim() > 0
                    and value.shape != parameter.shape
                ):
                    yield (
                        f"{name}.state[{number}].{key}: in the checkpoint {_described(value)}, "
                        f"here of a parameter {_described(parameter)}"
                    )


def _described(value: Any) -> str:
    if torch.nn.parameter.is_lazy(value):
        return "not initialised yet"
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else type(value)
