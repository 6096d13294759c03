"""What pydantic found wrong, in the words of the user who wrote the spec."""

from __future__ import annotations

import difflib
import inspect
import typing
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from trainerd.contract.counted import counted
from trainerd.supervisor.specs.document import Document, kind_name
from trainerd.supervisor.specs.model import JobSpec
from trainerd.supervisor.specs.problems import FieldPath, Problem, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBLEMS_MAX: Final = 20
"""Most problems that are explained."""

_NAME_CHARACTERS_MAX: Final = 80
"""Longest part of an unknown name that is shown, and compared with the known ones."""

_EXPECTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
}

_BOUNDS: Final = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be more than"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be less than"),
}

_SECRET_SECTIONS: Final = frozenset({"notify", "smtp", "preemption"})
"""Where URLs and passwords stand."""
_SECRET_CHARACTERS_MIN: Final = 8

_UNKNOWN: Final = "unknown field"
_MISSING: Final = "this field is required"

_SYNONYMS: Final = {
    "args": "command",
    "cmd": "command",
    "cwd": "workdir",
    "dir": "workdir",
    "environment": "env",
    "interpreter": "python",
    "processes": "nproc",
    "retries": "restart.budget",
    "run": "command",
    "script": "command",
    "timeout": "stall_timeout",
    "working_dir": "workdir",
    "working_directory": "workdir",
}
"""What other tools call a field, where the spelling alone does not lead to ours."""


_NOT_OFFERED: Final = frozenset({"user", "group", "uid", "gid", "runas", "run_as", "username", "run_as_user"})
_ONE_UNIT_PER_PERSON: Final = (
    "a job runs as the user of its supervisor: give each person a supervisor of their own, "
    "`systemctl --user enable --now trainerd` (docs/security.md)"
)


def problems_of(
    error: ValidationError, document: Document, model: type[BaseModel] = JobSpec
) -> list[Problem]:
    """Return one problem for each thing that `error` holds, with its line and its remedy.

    Args:
        error: What pydantic found.
        document: What it read.
        model: Against what.
    """
    found = error.errors(include_url=False)
    problems = [
        _without_secret(_problem(dict(item), document, model), item["input"]) for item in found[:PROBLEMS_MAX]
    ]
    if len(found) > PROBLEMS_MAX:
        more = f"and {counted(len(found) - PROBLEMS_MAX, 'more problem')}"
        last = max((problem.line or 0 for problem in problems), default=0) or None
        problems.append(Problem(more, line=last, hint="fix the first ones and validate again"))
    # A misspelt field is one mistake, though two things follow: one unknown field and one missing.
    hints = {problem.hint for problem in problems if problem.message.startswith(_UNKNOWN)}
    return [
        problem for problem in problems if problem.message != _MISSING or _meant(problem.field) not in hints
    ]


def _without_secret(problem: Problem, written: Any) -> Problem:
    """Hide what stands where a secret may have been put by mistake: messages are logged."""
    is_secret = bool(problem.field) and problem.field[0] in _SECRET_SECTIONS
    if not (is_secret and isinstance(written, str) and len(written) >= _SECRET_CHARACTERS_MIN):
        return problem
    return replace(problem, message=problem.message.replace(written, "(hidden)"))


def _meant(place: FieldPath) -> str:
    return f"did you mean {dotted(place)!r}?"


def _problem(item: dict[str, Any], document: Document, model: type[BaseModel]) -> Problem:
    kind = item["type"]
    place = _place(item["loc"], document.root, keeps_last=kind == "missing")
    line = document.line_of(place)
    if kind == "extra_forbidden":
        return Problem(
            f"{_UNKNOWN} {str(place[-1])[:_NAME_CHARACTERS_MAX]!r}", place, line, _nearest(place, model)
        )
    if kind == "missing":
        hint = "a job needs one, for example: command: [python, train.py]" if place == ("command",) else None
        return Problem(_MISSING, place, line, hint)
    message = item["msg"]
    if kind == "value_error":
        message = str(item["ctx"]["error"])
    elif kind in _EXPECTED:
        return _wrong_kind(_EXPECTED[kind], item["input"], place, document=document, model=model)
    elif kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        message = f"{words} {item['ctx'][key]}, not {item['input']}"
    elif kind == "literal_error":
        message = f"expected {item['ctx']['expected']}, not {kind_name(item['input'])}"
    elif kind == "string_pattern_mismatch":
        message = "must be one word without spaces"
    elif kind == "string_too_short":
        message = "must not be empty"
    return Problem(message, place, line)


def _wrong_kind(
    expected: str,
    found: Any,
    place: FieldPath,
    *,
    document: Document,
    model: type[BaseModel],
) -> Problem:
    written = document.written.get(place)
    shown, hint = kind_name(found), None
    if isinstance(found, bool) and written is not None and written.lower() not in {"true", "false"}:
        shown = f"{written!r}, which YAML reads as {shown}"
    if expected == "text" and isinstance(found, int | float):
        hint = f'put it in quotes: "{written if written is not None else found}"'
    elif expected == "a mapping" and isinstance(found, str | int | float) and len(place) == 1:
        fields = ", ".join(_fields(place, model)) or "NAME: value"
        hint = f"its fields are {fields}"
    return Problem(f"expected {expected}, not {shown}", place, document.line_of(place), hint)


def _place(loc: tuple[str | int, ...], root: Any, *, keeps_last: bool) -> FieldPath:
    """Return pydantic's location without the steps that it takes inside its own types."""
    place: list[str | int] = []
    value = root
    for index, part in enumerate(loc):
        is_key = isinstance(value, dict) and part in value
        if is_key or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            place.append(part)
            value = value[part]
        elif keeps_last and index == len(loc) - 1:
            place.append(part)
    return tuple(place)


def _nearest(place: FieldPath, model: type[BaseModel]) -> str:
    """Say which field may have been meant by an unknown one."""
    section = tuple(part for part in place[:-1] if isinstance(part, str))
    written = str(place[-1])[:_NAME_CHARACTERS_MAX]
    siblings = _fields(section, model)
    plain = written.lower().replace("-", "_")
    if model is JobSpec and not section and plain in _NOT_OFFERED:
        return _ONE_UNIT_PER_PERSON
    if close := difflib.get_close_matches(plain, siblings, n=1, cutoff=0.7):
        return _meant((*section, close[0]))
    if model is JobSpec and not section and plain in _SYNONYMS:
        return _meant((_SYNONYMS[plain],))
    everywhere = {str(path[-1]): path for path in _all_fields(model) if path[:-1] != section}
    if close := difflib.get_close_matches(plain, list(everywhere), n=1, cutoff=0.8):
        return _meant(everywhere[close[0]])
    where = f"the fields of {dotted(section)}" if section else "the fields of a spec"
    if model is not JobSpec and not section:
        where = "the sections"
    return f"{where} are {', '.join(siblings)}"


def _fields(section: FieldPath, model: type[BaseModel]) -> list[str]:
    return [str(path[-1]) for path in _all_fields(model) if path[:-1] == section]


@cache
def _all_fields(model: type[BaseModel]) -> tuple[FieldPath, ...]:
    return tuple(_walk(model, ()))


def _walk(model: type[BaseModel], section: FieldPath) -> Iterator[FieldPath]:
    for name, info in model.model_fields.items():
        yield (*section, name)
        for inner in models_in(info.annotation):
            yield from _walk(inner, (*section, name))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that a field's type allows."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)
