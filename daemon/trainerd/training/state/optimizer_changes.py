"""What training changes about the tracked optimizers and parameters themselves, beyond their values.

A checkpoint holds values. A resumed program makes its models and optimizers as it did at first, and values
are put into these. Another class of an optimizer, a parameter that the optimizer steps and the model has no
more, and parameters of another shape are not values.

Invariants:
    A step costs a look at the class and the groups of each optimizer. The parameters are gone through at a
    save, and after a step only if a group or a module has changed.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from trainerd.contract.verdict import Reason
from trainerd.training.state.audit_coverage import memory_of, parameters_of, tensors_in
from trainerd.training.state.optimizer_names import groups_sign, named_parameters
from trainerd.training.state.tracked import Objects, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_IN_PLACE: Final = "change it in place, with torch.no_grad(): parameter.copy_(…)"
_OF_CLASS: Final = "that of its class"
_BEFORE: Final = "before it is tracked, in the program as it starts"


class OptimizerChanges:
    """The tracked optimizers and parameters as they are, compared with those that training began with.

    Args:
        objects: What is tracked.
        values: Returns the values of the session.
    """

    def __init__(self, objects: Objects, values: Callable[[], Mapping[str, Any]]) -> None:
        self._objects = objects
        self._values = values
        self._classes: dict[str, type] = {}
        self._names: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._shapes: dict[str, str] = {}
        self._steps: dict[str, str] = {}
        self._complete: set[str] = set()
        self._sign: Any = None
        self._modules: set[int] = set()
        self._is_module_changed = False
        self._hooks: list[Any] = []

    def begin(self) -> None:
        """Training begins, and nothing is restored yet."""
        self._classes = {name: type(each) for name, each in self._optimizers()}
        self._names = {id(each): (weakref.ref(each), name) for name, each in named_parameters(self._objects)}
        self._complete = {
            name
            for name, optimizer in self._optimizers()
            if all(id(each) in self._names for each in parameters_of(optimizer))
        }
        self._shapes, self._steps = dict(self._entries()), self.own_steps()
        self._modules = {id(each) for module in self._roots() for each in module.modules()}
        self.close()
        self._hooks = [
            register_module_module_registration_hook(self._note_registration),
            register_module_parameter_registration_hook(self._note_registration),
        ]
        self._sign = self._sign_of_groups()

    def close(self) -> None:
        """Stop watching modules."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook.remove()

    def show(self) -> bool:
        """Tell whether there are signs of a change since the last time that this was asked."""
        sign = self._sign_of_groups()
        has_changed, self._sign = self._is_module_changed or sign != self._sign, sign
        self._is_module_changed = False
        return bool(has_changed)

    def errors(self) -> Iterator[Reason]:
        """Yield what would make a resumed run train other parameters, or by other rules, or not at all."""
        if not self._classes:
            return
        named = {id(each): name for name, each in named_parameters(self._objects)}
        for name, optimizer in self._optimizers():
            first = self._classes.get(name)
            if first is not None and type(optimizer) is not first:
                yield Reason(
                    "optimizer-class",
                    name,
                    f"was a {_full_name(first)} when training began and is a {_full_name(type(optimizer))} "
                    "now: a resumed program makes the former one",
                    f"set the class of the optimizer {_BEFORE}",
                )
            yield from self._replaced(name, optimizer, named)

    def changes(self) -> Iterator[Reason]:
        """Yield what a resumed program has to do by itself for a checkpoint to fit, or to be exact."""
        if not self._classes:
            return
        now = dict(self._entries())
        for name in {**self._shapes, **now}:
            before, after = self._shapes.get(name), now.get(name)
            if before != after:
                yield Reason(
                    "structure-changed",
                    name,
                    f"was {before or 'absent'} when training began and is {after or 'absent'} now: a "
                    "checkpoint does not fit a program that begins as this one did",
                    f"give the model this form {_BEFORE}",
                )
                break  # most often all parameters of a model are other ones then
        yield from replaced_steps(self._steps, self.own_steps(), "when training began", "now")

    def own_steps(self) -> dict[str, str]:
        """Return the names of the functions that scripts have put in the place of ``step`` of optimizers."""
        found = {}
        for name, optimizer in self._optimizers():
            step = vars(optimizer).get("step")
            function = getattr(step, "__func__", step)
            if function is None:
                continue
            called = str(getattr(function, "__qualname__", type(function).__qualname__))
            if called != type(optimizer).step.__qualname__:  # else a scheduler counts the calls of the former
                found[name] = called
        return found

    def changed_steps(self) -> dict[str, str]:
        """Return `own_steps` as far as they are other ones than when training began; empty for none now."""
        now = self.own_steps() if self._classes else {}
        names = [name for name in {**self._steps, **now} if self._steps.get(name) != now.get(name)]
        return {name: now.get(name, "") for name in names}

    # ------------------------------------------------------------------ within

    def _optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        for name, value in self._objects.items():
            if isinstance(value, torch.optim.Optimizer):
                yield name, value

    def _roots(self) -> Iterator[torch.nn.Module]:
        for value in self._objects.values():
            inner = unwrapped(value)
            if isinstance(inner, torch.nn.Module):
                yield inner

    def _note_registration(self, module: torch.nn.Module, _name: str, _new: Any) -> None:
        if id(module) in self._modules:
            self._is_module_changed = True

    def _sign_of_groups(self) -> Any:
        return [(type(each), groups_sign(each)) for _, each in self._optimizers()]

    def _entries(self) -> Iterator[tuple[str, str]]:
        """Yield the parameters and persistent buffers of the modules, with their types and shapes."""
        for object_name, value in self._objects.items():
            module = unwrapped(value)
            if not isinstance(module, torch.nn.Module):
                continue
            for prefix, each in module.named_modules():
                left_out = each._non_persistent_buffers_set  # noqa: SLF001 - the only place that says so
                own = {**each._parameters, **each._buffers}  # noqa: SLF001 - without those of submodules
                for name, tensor in own.items():
                    if tensor is not None and name not in left_out:
                        place = ".".join(part for part in (object_name, prefix, name) if part)
                        yield place, f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"

    def _replaced(
        self, name: str, optimizer: torch.optim.Optimizer, named: dict[int, str]
    ) -> Iterator[Reason]:
        if name not in self._complete:
            return  # from the beginning it steps what no tracked module has
        kept: set[int | None] | None = None
        for number, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                if id(parameter) in named or type(parameter.data) is not torch.Tensor:
                    continue  # FSDP2 shows the whole of a parameter, or a part of it, in the module
                if kept is None:
                    kept = {memory_of(each) for each in tensors_in(self._values())}
                if memory_of(parameter) in kept:
                    continue
                reference, former = self._names.get(id(parameter), (None, ""))
                place = f"{name}.param_groups[{number}]['params'][{index}]"
                if reference is not None and reference() is parameter:
                    yield Reason(
                        "replaced-parameter",
                        place,
                        f"is what {former} was when training began, and the model has another parameter "
                        f"there now, or none: {name} does not step that one, and after a resume it would",
                        f"{_IN_PLACE}, or put the new parameter into the group of the optimizer too",
                    )
                else:
                    yield Reason(
                        "replaced-parameter",
                        place,
                        f"was put there during training and belongs to no tracked module: shape "
                        f"{list(parameter.shape)}",
                        f"{_IN_PLACE}, or give the module this very parameter",
                    )
                return  # one names the line


def replaced_steps(
    before: Mapping[str, str], after: Mapping[str, str], then: str, now: str
) -> Iterator[Reason]:
    """Yield a reason for each optimizer whose ``step`` is another function of the script's. Pure.

    Args:
        before: Names of such functions by the name of the optimizer.
        after: Those to compare with.
        then: When `before` was, for the message.
        now: When `after` is.
    """
    for name in {**before, **after}:
        former, new = before.get(name, ""), after.get(name, "")
        if former != new:
            yield Reason(
                "optimizer-step",
                f"{name}.step",
                f"{then} it was {former or _OF_CLASS}, {now} it is {new or _OF_CLASS}: a checkpoint holds "
                "values and no code",
                f"replace step {_BEFORE}",
            )


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
