"""What a few lines cannot make resumable: frameworks, several processes, scripts that resume themselves."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.adoption.refusal import Refusal
from trainerd.analysis.kinds import is_generator
from trainerd.analysis.syntax import Function, dotted, last_part, walk, walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.adoption.nest import Nest
    from trainerd.adoption.reach import Reach
    from trainerd.analysis.scopes import Scope
    from trainerd.analysis.script import Script

_FRAMEWORKS: Final = frozenset(
    {
        "lightning", "pytorch_lightning", "ignite", "accelerate", "fastai", "deepspeed",
        "horovod", "colossalai",
        "tensorflow", "jax", "keras", "composer", "catalyst", "ray", "skorch", "torchtune",
        "fairscale", "apex", "stable_baselines3", "sb3_contrib", "tianshou", "setfit", "poutyne",
    }
)  # fmt: skip
_INTEGRATED: Final = frozenset({"lightning", "pytorch_lightning", "ignite", "accelerate", "ray"})
_ON_TRANSFORMERS: Final = frozenset({"transformers", "trl", "sentence_transformers"})
"""Their trainers are, or derive from, the `Trainer` of Transformers."""
_RANKS: Final = frozenset(
    {"init_process_group", "DistributedDataParallel", "DistributedSampler", "FullyShardedDataParallel",
     "fully_shard", "init_device_mesh"}
)  # fmt: skip
_HIDDEN: Final = frozenset({"exec", "eval", "globals", "locals", "__import__"})
_PROCESSES: Final = frozenset(
    {"os.fork", "os._exit", "os.execv", "os.execvp", "signal.signal", "threading.Thread", "asyncio.run",
     "torch.multiprocessing.spawn", "multiprocessing.Process", "torch.multiprocessing.Process"}
)  # fmt: skip
_DRAWS: Final = frozenset(
    {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "normal", "bernoulli", "multinomial",
     "shuffle", "permutation", "choice", "choices", "sample", "random", "uniform"}
)  # fmt: skip
_RANDOM_ROOTS: Final = frozenset({"torch", "numpy", "random"})


def hazards(script: Script) -> Iterator[Refusal]:
    """Yield what stands anywhere in a script and is not understood."""
    for node in walk(script.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _of_import(node)
        elif isinstance(node, ast.Call):
            yield from _of_call(script, node)
        elif isinstance(node, ast.Name) and node.id == "trainerd":
            yield Refusal(node.lineno, "the script uses trainerd already", "trainerd check")


def loop_hazards(script: Script, reach: Reach, nest: Nest) -> Iterator[Refusal]:
    """Yield what around or in the training loops is not understood."""
    for placed in filter(None, (nest.outer, nest.inner)):
        for around in script.parents.around(placed.node):
            if isinstance(around, ast.Try):
                yield from _of_handlers(around)
            if isinstance(around, Function):
                break
    for call, _ in nest.calls:
        for around in script.parents.around(call):
            if isinstance(around, ast.Try):
                yield from _of_handlers(around)
    if nest.inner is not None and nest.inner != nest.outer:
        yield from _drawn_before(script, reach, nest)
    yield from _ends_in_session(script, reach, nest)


def _ends_in_session(script: Script, reach: Reach, nest: Nest) -> Iterator[Refusal]:
    """Yield ends of the process with success within the session: the run would never be finished."""
    to_outer = reach.calls_to(nest.outer.scope, script.scopes[0])
    inside = {node for node, _ in reach.code([nest.outer.node], nest.outer.scope)}
    places = [(nest.outer.node.lineno, nest.outer.scope), *((call.lineno, scope) for call, scope in to_outer)]
    for first, scope in places:
        inside |= {
            node
            for node in scope.nodes
            if isinstance(node, ast.Call) and (node.end_lineno or node.lineno) >= first
        }
    for node in inside:
        if isinstance(node, ast.Call) and _ends_well(script, node):
            yield Refusal(
                node.lineno,
                f"{ast.unparse(node.func)}() ends the process within the session: the run is never finished",
                "return or break there, and the end of the process after main()",
            )


def _ends_well(script: Script, node: ast.Call) -> bool:
    """Tell whether a call ends the process, and may do so with success."""
    if script.names.resolved(node.func) not in {"sys.exit", "exit", "quit", "SystemExit"}:
        return False
    argument = node.args[0] if node.args else None
    if argument is None or isinstance(argument, ast.Call):
        return True
    return isinstance(argument, ast.Constant) and argument.value in {0, None}


def _of_import(node: ast.Import | ast.ImportFrom) -> Iterator[Refusal]:
    names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    for name in names:
        root = name.partition(".")[0]
        if root == "trainerd":
            yield Refusal(node.lineno, "the script uses trainerd already", "trainerd check")
        elif root in _FRAMEWORKS:
            page = "docs/integrations.md" if root in _INTEGRATED else "docs/training-api.md by hand"
            yield Refusal(node.lineno, f"{root} drives the training or its data", page)
    if isinstance(node, ast.ImportFrom):
        root = (node.module or "").partition(".")[0]
        for each in node.names:
            if root in _ON_TRANSFORMERS and each.name.endswith("Trainer"):
                yield Refusal(
                    node.lineno,
                    f"{each.name} of {root} drives the training",
                    "protect(trainer, session) of docs/integrations.md",
                )
            elif each.name in _RANKS:
                yield _ranks(node.lineno, each.name)


def _ranks(line: int, name: str) -> Refusal:
    return Refusal(line, f"{name}: training on several ranks is not changed here", "docs/ranks.md")


def _of_call(script: Script, node: ast.Call) -> Iterator[Refusal]:
    name = script.names.resolved(node.func)
    last = last_part(name)
    if name in _HIDDEN:
        yield Refusal(node.lineno, f"{name}() hides from the reader which variables are used")
    elif name in _PROCESSES:
        yield Refusal(
            node.lineno,
            f"{name}() starts or ends something beside the training loop",
            "docs/training-api.md by hand",
        )
    elif last in _RANKS:
        yield _ranks(node.lineno, last)
    elif last == "load_state_dict" and isinstance(node.func, ast.Attribute):
        owner = dotted(node.func.value) or ""
        if (
            any(part in owner.lower() for part in ("optim", "sched", "scaler", "opt_", "_opt"))
            or owner == "opt"
        ):
            yield Refusal(
                node.lineno,
                f"{owner} is loaded from a checkpoint: the script resumes by itself",
                "leave that code out: the session resumes",
            )


def _of_handlers(node: ast.Try) -> Iterator[Refusal]:
    for handler in node.handlers:
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        for kind in kinds:
            name = "" if kind is None else dotted(kind) or ""
            if kind is None or name in {"BaseException", "SystemExit"}:
                yield Refusal(
                    handler.lineno,
                    f"except {name or 'without a class'} around the training loop catches the end of a drain",
                    "except Exception",
                )


def _drawn_before(script: Script, reach: Reach, nest: Nest) -> Iterator[Refusal]:
    """Yield random draws of an epoch before its loop over batches: a resume in the loop makes other ones."""
    assert nest.inner is not None
    ends: list[tuple[ast.AST, list[ast.stmt]]] = []
    if nest.calls:
        ends.append((nest.calls[0][0], nest.outer.node.body))
        ends += [(call, scope.body) for call, scope in nest.calls[1:]]
        ends.append((nest.inner.node, nest.inner.scope.body))
    else:
        ends.append((nest.inner.node, nest.outer.node.body))
    scopes = [nest.outer.scope, *(scope for _, scope in nest.calls[1:]), nest.inner.scope]
    for (end, body), scope in zip(ends, scopes, strict=False):
        before: list[ast.stmt] = []
        for statement in body:
            if end in set(walk_scope([statement])):
                break
            before.append(statement)
        code = list(reach.code(before, scope))
        made = {node for node, _ in code}
        for node, place in code:
            if isinstance(node, ast.Call) and (_draws(script, node) or _draws_on(script, node, place, made)):
                yield Refusal(
                    node.lineno,
                    "drawn in each epoch before its loop over batches: a resume in the loop draws another",
                    "draw it in the loop, or seed a generator of its own with the number of the epoch",
                )


def _draws(script: Script, node: ast.Call) -> bool:
    name = script.names.resolved(node.func)
    return last_part(name) in _DRAWS and name.partition(".")[0] in _RANDOM_ROOTS


def _draws_on(script: Script, node: ast.Call, place: Scope, made: set[ast.AST]) -> bool:
    """Tell whether a call draws from a generator that goes on from epoch to epoch."""
    receiver = (dotted(node.func) or "").rpartition(".")[0]
    return any(
        isinstance(value, ast.Call) and value not in made and is_generator(script.names.resolved(value.func))
        for value in script.names.values(receiver, place)
    )
