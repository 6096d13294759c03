"""The kinds of values that a spec's fields take, each with its check and its form in the JSON Schema."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from trainerd.contract import environment
from trainerd.contract.names import check_name
from trainerd.errors import UserError
from trainerd.supervisor.specs.document import kind_name
from trainerd.supervisor.specs.quantities import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    parse_duration_s,
    parse_size_bytes,
)
from trainerd.supervisor.specs.shell_words import shell_problem

RESERVED_VARIABLES: Final = frozenset(environment.VARIABLES) - {
    environment.SEED,
    environment.MEMORY_DIR,
    environment.MEMORY_SHARE,
} | {
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
}
"""Variables that trainerd sets itself, so that a spec's value would be lost without a word."""

COMMAND_CHARACTERS_MAX: Final = 128 * 1024
"""Longest command that is split as a shell would, in characters: as long as one argument can be on Linux."""

_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
METRIC_PATTERN: Final = r"^\S+$"


def _split_command(value: Any) -> Any:
    if not isinstance(value, str):
        if not isinstance(value, list):
            raise ValueError(f"expected a list of texts, or one text, not {kind_name(value)}")  # noqa: TRY004 (pydantic's way)
        _check_words(value)
        return value
    if len(value) > COMMAND_CHARACTERS_MAX:
        raise ValueError(f"a text of more than {COMMAND_CHARACTERS_MAX} characters; write a list of texts")
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"the shell's rules do not allow this text: {error}") from error
    if words and (problem := shell_problem(words, value)) is not None:
        raise ValueError(problem)
    return words


def _check_words(value: list[Any]) -> None:
    """Refuse what only a shell would understand; a text is looked at as a whole, with its quotes."""
    if not value or not all(isinstance(each, str) for each in value):  # refused for its kinds afterwards
        return
    if (problem := shell_problem(value)) is not None:
        raise ValueError(problem)


def _checked_command(value: list[str]) -> list[str]:
    if not value or not value[0].strip():
        raise ValueError("no program is named; write for example [python, train.py]")
    return value


def _checked_name(value: str) -> str:
    try:
        return check_name(value)
    except UserError as error:
        raise ValueError(f"{error.message}; {error.hint}" if error.hint else error.message) from error


def _plain_text(value: str) -> str:
    """Refuse what could be handed neither to a program nor to a file."""
    if "\0" in value:
        raise ValueError("text must not hold a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("text must not hold half a character (a lone surrogate)")
    return value


def _checked_env(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if name in RESERVED_VARIABLES:
            raise ValueError(f"{name} is set by trainerd itself; {_instead(name)}")
        if not _VARIABLE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a variable; use letters, digits and '_'")
    return value


def _instead(name: str) -> str:
    if name == environment.GRACE_S:
        return "use the field grace"
    if name == environment.ON_NONFINITE_LOSS:
        return "use the field on_nonfinite_loss"
    if name == environment.TRACKERS:
        return "use the field trackers"
    return "use the section checkpoint" if "CHECKPOINT" in name else "leave it out"


def _positive_duration_s(value: Any) -> float:
    seconds = parse_duration_s(value)
    if seconds == 0:
        raise ValueError("must be longer than 0")
    return seconds


def _duration_or(word: str) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value == word else _positive_duration_s(value))


def _count_or(word: str) -> BeforeValidator:
    def read(value: Any) -> int | None:
        if value == word:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"expected a whole number, or {word!r}, not {kind_name(value)}")  # noqa: TRY004
        if value < 1:
            raise ValueError(f"must be at least 1, or {word!r}, not {value}")
        return value

    return BeforeValidator(read)


def none_for_auto(value: Any) -> Any:
    """Stand in None for the word ``auto``."""
    if isinstance(value, str) and value != "auto":
        raise ValueError(f"expected a mapping such as {{steps: 200}}, or 'auto', not {kind_name(value)}")
    return None if value == "auto" else value


def as_list(value: Any) -> Any:
    """Take one mapping for a list of one."""
    return [value] if isinstance(value, dict) else value


def as_words(value: Any) -> Any:
    """Take one word for a list of one."""
    return [value] if isinstance(value, str) else value


_DURATION_SCHEMA: Final[list[dict[str, Any]]] = [
    {"type": "number", "minimum": 0},
    {"type": "string", "pattern": DURATION_PATTERN},
]


def _count_schema(word: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": word}]})


Text = Annotated[str, AfterValidator(_plain_text)]
FilePath = Annotated[str, Field(min_length=1), AfterValidator(_plain_text)]
Duration = Annotated[float, BeforeValidator(parse_duration_s), WithJsonSchema({"anyOf": _DURATION_SCHEMA})]
DurationOrNever = Annotated[
    float | None,
    _duration_or("never"),
    WithJsonSchema({"anyOf": [*_DURATION_SCHEMA, {"const": "never"}]}),
]
SomeDuration = Annotated[
    float, BeforeValidator(_positive_duration_s), WithJsonSchema({"anyOf": _DURATION_SCHEMA})
]
CountOrNever = Annotated[int | None, _count_or("never"), _count_schema("never")]
CountOrAll = Annotated[int | None, _count_or("all"), _count_schema("all")]
Size = Annotated[
    int,
    BeforeValidator(parse_size_bytes),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN}),
]
Count = Annotated[int, Field(ge=1)]


def _stall_timeout(value: Any) -> Any:
    return value if value == "auto" else None if value == "never" else _positive_duration_s(value)


StallTimeout = Annotated[
    float | Literal["auto"] | None,
    BeforeValidator(_stall_timeout),
    WithJsonSchema({"anyOf": [*_DURATION_SCHEMA, {"enum": ["auto", "never"]}]}),
]

Name = Annotated[str, AfterValidator(_checked_name)]
Command = Annotated[list[Text], BeforeValidator(_split_command), AfterValidator(_checked_command)]
Env = Annotated[dict[str, Text], AfterValidator(_checked_env)]
