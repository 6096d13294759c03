"""Clocks, entropy of the system and unseeded generators on which a training loop depends."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from trainerd.analysis.display import is_clock, only_shows
from trainerd.analysis.finding import Finding
from trainerd.analysis.script import walk_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.analysis.parents import Parents
    from trainerd.analysis.script import Script

CLOCK_RULE: Final = "clock-decides"
ENTROPY_RULE: Final = "unseeded-randomness"
FOLDER_RULE: Final = "chdir-before-session"

_ENTROPY: Final = frozenset(
    {
        "os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4", "secrets.token_bytes", "secrets.token_hex", "secrets.randbelow",
        "secrets.choice", "secrets.randbits", "random.SystemRandom", "torch.seed", "torch.random.seed", "torch.initial_seed",
    }
)  # fmt: skip
_GENERATORS: Final = frozenset(
    {
        "numpy.random.default_rng",
        "numpy.random.RandomState",
        "random.Random",
        "random.seed",
        "numpy.random.seed",
    }
)
_SEEDS: Final = frozenset(
    {"manual_seed", "manual_seed_all", "seed", "default_rng", "RandomState", "Random", "seed_everything"}
)
_NOW: Final = frozenset(
    {
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.now",
        "datetime.utcnow",
        "datetime.datetime.today",
    }
)


def undetermined(script: Script, parents: Parents) -> Iterator[Finding]:
    """Yield what differs between two runs of the same loop."""
    seen: set[ast.AST] = set()
    for scope in script.scopes:
        for loop in scope.loops:
            for node in walk_scope(loop.node.body):
                if not isinstance(node, ast.Call) or node in seen:
                    continue
                seen.add(node)
                name = script.resolved(node.func)
                if name in _ENTROPY or (name in _GENERATORS and not node.args and not node.keywords):
                    yield _entropy(node, name)
                elif name.rpartition(".")[2] in _SEEDS and any(
                    _reads_clock(script, each) for argument in node.args for each in ast.walk(argument)
                ):
                    yield _entropy(node, name)
                elif _reads_clock(script, node) and _decides(node, parents):
                    yield Finding(
                        node.lineno,
                        node.col_offset + 1,
                        CLOCK_RULE,
                        name,
                        "the clock decides what the loop does: a resumed run does it at another step",
                        'decide by session.step; for saves by time, session(every={"seconds": …})',
                    )


def folder_changes(script: Script) -> Iterator[Finding]:
    """Yield changes of the working folder before the session is opened, which change where the run is kept."""
    if not script.session_calls or all(call.args or _names_folder(call) for call in script.session_calls):
        return
    first = min(call.lineno for call in script.session_calls)
    for node in ast.walk(script.tree):
        if (
            isinstance(node, ast.Call)
            and script.resolved(node.func) in {"os.chdir", "os.fchdir"}
            and node.lineno < first
        ):
            yield Finding(
                node.lineno,
                node.col_offset + 1,
                FOLDER_RULE,
                "os.chdir",
                "the run folder is found from the working folder, which is changed before the session is opened",
                "session(run_dir=…) with an absolute path, or change the folder inside the session",
            )


def _names_folder(call: ast.Call) -> bool:
    return any(keyword.arg in {"run_dir", None} for keyword in call.keywords)


def _reads_clock(script: Script, node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = script.resolved(node.func)
    return is_clock(node, name) or name in _NOW


def _decides(node: ast.AST, parents: Parents) -> bool:
    test = parents.test_with(node)
    if isinstance(test, ast.If):
        return not (only_shows(test.body) and only_shows(test.orelse))
    return test is not None


def _entropy(node: ast.Call, name: str) -> Finding:
    return Finding(
        node.lineno,
        node.col_offset + 1,
        ENTROPY_RULE,
        name,
        f"{name} gives another value in every attempt",
        "draw from the global generators, which the session seeds and restores, or seed by session.step",
    )
