"""What a user reads when a spec is wrong: file, line, field, and the way to mend it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainerd.errors import SpecError, UserError
from trainerd.supervisor.specs.load import parse_spec

GOOD = "command: [python, train.py]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("comand: [a]", "job.yaml:1: comand: unknown field 'comand'; did you mean 'command'?"),
        (
            GOOD + "\ncheckpoint:\n  keep_lst: 3",
            "job.yaml:4: checkpoint.keep_lst: unknown field 'keep_lst'; did you mean 'checkpoint.keep_last'?",
        ),
        (GOOD + "keep_last: 3", ("job.yaml:2: keep_last: unknown field 'keep_last'; did you mean "
                                "'checkpoint.keep_last'?")),
        (GOOD + "user: anne", ("job.yaml:2: user: unknown field 'user'; a job runs as the user of its "
                              "supervisor: give each person a supervisor of their own, `systemctl --user "
                              "enable --now trainerd` (docs/security.md)")),
        (GOOD + "cwd: /", "job.yaml:2: cwd: unknown field 'cwd'; did you mean 'workdir'?"),
        (GOOD + "Grace: 3", "job.yaml:2: Grace: unknown field 'Grace'; did you mean 'grace'?"),
        (GOOD + "restart:\n  zzz: 1", ("job.yaml:3: restart.zzz: unknown field 'zzz'; the fields of "
                                      "restart are budget, backoff")),
        ("name: x", ("job.yaml:1: command: this field is required; a job needs one, for example: "
                    "command: [python, train.py]")),
        ("command:\nname: x", "job.yaml:1: command: this field is required; a job needs one"),
        ("command: []", "job.yaml:1: command: no program is named; write for example [python, train.py]"),
        ("command: ' '", "job.yaml:1: command: no program is named"),
        ("command: 'echo \"a'", ("job.yaml:1: command: the shell's rules do not allow this text: No "
                                "closing quotation")),
        ("command:\n- a\n- 2", ('job.yaml:3: command[1]: expected text, not the number 2; put it in '
                               'quotes: "2"')),
        ("command: [a, 1e3.0]\ngrace: x", ("job.yaml:2: grace: 'x' is not a duration; write seconds as "
                                          "a number")),
        ("command: {a: b}", "job.yaml:1: command: expected a list of texts, or one text, not a mapping"),
        (GOOD + "env: {A: 010}", 'job.yaml:2: env.A: YAML reads 010 as 8; write 8, or "010" if it is text'),
        (GOOD + "grace: 1:30", 'job.yaml:2: grace: YAML reads 1:30 as 90; write 90, or "1:30" if it is text'),
        (GOOD + "env: {A: 1.50}", ('job.yaml:2: env.A: expected text, not the number 1.5; put it in '
                                  'quotes: "1.50"')),
        (GOOD + "env:\n  A: no", ("job.yaml:3: env.A: expected text, not 'no', which YAML reads as false; "
                                 'put it in quotes: "no"')),
        (GOOD + "env:\n  on: x", "job.yaml:3: env: YAML reads the key on as true; put it in quotes"),
        (GOOD + "env: {RANK: '0'}", "job.yaml:2: env: RANK is set by trainerd itself; leave it out"),
        (GOOD + "env: {TRAINERD_GRACE_S: '9'}", ("job.yaml:2: env: TRAINERD_GRACE_S is set by trainerd "
                                                "itself; use the field grace")),
        (GOOD + "env: {'A=B': 'x'}", "job.yaml:2: env: 'A=B' cannot name a variable"),
        (GOOD + 'env: {A: "x\\0y"}', "job.yaml:2: env.A: text must not hold a NUL character"),
        (GOOD + "nproc: 0", "job.yaml:2: nproc: must be at least 1, not 0"),
        (GOOD + "nproc: '2'", "job.yaml:2: nproc: expected a whole number, not the text '2'"),
        (GOOD + "nproc: true", "job.yaml:2: nproc: expected a whole number, not true"),
        (GOOD + "resources: {cpus: .inf}", "job.yaml:2: resources.cpus: "),
        (GOOD + "resources: {memory: 2}", ('job.yaml:2: resources.memory: the size 2 has no unit; write '
                                          '"2GiB" or "512MB"')),
        (GOOD + "restart: 5", ("job.yaml:2: restart: expected a mapping, not the number 5; its fields "
                              "are budget, backoff")),
        (
            GOOD + "restart: {backoff: {initial: 9s, max: 5s}}",
            "job.yaml:2: restart.backoff: max must not be shorter than initial",
        ),
        (GOOD + "checkpoint: {every: often}", ("job.yaml:2: checkpoint.every: expected a mapping such "
                                              "as {steps: 200}, or 'auto'")),
        (GOOD + "checkpoint: {every: {steps: 0}}", ("job.yaml:2: checkpoint.every.steps: must be at "
                                                   "least 1, or 'never', not 0")),
        (GOOD + "checkpoint: {keep_every: {}}", ("job.yaml:2: checkpoint.keep_every: name at least one "
                                                "of steps, seconds, epochs")),
        (
            GOOD + "checkpoint:\n  keep_best:\n  - {metric: a}\n  - {metric: b, mode: best}",
            "job.yaml:5: checkpoint.keep_best[1].mode: expected 'max' or 'min', not the text 'best'",
        ),
        (GOOD + "checkpoint: {keep_best: {mode: min}}", ("job.yaml:2: checkpoint.keep_best.metric: this "
                                                        "field is required")),
        (
            GOOD + "checkpoint: {keep_best: [{metric: a}, {metric: a, mode: min}]}",
            "job.yaml:2: checkpoint: keep_best has two rules for 'a'; keep one",
        ),
        (GOOD + "stall_timeout: 0", "job.yaml:2: stall_timeout: must be longer than 0"),
        (GOOD + "name: a/b", ("job.yaml:2: name: 'a/b' is not a job name: a name is never a path; leave "
                             "out the slash")),
        (GOOD + "name: ../x", "job.yaml:2: name: '../x' is not a job name: a name is never a path"),
        (GOOD + "name: Mnist", "job.yaml:2: name: 'Mnist' is not a job name; use lower-case letters"),
        (GOOD + "workdir: ''", "job.yaml:2: workdir: must not be empty"),
        (GOOD + "workdir: nowhere", "job.yaml:2: workdir: nowhere does not exist; a relative path begins at"),
        (GOOD + "python: .venv/bin/python", "job.yaml:2: python: .venv/bin/python is not a program"),
        (GOOD + "python: no-such-python", "job.yaml:2: python: no program 'no-such-python' in PATH"),
        (GOOD + "env_file: secrets", ("job.yaml:2: env_file: cannot look at secrets: No such file or "
                                     "directory")),
        # The text as a whole.
        ("", "job.yaml: the file is empty"),
        (" \n\n", "job.yaml: the file is empty"),
        ("# nothing\n", "job.yaml: the file holds only comments"),
        ("- a\n- b", "job.yaml:1: the file holds a list at the top, not fields"),
        ("just words", "job.yaml:1: the file holds the text 'just words' at the top"),
        ("a: 1\n---\nb: 2", "job.yaml:2: a second document begins here; one file holds one job"),
        (GOOD + "env: {A: 'x'}\nname: y\nenv: {}", ("job.yaml:4: env: the key stands here a second "
                                                   "time; first on line 2")),
        (GOOD + "env:\n\tA: x", "job.yaml:3: not valid YAML: found character"),
        (GOOD + "env: {A: 'x'", "job.yaml:2: not valid YAML: "),
        ("command: a: b", "job.yaml:1: not valid YAML: mapping values are not allowed"),
        (GOOD + "name: !!python/object:os.system x", "job.yaml:2: name: the tag "),
        (GOOD + "env: !!set {a}", "job.yaml:2: env: the tag tag:yaml.org,2002:set has no meaning in a spec"),
        (GOOD + "env: &a {A: *a}", "job.yaml:2: the alias *a stands inside what it refers to"),
        (GOOD + "env: *b", "job.yaml:2: "),
        (GOOD + "? [a]\n: b", "job.yaml:2: a key must be text"),
        (b"command: caf\xe9", "job.yaml:1: the file is not UTF-8 text; save it as UTF-8"),
        ("command: a".encode("utf-16"), "job.yaml:1: the file is not UTF-8 text"),
        (b"command: a\n\0", "job.yaml:2: the file holds a NUL character"),
        (GOOD + "name: \x07", "job.yaml:2: not valid YAML: "),
    ],
)  # fmt: skip
def test_an_error_in_yaml_names_line_field_and_remedy(bench, text, expected):
    assert bench.error(text).replace(f"{bench.folder}", ".").startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{\n "comand": ["a"]\n}', "job.json:2: comand: unknown field 'comand'; did you mean 'command'?"),
        ('{"command": ["a"],\n"env": {"A":\n1}}', ('job.json:2: env.A: expected text, not the number 1; '
                                                  'put it in quotes: "1"')),
        ('{"command": [\n"a",\n["b"]]}', "job.json:3: command[1]: expected text, not a list"),
        ('{"command": "a",\n\n"command": "b"}', ("job.json:3: command: the key stands here a second "
                                                "time; first on line 1")),
        ('{"command": "a",\n}', "job.json:"),
        ('{"command": "a"', "job.json:1: not valid JSON: "),
        ('{"command": "a", "grace": NaN}', "job.json: not valid JSON: NaN is no JSON number"),
        ('{"command": "a", "grace": ' + "9" * 5000 + "}", "job.json: not valid JSON: "),
        ('["a"]', "job.json:1: the file holds a list at the top"),
        ('{"command": ["\\ud800"]}', "job.json:1: command[0]: "),
        ("[" * 100_000, "job.json: values are nested more than 16 deep"),
    ],
)  # fmt: skip
def test_an_error_in_json_names_line_and_field(bench, text, expected):
    assert bench.error(text, name="job.json").startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name = "x"\ncomand = ["a"]', "job.toml:2: comand: unknown field 'comand'; did you mean 'command'?"),
        (
            'command = "a"\n[env]\nA = 1',
            'job.toml:3: env.A: expected text, not the number 1; put it in quotes: "1"',
        ),
        (
            'command = "a"\ncheckpoint.every.steps = 0',
            "job.toml:2: checkpoint.every.steps: must be at least 1",
        ),
        (
            'command = "a"\n[[checkpoint.keep_best]]\nmetric = "a"\n[[checkpoint.keep_best]]\nn = 1',
            "job.toml:4: checkpoint.keep_best[1].metric: this field is required",
        ),
        ('command = "a"\ngrace = 2020-01-01', "job.toml:2: grace: a date is not a duration"),
        ('command = """\ngrace = 1\n"""\ngrace = -1', "job.toml:4: grace: -1 is out of range"),
        ('command = "a"\ncommand = "b"', "job.toml:2: not valid TOML: Cannot overwrite a value"),
        ('command = "a', "job.toml:1: not valid TOML: "),
        ("a = " + "[" * 100_000, "job.toml: values are nested more than 16 deep"),
    ],
)
def test_an_error_in_toml_names_line_and_field(bench, text, expected):
    assert bench.error(text, name="job.toml").startswith(expected)


def test_all_errors_of_a_file_are_told_at_once_first_line_first(bench):
    text = "grace: x\nnproc: 0\ncomand: [a]\nrestart: {budget: -1}\n"
    assert [line.split(": ")[0:2] for line in bench.error(text).splitlines()] == [
        ["job.yaml:1", "grace"],
        ["job.yaml:2", "nproc"],
        ["job.yaml:3", "comand"],
        ["job.yaml:4", "restart.budget"],
    ]


def test_a_misspelt_command_is_one_error_and_not_also_a_missing_one(bench):
    assert len(bench.error("comand: [a]").splitlines()) == 1


def test_values_nested_too_deep_are_pointed_at(bench):
    assert bench.error(GOOD + "env: " + "[" * 20).startswith("job.yaml:2: env[0][0][0]")


def test_all_missing_paths_are_told_at_once(bench):
    error = bench.error(GOOD + "workdir: nowhere\nenv_file: none\npython: a/b")
    assert [line.split(": ")[1] for line in error.splitlines()] == ["workdir", "env_file", "python"]


def test_an_unknown_ending_is_refused_with_the_known_ones(bench):
    assert "ends in one of .yaml, .yml, .toml, .json" in bench.error(GOOD, name="job.ini")


def test_a_file_name_that_cannot_name_a_job_asks_for_a_name(bench):
    assert "rename the file, or add a field name" in bench.error(GOOD, name="My Job.yaml")
    assert bench.load(GOOD + "name: fine", name="My Job.yaml").name == "fine"


def test_a_file_larger_than_a_mebibyte_is_refused(bench):
    assert "larger than 1048576 bytes" in bench.error(GOOD + "#" * 2**20)


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12)),
        "a0: &a0 {x: y}\n" + "".join(f"a{n}: &a{n} {{k: *a{n - 1}, l: *a{n - 1}}}\n" for n in range(1, 60)),
        "a0: &a0 {x: y}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60)),
        "a: " + "[" * 200_000,
        "a: " + "{a: " * 200_000,
        "- " * 200_000,
        "a: [" + "x, " * 300_000 + "]",
        "".join(f"k{n}: v\n" for n in range(90_000)),
    ],
    ids=[
        "aliases",
        "alias keys",
        "merges",
        "deep list",
        "deep mapping",
        "deep dashes",
        "long list",
        "many keys",
    ],
)
def test_a_bomb_is_refused_in_a_moment(bench, text):
    begin = time.process_time()
    assert (
        "holds more than 20000 values" in (error := bench.error(text)) or "nested more than 16 deep" in error
    )
    assert time.process_time() - begin < 2.0


def test_an_error_never_shows_more_than_the_beginning_of_a_long_value(bench):
    assert len(bench.error(GOOD + "nproc: " + "x" * 100_000)) < 300


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([".yaml", ".json", ".toml"]),
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
)
def test_any_bytes_are_accepted_or_refused_as_a_spec_error(suffix, data):
    try:
        parse_spec(Path(f"/nowhere/job{suffix}"), data)
    except SpecError as error:
        assert str(error).startswith(f"/nowhere/job{suffix}")  # noqa: PT017 (both endings are right)


_names = st.sampled_from(
    [
        "name",
        "command",
        "workdir",
        "python",
        "env",
        "env_file",
        "nproc",
        "resources",
        "checkpoint",
        "restart",
        "grace",
        "stall_timeout",
        "priority",
        "every",
        "steps",
        "seconds",
        "epochs",
        "keep_last",
        "keep_best",
        "keep_every",
        "metric",
        "n",
        "mode",
        "on_tie",
        "budget",
        "backoff",
        "initial",
        "max",
        "gpus",
        "cpus",
        "memory",
        "x",
    ]
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["auto", "5m", "2GiB"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(_names, _values, max_size=6))
def test_any_tree_is_accepted_or_refused_as_a_users_error(tree):
    try:
        parse_spec(Path("/nowhere/job.json"), json.dumps(tree).encode())
    except UserError as error:
        assert "Traceback" not in str(error)  # noqa: PT017 (both endings are right)
        assert "pydantic" not in str(error).lower()  # noqa: PT017 (both endings are right)
