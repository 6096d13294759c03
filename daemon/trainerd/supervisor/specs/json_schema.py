"""The JSON Schema of a job spec, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any, Final

from trainerd.supervisor.specs.model import JobSpec

SCHEMA_ID: Final = "urn:trainerd:job-spec:1"


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a spec.

    It is as strict as the loader but for what a schema cannot say (that paths exist, that two fields agree),
    and a little stricter in one thing: a field without a value is an error here and counts as not written
    there.
    """
    body = JobSpec.model_json_schema(mode="validation")
    _add_short_forms(body)
    for section in (body, *body["$defs"].values()):
        section.pop("title")
        for schema in section["properties"].values():
            _tidy(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "trainerd job spec",
        **body,
    }


def _add_short_forms(body: dict[str, Any]) -> None:
    """Allow what the model turns into its long form before pydantic sees it."""
    properties, sections = body["properties"], body["$defs"]
    command = properties["command"]
    command["anyOf"] = [
        {"type": command.pop("type"), "items": command.pop("items"), "minItems": 1},
        {"type": "string", "minLength": 1},
    ]
    checkpoint = sections["CheckpointSpec"]["properties"]
    checkpoint["every"]["anyOf"] = [{"$ref": "#/$defs/EverySpec"}, {"const": "auto"}]
    best = checkpoint["keep_best"]
    rules = {"type": best.pop("type"), "items": best.pop("items")}
    best["anyOf"] = [{"$ref": "#/$defs/KeepBestSpec"}, rules]
    hooks = properties["notify"]
    listed = {"type": hooks.pop("type"), "items": hooks.pop("items")}
    hooks["anyOf"] = [{"$ref": "#/$defs/HookSection"}, listed]
    _allow_short_forms_of_hooks(sections["HookSection"]["properties"])
    sections["EverySpec"]["properties"]["steps"]["default"] = "never"


def _allow_short_forms_of_hooks(hook: dict[str, Any]) -> None:
    """Allow a command as one text, and one address instead of a list."""
    hook["email"]["anyOf"][0]["minItems"] = 1
    hook["email"]["anyOf"].append({"type": "string", "minLength": 1})
    hook["command"]["anyOf"][0]["minItems"] = 1
    hook["command"]["anyOf"].append({"type": "string", "minLength": 1})


def _tidy(schema: dict[str, Any]) -> None:
    """Leave out what only the model needs.

    Made-up titles, None for absent, the defaults of whole sections.
    """
    schema.pop("title", None)
    if schema.get("default", ...) is None or isinstance(schema.get("default"), dict):
        del schema["default"]
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del schema["anyOf"]
        schema.update({key: value for key, value in choices[0].items() if key not in schema})
    elif choices:
        schema["anyOf"] = choices
