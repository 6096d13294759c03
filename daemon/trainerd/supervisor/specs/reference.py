"""The table of a spec's fields in `docs/specs.md`, made from the same schema that editors get.

``python -m trainerd.supervisor.specs.reference docs/specs.md`` writes it between its two markers; a test
compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.supervisor.specs.json_schema import json_schema
from trainerd.supervisor.specs.quantities import DURATION_PATTERN, SIZE_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN: Final = "<!-- fields: generated from the model; do not edit by hand -->"
END: Final = "<!-- end of fields -->"

_PATTERNS: Final = {DURATION_PATTERN: "duration", SIZE_PATTERN: "size"}

_KINDS: Final = {"string": "text", "boolean": "`true`, `false`", "object": "mapping of texts"}


def field_table() -> str:
    """Return the table of all fields, as Markdown."""
    schema = json_schema()
    rows = [
        f"| `{name}` | {kinds} | {default} | {text} |" for name, kinds, default, text in _rows(schema, schema)
    ]
    return "\n".join(["| field | takes | default | meaning |", "|---|---|---|---|", *rows])


def with_table(text: str) -> str:
    """Return a page with the table between its markers brought up to date."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{field_table()}\n{END}{after}"


def _rows(
    section: dict[str, Any], schema: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    required = section.get("required", ())
    for name, field in section["properties"].items():
        inner = _sections(field, schema)
        text = field.get("description") or inner[0]["description"]
        default = "required" if name in required else _default(field)
        yield f"{prefix}{name}", _kinds(field), default, text
        for each in inner:
            yield from _rows(each, schema, f"{prefix}{name}.")


def _sections(field: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    references = [choice["$ref"] for choice in (field, *field.get("anyOf", ())) if "$ref" in choice]
    return [schema["$defs"][reference.rsplit("/", 1)[1]] for reference in references]


def _kinds(field: dict[str, Any]) -> str:
    kinds = [_kind(choice) for choice in field.get("anyOf", [field])]
    if "duration" in kinds:  # a plain number of seconds is one way to write a duration
        kinds = [kind for kind in kinds if not kind.startswith("number")]
    return ", ".join(kinds)


def _kind(choice: dict[str, Any]) -> str:
    if "$ref" in choice:
        return "mapping"
    if "const" in choice:
        return f"`{choice['const']}`"
    if "enum" in choice:
        return ", ".join(f"`{word}`" for word in choice["enum"])
    if choice.get("pattern") in _PATTERNS:
        return _PATTERNS[choice["pattern"]]
    if choice["type"] == "array":
        items = _kind(choice["items"])
        return f"list of {items}" if "enum" in choice["items"] else f"list of {items}s"
    if choice["type"] in {"integer", "number"}:
        return f"{choice['type']}{_bounds(choice)}"
    return _KINDS[choice["type"]]


def _bounds(choice: dict[str, Any]) -> str:
    low, high = choice.get("minimum"), choice.get("maximum")
    if low is not None and high is not None:
        return f" {low} … {high}"
    return f" ≥ {low}" if low is not None else ""


def _default(field: dict[str, Any]) -> str:
    if field.get("default") in (None, [], {}):
        return ""
    return f"`{json.dumps(field['default'])}`".replace('"', "")


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
