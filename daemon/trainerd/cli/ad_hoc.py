"""Specs of jobs that have no file yet: from a command line, or from standard input."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.contract.names import NAME_LENGTH_MAX
from trainerd.errors import SpecError, UserError

if TYPE_CHECKING:
    from collections.abc import Container

    from trainerd.supervisor.specs.model import JobSpec

_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")
_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?")


def refuse_shell_words(command: tuple[str, ...]) -> None:
    """Refuse a command that only a shell would understand.

    Raises:
        UserError: It begins with a keyword of a shell, or holds one of its operators.
    """
    from trainerd.supervisor.specs.shell_words import OPERATORS, shell_problem

    operator = next((word for word in command if word in OPERATORS), None)
    if operator is None and shell_problem(command) is None:
        return
    what = command[0] if operator is None else operator
    raise UserError(
        f"{what!r} is for a shell, and the command of a job is started without one",
        hint=f"write it as: bash -c {' '.join(command)!r}; for another folder there is --workdir, "
        "for a variable --env",
    )


def name_of_command(command: tuple[str, ...], taken: Container[str]) -> str:
    """Return a name for a job from its script, with a number if there is a job of that name."""
    script = next((word for word in command if word.endswith(".py")), None)
    if script is None and "-m" in command[:-1]:
        script = command[command.index("-m") + 1].rpartition(".")[2]
    base = as_name(Path(script or command[0]).stem)
    return free_name(base, taken)


def as_name(text: str) -> str:
    """Return a text as the name of a job: lower case, with hyphens for what a name cannot have."""
    return _NOT_IN_NAMES.sub("-", text.lower()).strip("-")[: NAME_LENGTH_MAX - 5].strip("-") or "job"


def free_name(base: str, taken: Container[str]) -> str:
    """Return the name, or the first of NAME-2, NAME-3, … that is not taken."""
    number, name = 1, base
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def spec_of_command(command: tuple[str, ...], **fields: Any) -> dict[str, Any]:
    """Return the spec that runs a command here, as this shell would: this folder, this interpreter."""
    refuse_shell_words(command)
    spec: dict[str, Any] = {"command": list(command), "workdir": str(Path.cwd())}
    if _PYTHON.fullmatch(command[0]) and (interpreter := shutil.which(command[0])) is not None:
        spec["command"][0] = "python"
        spec["python"] = interpreter
    return spec | {key: value for key, value in fields.items() if value not in (None, (), {}, [])}


def write_spec(folder: Path, name: str, spec: dict[str, Any]) -> Path:
    """Write a spec as YAML, to be placed from there."""
    import yaml

    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name} | spec, sort_keys=False, allow_unicode=True))
    return path


def write_given(folder: Path, data: bytes, name: str | None) -> Path:
    """Write a spec that was read from standard input, to be placed from there.

    Its relative paths begin at the working folder.

    Raises:
        SpecError: It would not be accepted.
        UserError: It has no name and none is given.
    """
    from trainerd.supervisor.specs.load import parse_spec
    from trainerd.supervisor.specs.rewrite import with_fields

    suffix = ".json" if data.lstrip()[:1] == b"{" else ".yaml"
    path = folder / f"standard-input{suffix}"
    try:
        spec = parse_spec(path, data).spec
    except SpecError as error:
        error.message = error.message.replace(str(path), "standard input")
        raise
    name = name or spec.name
    if name is None:
        raise UserError(
            "the spec on standard input has no name", hint="give it a field name, or say --name NAME"
        )
    changes = {"name": name} | absolute_paths(spec, Path.cwd())
    text = with_fields(data.decode("utf-8-sig"), suffix, changes)
    if text is None:
        raise UserError(
            "the spec on standard input cannot be completed", hint="write absolute paths and a name into it"
        )
    path = folder / f"{name}{suffix}"
    path.write_text(text)
    return path


def absolute_paths(spec: JobSpec, folder: Path) -> dict[str, str]:
    """Return the fields of a spec that are paths, as absolute ones; relative ones begin at `folder`."""
    from trainerd.supervisor.specs.resolve import absolute

    given = {"workdir": spec.workdir, "python": spec.python, "env_file": spec.env_file}
    return {
        field: absolute(text, folder)
        for field, text in given.items()
        if text is not None and (field != "python" or "/" in text)
    }


def read_variables(given: tuple[str, ...]) -> dict[str, str]:
    """Return the environment variables of ``NAME=VALUE``; a ``NAME`` alone takes over this shell's value.

    Raises:
        UserError: One has no value here.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            if name not in os.environ:
                raise UserError(f"--env {name}: it is not set here", hint=f"write --env {name}=VALUE")
            value = os.environ[name]
        found[name] = value
    return found
