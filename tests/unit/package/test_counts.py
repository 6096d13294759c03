"""A count that the program prints has its noun from `counted`, which knows the singular."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3] / "daemon" / "trainerd"
PLURAL = re.compile(r" (?:(?:more|other|lost|[a-z]+ed) )?[A-Za-z]{2,}s\b")


def always_plural(source: str) -> Iterator[str]:
    """Yield each length in an f-string that a plural follows."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in zip(node.values, node.values[1:], strict=False):
            if (
                isinstance(value, ast.FormattedValue)
                and isinstance(value.value, ast.Call)
                and ast.unparse(value.value.func) == "len"
                and isinstance(after, ast.Constant)
                and PLURAL.match(after.value)
            ):
                yield f"{{{ast.unparse(value.value)}}}{after.value}"


def test_no_length_is_followed_by_a_noun_that_is_always_plural():
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in sorted(ROOT.rglob("*.py"))
        for text in always_plural(path.read_text("utf-8"))
    ]
    assert found == []


def test_the_check_sees_a_plural_and_no_other_word():
    source = 'f"{len(found)} steps, {len(rows)} lost rows, {len(of)} of {n} jobs, {len(more)} more"'
    assert list(always_plural(source)) == ["{len(found)} steps, ", "{len(rows)} lost rows, "]
