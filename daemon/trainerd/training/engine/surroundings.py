"""What lies around training and is in no checkpoint: generators, modules, objects, orders, other files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainerd.training.data.generators_beside import GeneratorsBeside
from trainerd.training.data.modules_of_program import ModulesOfProgram, modules_of_program
from trainerd.training.data.objects_beside import ObjectsBeside
from trainerd.training.data.orders_beside import OrdersBeside
from trainerd.training.state.modules_beside import ModulesBeside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trainerd.contract.verdict import Reason
    from trainerd.training.engine.run_state import RunState
    from trainerd.training.state.audit_coverage import Coverage
    from trainerd.training.state.caller_names import CallerNames


class Surroundings:
    """Watches them for the first steps and epochs of one attempt.

    Args:
        state: State of the run.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._orders: OrdersBeside | None = None
        self._generators: GeneratorsBeside | None = None
        self._modules: ModulesBeside | None = None
        self._objects: ObjectsBeside | None = None
        self._program: ModulesOfProgram | None = None

    def begin_epoch(self, names: CallerNames) -> None:
        """An epoch begins: its code before the first step may shuffle what is there."""
        if self._orders is None:
            self._orders = OrdersBeside(names)

    def begin(self, coverage: Coverage, names: CallerNames) -> None:
        """The first step begins. The names of the program's other files are added to `names`."""
        self.begin_epoch(names)
        modules = modules_of_program(names)
        for module in modules:
            names.add_module(module)
        self._generators = GeneratorsBeside(names)
        self._modules, self._objects = ModulesBeside(coverage, names), ObjectsBeside(coverage, names)
        self._program = ModulesOfProgram(modules, names.session)

    def reasons(self, coverage: Coverage) -> Iterator[tuple[str, Reason]]:
        """Yield what has changed since and is kept in no checkpoint, once: what it is called, and the reason.

        Args:
            coverage: What is kept now.
        """
        if self._generators is not None:
            yield from (("", each) for each in self._generators.reasons(self._keeps_generator(coverage)))
        hooks = self._state.hooks.hooks
        if self._modules is not None:
            yield from self._modules.reasons(coverage, hooks)
        if self._objects is not None:
            yield from self._objects.reasons(coverage, hooks)
        if self._program is not None:
            yield from self._program.reasons(self._state.keeps, self._state.loop_sources.all())
        if self._orders is not None:
            yield from self._orders.reasons(self._state.keeps)

    def pass_over_metrics(self) -> None:
        """An epoch is over: metrics that were evaluated between its loops begin again in the next one."""
        if self._modules is not None:
            self._modules.pass_over_metrics()

    # ------------------------------------------------------------------ within

    def _keeps_generator(self, coverage: Coverage) -> Callable[[Any], bool]:
        kept = set(map(id, self._state.loop_sources.generators()))
        for module in coverage.modules:
            for each in module.modules():
                kept.update(map(id, vars(each).values()))
        return lambda generator: id(generator) in kept or coverage.keeps(generator)
