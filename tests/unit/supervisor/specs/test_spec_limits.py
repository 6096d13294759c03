"""Whatever a spec holds, it is accepted or refused with its file, in a bounded time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile import TEXTS, as_yaml, plain_values
from trainerd.errors import SpecError, UserError
from trainerd.supervisor.specs import load
from trainerd.supervisor.specs.folder import SpecFolder
from trainerd.supervisor.specs.load import parse_spec
from trainerd.supervisor.specs.model import JobSpec
from trainerd.supervisor.specs.processor_limit import PROCESSOR_S_MAX
from trainerd.supervisor.specs.view import Accepted, Refused

HUGE_NUMBERS = {
    "hex": "0x" + "f" * 5000,
    "binary": "0b" + "1" * 20_000,
    "octal": "0" + "7" * 20_000,
    "octal of 1.2": "0o" + "7" * 20_000,
    "decimal": "9" * 20_000,
    "base 60": "1:" * 50_000 + "1",
    "base 60 with a fraction": "1:" * 50_000 + "1.5",
    "float": "1." + "9" * 50_000,
    "exponent": "1e" + "9" * 5000,
    "underscores": "1_" * 20_000 + "1",
    "negative": "-0x" + "f" * 5000,
}
FIELDS = [
    "nproc",
    "grace",
    "priority",
    "stall_timeout",
    "resources",
    "restart",
    "command",
    "name",
    "env",
    "<<",
]

KINDS = ["int", "float", "bool", "timestamp", "binary", "merge", "set", "omap"]
TAGGED = ["''", "'+'", "'-'", "'.'", "'0x'", "'0b'", "'0o'", "':'", "'_'", "'1:'", "'+0b2'", "[]"]


def refusal(text, *, name="job.yaml"):
    """Return what is wrong with a spec, having checked how long that took to find."""
    began_s = time.thread_time()
    with pytest.raises(SpecError) as caught:
        parse_spec(Path("/jobs", name), text.encode(errors="surrogatepass"))
    assert time.thread_time() - began_s < PROCESSOR_S_MAX + 0.3
    assert str(caught.value).startswith(f"/jobs/{name}")
    assert "bug of trainerd" not in str(caught.value)
    assert len(str(caught.value)) < 20_000
    return str(caught.value)


@pytest.mark.parametrize("number", HUGE_NUMBERS.values(), ids=HUGE_NUMBERS)
def test_a_huge_number_is_refused_in_every_field(number):
    for field in FIELDS:
        said = refusal(f"command: [a]\n{field}: {number}\n")
        assert "job.yaml:2" in said or field == "command"
        refusal(f"command: [a]\nresources: {{cpus: {number}}}\n")
        refusal(f"command: [a]\n{number}: 1\n")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TAGGED)
def test_a_tag_on_a_text_that_it_does_not_fit_is_refused(kind, text):
    said = refusal(f"command: [a]\nnproc: !!{kind} {text}\n")
    assert "job.yaml:2: nproc" in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("keys of a toml", "command = ['a']\n" + ".".join("a" * 20_000) + " = 1"),
        ("quoted keys of a toml", "command = ['a']\n" + " . ".join(['"a"'] * 20_000) + " = 1"),
        ("tables of a toml", "command = ['a']\n[" + ".".join("a" * 20_000) + "]"),
        ("many tables of a toml", "command = ['a']\n" + "".join(f"[t{n}.a.b.c.d]\n" for n in range(40_000))),
        ("deep keys of a toml", "command = ['a']\n" + "".join(f"k{n}{'.a' * 14}=1\n" for n in range(20_000))),
        ("arrays of a toml", "command = ['a']\nx = " + "[" * 100_000),
        ("inline tables of a toml", "command = ['a']\nx = " + "{a=" * 100_000),
        ("hex of a toml", "command = ['a']\ngrace = 0x" + "f" * 200_000),
        ("lists of a json", '{"command": ["a"], "x": ' + "[" * 900 + "1," * 100_000 + "1" + "]" * 900 + "}"),
        ("digits of a json", '{"command": ["a"], "nproc": 1' + "0" * 4000 + "}"),
        ("exponent of a json", '{"command": ["a"], "grace": 1e999}'),
        ("surrogate of a json", '{"command": ["a"], "name": "\\ud800"}'),
        ("long key of a json", '{"command": ["a"], "' + "a" * 500_000 + '": 1}'),
        ("words of a yaml", "command: " + "a " * 300_000),
        ("aliases of a yaml", "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9000))),
        ("unknown fields of a yaml", "".join(f"unknown{n}: v\n" for n in range(9000))),
        ("long values of a yaml", "command: [a]\ngrace: " + "9" * 100 + "h" * 50_000),
    ],
)
def test_what_takes_a_parser_minutes_is_refused_in_a_moment(name, text):
    refusal(text, name=f"job.{name.rpartition(' ')[2]}")


def test_the_place_of_a_huge_number_is_named_in_every_format():
    assert "job.toml:2: grace" in refusal("command = ['a']\ngrace = 0x" + "f" * 5000, name="job.toml")
    said = refusal('{"command": ["a"],\n"restart": {"budget": 1' + "0" * 500 + "}}", name="job.json")
    assert "job.json:2: restart.budget" in said


def test_dots_in_texts_of_a_toml_are_no_keys():
    text = (
        "command = ['python', '-m', '''"
        + "a." * 40
        + "''']\nenv = {A = \""
        + "b." * 40
        + '"}  # '
        + "c." * 40
    )
    assert parse_spec(Path("/jobs/job.toml"), text.encode()).spec.command[0] == "python"


def test_a_fault_in_reading_a_spec_is_that_spec_s(tmp_path, monkeypatch):
    """The other specs of the folder are read all the same."""
    real = load.meaning_digest

    def breaks(spec, path):
        if path.name == "ant.yaml":
            raise RuntimeError("a bug")
        return real(spec, path)

    monkeypatch.setattr(load, "meaning_digest", breaks)
    for name in ("ant", "bee"):
        (tmp_path / f"{name}.yaml").write_text("command: [a]\n")
    clock = type("Clock", (), {"monotonic_s": lambda _: 0.0, "wall_s": lambda _: time.time() + 60})()
    specs = SpecFolder(tmp_path, trust=None, clock=clock).scan().specs
    assert isinstance(specs["bee"], Accepted)
    assert isinstance(specs["ant"], Refused)
    assert "bug of trainerd" in specs["ant"].error_text


SPECS = st.dictionaries(
    st.sampled_from([*JobSpec.model_fields, "unknown"]) | TEXTS, plain_values(), max_size=8
).map(lambda fields: {"command": ["a"], **fields})


def outcome(text: bytes, suffix: str) -> str:
    """Return what is wrong with a spec, empty if nothing is; fail on any other end."""
    try:
        parse_spec(Path(f"/jobs/job.{suffix}"), text)
    except UserError as error:
        return str(error)
    return ""


@settings(deadline=None)
@given(SPECS, st.sampled_from(["json", "yaml"]))
def test_any_values_in_any_fields_are_a_spec_or_a_refusal(fields, suffix):
    text = json.dumps(fields, default=str) if suffix == "json" else as_yaml(fields)
    assert "bug of trainerd" not in outcome(text.encode(errors="surrogatepass"), suffix)


@settings(deadline=None)
@given(st.binary(max_size=500), st.sampled_from(["json", "yaml", "toml"]))
def test_any_bytes_are_a_spec_or_a_refusal(data, suffix):
    assert "bug of trainerd" not in outcome(data, suffix)
