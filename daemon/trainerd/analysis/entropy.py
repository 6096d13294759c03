"""Clocks, entropy of the system and unseeded generators on which a training loop depends."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.clock_values import is_clock
from trainerd.analysis.kinds import is_generator
from trainerd.analysis.script_finding import ScriptFinding
from trainerd.analysis.syntax import dotted, last_part, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.loops import SessionLoop
    from trainerd.analysis.script import Script
    from trainerd.analysis.script_views import Views
    from trainerd.analysis.syntax import Place

CLOCK_RULE: Final = "clock-decides"
ENTROPY_RULE: Final = "unseeded-randomness"
FOLDER_RULE: Final = "chdir-before-session"

_ENTROPY: Final = frozenset(
    {
        "os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4", "secrets.token_bytes", "secrets.token_hex",
        "secrets.randbelow", "secrets.choice", "secrets.randbits", "random.SystemRandom", "torch.seed",
        "torch.random.seed", "torch.cuda.seed",
    }
)  # fmt: skip
_UNSEEDED: Final = frozenset({"random.seed", "numpy.random.seed"})
_SEEDS: Final = frozenset(
    {
        "manual_seed",
        "manual_seed_all",
        "seed",
        "default_rng",
        "RandomState",
        "Random",
        "seed_everything",
        "set_seed",
    }
)


def undetermined(script: Script, views: Views) -> Iterator[ScriptFinding]:
    """Yield what differs between two runs of the same loop."""
    seen: set[ast.AST] = set()
    for loop in script.loops:
        for node in loop.nodes:
            if node in seen:
                continue
            if isinstance(node, ast.Call):
                seen.add(node)
                yield from _of_call(script, views, loop, node)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                name = dotted(node)
                if (
                    name is not None
                    and views.clock(loop.scope).has(name)
                    and views.display(loop.scope).is_decisive(node)
                    and not _stands_beside_clock(script, node)
                ):
                    seen.add(node)
                    yield _clock_finding(node, name, loop)
        if isinstance(loop.node, ast.While):
            for node in walk(loop.node.test):
                if node not in seen and is_clock(node, script.names):
                    assert isinstance(node, ast.Call)
                    seen.add(node)
                    yield _clock_finding(node, script.names.resolved(node.func), loop)


def _of_call(script: Script, views: Views, loop: SessionLoop, node: ast.Call) -> Iterator[ScriptFinding]:
    name = script.names.resolved(node.func)
    is_bare = not node.args and not node.keywords
    if (
        name in _ENTROPY
        or (is_bare and (name in _UNSEEDED or is_generator(name)) and name != "torch.Generator")
        or (last_part(name) in _SEEDS and any(map(views.clock(loop.scope).shows_in, node.args)))
    ):
        yield _entropy(node, name, loop)
    elif is_clock(node, script.names) and views.display(loop.scope).is_decisive(node):
        yield _clock_finding(node, name, loop)


def _stands_beside_clock(script: Script, node: ast.AST) -> bool:
    """Tell whether the condition reads the clock itself, which is a finding of its own."""
    test = script.parents.test_with(node)
    return test is not None and any(is_clock(each, script.names) for each in walk(test.test))


def folder_changes(script: Script) -> Iterator[ScriptFinding]:
    """Yield changes of the working folder before a session with a relative folder: it is kept elsewhere."""
    calls = [call for call in script.sessions.calls if _is_relative(call)]
    if not calls:
        return
    first = min(call.lineno for call in calls)
    for node in walk(script.tree):
        if (
            isinstance(node, ast.Call)
            and script.names.resolved(node.func) in {"os.chdir", "os.fchdir"}
            and node.lineno < first
        ):
            yield ScriptFinding.at(
                node,
                FOLDER_RULE,
                "os.chdir",
                why="a relative run folder is looked up in the working folder, which is changed before the "
                "session is opened",
                instead="session(run_dir=…) with an absolute path, or session(run=NAME), which is kept where "
                "the script was started",
            )


def _is_relative(call: ast.Call) -> bool:
    """Tell whether the run folder is given as a relative path, as far as the source says."""
    folders = [*call.args[:1], *(each.value for each in call.keywords if each.arg == "run_dir")]
    return any(
        isinstance(each, ast.Constant) and isinstance(each.value, str) and not each.value.startswith("/")
        for each in folders
    )


def _clock_finding(node: Place, name: str, loop: SessionLoop) -> ScriptFinding:
    return ScriptFinding.at(
        node,
        CLOCK_RULE,
        name,
        why="the clock decides what the loop does: a resumed run does it at another step",
        instead=f'decide by {loop.session}.step; for saves by time, session(every={{"seconds": …}})',
        opened_by=loop.opened_by,
    )


def _entropy(node: ast.Call, name: str, loop: SessionLoop) -> ScriptFinding:
    return ScriptFinding.at(
        node,
        ENTROPY_RULE,
        name,
        why=f"{name} gives another value in every attempt",
        instead="draw from the global generators, which the session seeds and restores, or seed with "
        "session.step",
        opened_by=loop.opened_by,
    )
