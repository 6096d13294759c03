"""Change single top-level fields of a spec's text and leave every other character as it is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.specs import parsing
from trainerd.supervisor.specs.problems import ProblemsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_YAML_PLAIN: Final = re.compile(r"[A-Za-z0-9_./~+-]+")


def with_fields(text: str, suffix: str, values: Mapping[str, str]) -> str | None:
    """Return `text` with the top-level fields `values` set to texts.

    Args:
        text: A valid spec.
        suffix: Its format: one of `document.SUFFIXES`.
        values: Field names and their new values.

    Returns:
        The new text, of which it has been checked that it says the same as before but for `values`; None if
        no such text was found, as with fields that stand in unusual places.
    """
    before = parsing.parse(text.encode(), suffix).root
    if suffix == ".json":
        changed = json.dumps({**before, **values}, indent=2, ensure_ascii=False) + "\n"
    else:
        changed = text
        for name, value in values.items():
            changed = _with_line(changed, name, value, suffix)
    try:
        after = parsing.parse(changed.encode(), suffix).root
    except ProblemsError:
        return None
    return changed if after == {**before, **values} else None


def _with_line(text: str, name: str, value: str, suffix: str) -> str:
    separator, written = (
        (" = ", json.dumps(value, ensure_ascii=False)) if suffix == ".toml" else (": ", _yaml(value))
    )
    line = f"{name}{separator}{written}"
    present = re.compile(rf"^{name}\s*{separator.strip()}[^\n#]*?(?P<rest>[ \t]*(#[^\n]*)?)$", re.MULTILINE)
    if found := present.search(text):
        return text[: found.start()] + line + found["rest"] + text[found.end() :]
    return _inserted(text, line, suffix)


def _inserted(text: str, line: str, suffix: str) -> str:
    """Put a line before the first one that is neither empty, nor a comment, nor a marker of YAML's."""
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    markers = ("---", "%") if suffix != ".toml" else ()
    index = next(
        (i for i, each in enumerate(lines) if each.strip() and not each.lstrip().startswith(("#", *markers))),
        0,
    )
    return "".join([*lines[:index], line, "\n", *lines[index:]])


def _yaml(value: str) -> str:
    return value if _YAML_PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
