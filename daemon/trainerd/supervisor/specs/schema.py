"""The JSON Schema of a job spec, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any, Final

from trainerd.supervisor.specs.model import JobSpec

SCHEMA_ID: Final = "urn:trainerd:job-spec:1"


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a spec.

    It is as strict as the loader but for what a schema cannot say: that paths exist, that two fields agree.
    """
    body = JobSpec.model_json_schema(mode="validation")
    _mend(body)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **body,
        "title": "trainerd job spec",
    }


def _mend(body: dict[str, Any]) -> None:
    """Add the short forms, which the model turns into the long ones before pydantic sees them."""
    properties, sections = body["properties"], body["$defs"]
    arguments = properties["command"]["items"]
    properties["command"] |= {
        "anyOf": [
            {"type": "array", "items": arguments, "minItems": 1},
            {"type": "string", "minLength": 1},
        ]
    }
    for key in ("type", "items"):
        del properties["command"][key]
    checkpoint = sections["CheckpointSpec"]["properties"]
    every = checkpoint["every"]
    every["anyOf"] = [{"$ref": "#/$defs/EverySpec"}, {"const": "auto"}]
    best = checkpoint["keep_best"]
    rules = {"type": best.pop("type"), "items": best.pop("items")}
    best["anyOf"] = [{"$ref": "#/$defs/KeepBestSpec"}, rules]
