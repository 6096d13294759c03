"""A spec under another name, with other values: of its fields, of its command's options, of placeholders."""

from __future__ import annotations

import copy
import shlex
from typing import TYPE_CHECKING, Any, Final

from trainerd.cli.ad_hoc import absolute_paths
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIXED: Final = frozenset({"name", "group"})
"""Fields that are set otherwise."""


def read_template(path: Path) -> tuple[dict[str, Any], str | None]:
    """Return the tree of a valid spec, without its name and with absolute paths, and its name if it has one.

    Raises:
        SpecError: It would not be accepted.
    """
    from trainerd.supervisor.specs.load import parse_spec, read_bytes
    from trainerd.supervisor.specs.parsing import parse

    path = path.absolute()
    data, _ = read_bytes(path, None)
    spec = parse_spec(path, data).spec
    root = copy.deepcopy(parse(data, path.suffix.lower()).root)
    paths = absolute_paths(spec, path.parent)
    if _has_placeholder(spec.workdir):
        del paths["workdir"]
    root |= paths
    root["command"] = list(spec.command)
    root.pop("name", None)
    return root, spec.name


def _has_placeholder(text: str) -> bool:
    return "{" in text


def with_values(root: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the tree of a spec with values in their places.

    A key is, in this order, a placeholder ``{KEY}`` in any text, a field such as ``resources.gpus`` or
    ``env.SEED``, or an option of the command: ``--KEY VALUE``, ``--KEY=VALUE`` or ``KEY=VALUE``.

    Raises:
        UserError: It is not one of these.
    """
    from trainerd.supervisor.specs.model import JobSpec

    for key, value in values.items():
        filled, count = _filled(root, f"{{{key}}}", value)
        if count:
            root = filled
        elif key.partition(".")[0] in JobSpec.model_fields and key not in {"command", *FIXED}:
            root = _with_field(root, key, value)
        else:
            root = root | {"command": _with_option(root["command"], key, value)}
    return root


def _filled(node: Any, mark: str, value: str) -> tuple[Any, int]:
    if isinstance(node, str):
        return node.replace(mark, value), node.count(mark)
    if isinstance(node, list):
        pairs = [_filled(each, mark, value) for each in node]
        return [new for new, _ in pairs], sum(count for _, count in pairs)
    if isinstance(node, dict):
        found = {key: _filled(each, mark, value) for key, each in node.items()}
        return {key: new for key, (new, _) in found.items()}, sum(count for _, count in found.values())
    return node, 0


def _with_field(root: dict[str, Any], key: str, value: str) -> dict[str, Any]:
    import yaml

    *folders, last = key.split(".")
    root = copy.deepcopy(root)
    node = root
    for part in folders:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {key}: {part} is no mapping in the spec", hint=f"set {part} as a whole")
        node = inner
    is_text = folders == ["env"]
    try:
        node[last] = value if is_text else yaml.safe_load(value)
    except yaml.YAMLError:
        node[last] = value
    return root


def _with_option(command: list[str], key: str, value: str) -> list[str]:
    spellings = {key, key.replace("_", "-"), key.replace("-", "_")}
    options = {f"--{each}" for each in spellings} | ({f"-{key}"} if len(key) == 1 else set())
    for index, word in enumerate(command):
        name, equals, _ = word.partition("=")
        if equals and (name in options or name.lstrip("+") in spellings):
            return [*command[:index], f"{name}={value}", *command[index + 1 :]]
        if word in options and index + 1 < len(command) and _is_value(command[index + 1]):
            return [*command[: index + 1], value, *command[index + 2 :]]
    raise UserError(
        f"--set {key}: the spec has no field {key}, and its command no --{key} VALUE: {shlex.join(command)}",
        hint=f"write {{{key}}} in the spec where the value belongs, or add --{key} to its command",
    )


def _is_value(word: str) -> bool:
    """Return whether a word is what an option is set to: no other option, but a negative number may be."""
    if not word.startswith("-"):
        return True
    try:
        float(word)
    except ValueError:
        return False
    return True
