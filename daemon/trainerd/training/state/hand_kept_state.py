"""State of an update that a script keeps by hand: a momentum, moments, sums of gradients.

Nothing in the class of a tensor tells it. The second step does: such a tensor becomes a combination of what
it was, of the gradient and of the parameter, and without what it was there is none. A buffer that each step
fills with the gradient is a combination without it; noise is none at all.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from trainerd.contract.verdict import Reason
from trainerd.training.state.audit_coverage import memory_of
from trainerd.training.state.combinations import ELEMENTS_ENOUGH, depends_on, on_host, rounding_of
from trainerd.training.state.tensor_leaves import leaves_of
from trainerd.training.state.update_partners import UpdatePartner, sampled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trainerd.training.state.audit_coverage import Coverage
    from trainerd.training.state.caller_names import CallerNames, Known

_OWNERS_MAX: Final = 32
_SAMPLES_MAX: Final = 3
"""Tensors that are looked at of one container."""
_PARTNERS_MAX: Final = 4
"""Parameters of the same shape with which a tensor is compared."""
_ELEMENTS_MIN: Final = 3


@dataclass
class _Sample:
    """A tensor at the first boundary.

    Attributes:
        number: Its place among the tensors of its owner.
        offset: Where the part begins that belongs to the partners, if it is of all parameters at once.
        former: Its values.
        partners: Parameters of its shape.
    """

    number: int
    offset: int
    former: torch.Tensor
    partners: list[UpdatePartner]


@dataclass
class _Owner:
    """A variable of the script with such tensors."""

    value: Any
    samples: list[_Sample] = field(default_factory=list)


class HandKeptState:
    """Tensors that scripts have names for, at the end of one step, to be looked at after the next one.

    Args:
        coverage: What is kept.
        kept: Further tensors that are kept.
        names: Names of the script's code.
        has_modules: Whether copies of models are looked at too: averages that the first step does not show.
    """

    def __init__(
        self,
        coverage: Coverage,
        kept: Iterable[torch.Tensor],
        names: CallerNames,
        *,
        has_modules: bool = False,
    ) -> None:
        self._has_modules = has_modules
        self._owners: dict[str, _Owner] = {}
        self._partners: dict[int, UpdatePartner] = {}
        self._optimizers = coverage.optimizers
        trained = _trained(coverage)
        if not trained:
            return
        optimizers = [each.value for each in names if isinstance(each.value, torch.optim.Optimizer)]
        said = itertools.chain.from_iterable(leaves_of(list(each.state.values())) for each in optimizers)
        gradients = [each.grad for each in trained if each.grad is not None]
        memory = {memory_of(each) for each in (*kept, *said, *gradients, *trained)}
        shapes: dict[torch.Size, list[torch.Tensor]] = {}
        for each in trained:
            shapes.setdefault(each.shape, []).append(each)
        for known in names:
            if len(self._owners) >= _OWNERS_MAX:
                break
            leaves = list(enumerate(self._leaves_of(known.value)))
            fresh = [
                (number, each)
                for number, each in leaves
                if not coverage.keeps_tensor(each) and memory_of(each) not in memory and _is_candidate(each)
            ]
            memory.update(memory_of(each) for _, each in leaves)
            samples = list(itertools.islice(self._samples_of(fresh, shapes, trained), _SAMPLES_MAX))
            if samples:
                self._owners[known.expression] = _Owner(known.value, samples)

    @property
    def has_any(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._owners)

    def close(self) -> None:
        """Look at no more gradients."""
        for each in self._partners.values():
            each.close()

    def reasons(self, names: CallerNames) -> dict[str, Reason]:
        """Return a reason for each variable that goes on from what it was and is in no checkpoint, by name.

        Args:
            names: The names now: a script may have replaced the tensors.
        """
        self.close()
        found: dict[str, Reason] = {}
        for known in names if self._owners else ():
            owner = self._owners.get(known.expression)
            if owner is None:
                continue
            leaves = self._leaves_of(known.value)
            if any(
                each.number < len(leaves) and _goes_on(each, leaves[each.number]) for each in owner.samples
            ):
                is_line_taken = any(each.where == known.where for each in found.values())  # as in m, v = …, …
                found[known.expression] = Reason(
                    "hand-kept-state",
                    f"{known.where} ({known.expression})" if is_line_taken else known.where,
                    f"{known.expression} ({type(known.value).__name__}) goes on from one step to the "
                    "next and is not in the checkpoint: a resume begins with what the program gives it",
                    _line_to_add(known, names.session),
                )
        return found

    # ------------------------------------------------------------------ within

    def _leaves_of(self, value: Any) -> list[torch.Tensor]:
        if self._has_modules and isinstance(value, torch.nn.Module):
            return [each.detach() for each in value.parameters()]
        return leaves_of(value)

    def _samples_of(
        self,
        leaves: list[tuple[int, torch.Tensor]],
        shapes: dict[torch.Size, list[torch.Tensor]],
        trained: list[torch.Tensor],
    ) -> Iterator[_Sample]:
        for number, leaf in sorted(leaves, key=lambda item: _preference(item[1])):
            partners, offset = shapes.get(leaf.shape, []), 0
            if not partners and leaf.dim() == 1 and leaf.numel() == sum(each.numel() for each in trained):
                place = min(range(len(trained)), key=lambda place: _preference(trained[place]))
                partners = [trained[place]]
                offset = sum(each.numel() for each in trained[:place])
            if partners and partners[0].numel() >= _ELEMENTS_MIN:
                part = (
                    leaf[offset : offset + partners[0].numel()] if leaf.shape != partners[0].shape else leaf
                )
                chosen = [self._partner_of(each) for each in partners[:_PARTNERS_MAX]]
                yield _Sample(number, offset, on_host(sampled(part)), chosen)

    def _partner_of(self, parameter: torch.Tensor) -> UpdatePartner:
        if id(parameter) not in self._partners:
            is_stepped = any(parameter in each.state for each in self._optimizers)
            partner = UpdatePartner.watching(parameter, is_stepped=is_stepped)
            self._partners[id(parameter)] = partner
        return self._partners[id(parameter)]


def _line_to_add(known: Known, session: str) -> str:
    if isinstance(known.value, torch.nn.Module):
        return f"add {session}.track({known.word}={known.expression})"
    kept = f'{session}.value("{known.word}", {known.expression}).value'
    return f"before the loop: {known.expression} = {kept}, and change it in place"


def _trained(coverage: Coverage) -> list[torch.Tensor]:
    found = {id(each): each for module in coverage.modules for each in module.parameters()}
    return [
        each
        for each in found.values()
        if each.requires_grad
        and each.is_leaf
        and each.is_floating_point()
        and type(each.data) is torch.Tensor
        and each.layout is torch.strided
        and each.numel()
    ]


def _is_candidate(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and tensor.is_floating_point()
        and not tensor.requires_grad
        and not tensor.is_meta
        and tensor.numel() >= _ELEMENTS_MIN
    )


def _preference(tensor: torch.Tensor) -> tuple[bool, int]:
    """Return a key that puts the smallest tensors first, of those with enough elements."""
    return tensor.numel() < ELEMENTS_ENOUGH, tensor.numel()


def _goes_on(sample: _Sample, leaf: torch.Tensor) -> bool:
    partners = [each for each in sample.partners if each.parameter.shape == leaf.shape or leaf.dim() == 1]
    if not partners:
        return False
    size = partners[0].parameter.numel()
    part = leaf if leaf.numel() == size else leaf.reshape(-1)[sample.offset : sample.offset + size]
    after = on_host(sampled(part))
    if after.shape != sample.former.shape or torch.equal(after, sample.former):
        return False
    rounding = rounding_of(leaf.dtype)
    return any(depends_on(sample.former, after, each.families(), rounding) for each in partners)
