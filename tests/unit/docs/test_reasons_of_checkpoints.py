"""The page of formats lists every reason for a checkpoint that the code gives."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from trainerd.contract.save_reasons import SAVED_AT_END

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "formats.md"
TRAINING = ROOT / "daemon" / "trainerd" / "training"
SAVES = frozenset({"save", "stage", "save_now", "save_if_free", "save_here"})
PLANS = ("schedule/cadence.py", "schedule/pacing.py")


def texts(node: ast.AST | None) -> list[str]:
    """Return the texts that an expression may be, with N for a number that is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(str(part.value) if isinstance(part, ast.Constant) else "N" for part in parts)]
        case ast.IfExp(body=one, orelse=other):
            return texts(one) + texts(other)
        case ast.BoolOp(values=parts):
            return [text for part in parts for text in texts(part)]
    return []


def given(path: Path) -> list[str]:
    """Return the reasons in one file: of saves, of requests to save, and of manifests."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr in SAVES and node.args:
            found += texts(node.args[0])
        elif node.func.attr == "request" and len(node.args) == 2:
            found += texts(node.args[1])
        elif node.func.attr == "manifest":
            found += [text for word in node.keywords if word.arg == "reason" for text in texts(word.value)]
    return found


def planned(path: Path) -> list[str]:
    """Return what the functions of one file return as why a save is due."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [text for node in nodes if isinstance(node, ast.Return) for text in texts(node.value)]


def test_every_reason_is_on_the_page() -> None:
    section = PAGE.read_text("utf-8").partition("**Reasons.**")[2].partition("**Digests**")[0]
    listed = set(re.findall(r"`([^`]+)`", "".join(line.split(" | ")[0] for line in section.split("\n| "))))
    reasons = set(SAVED_AT_END)
    for path in TRAINING.rglob("*.py"):
        if "integrations" not in path.parts:
            reasons.update(given(path))
    for name in PLANS:
        reasons.update(planned(TRAINING / name))
    assert reasons >= {"drain", "scored", "every N steps", "imported", "asked"}
    assert reasons - listed == set()
