"""Every wrong loop is named at its lines, and no right one is."""

from __future__ import annotations

import re

import pytest

from tests.unit.analysis import loops_that_do_not, loops_that_resume, ports_that_do_not, ports_that_resume
from trainerd.analysis.check_script import check_source
from trainerd.analysis.script_finding import ScriptSyntaxError

RIGHT = loops_that_resume.RIGHT | {f"port: {name}": text for name, text in ports_that_resume.PORTS.items()}
WRONG = loops_that_do_not.WRONG | {f"port: {name}": text for name, text in ports_that_do_not.PORTS.items()}

MARK = re.compile(r"#! ([\w. -]+)$")


def marked(source):
    """Return the findings that the marks of a script promise: line, rule and name.

    A word with a hyphen is a rule, and what follows it are its names.
    """
    promised = set()
    for number, line in enumerate(source.splitlines(), start=1):
        rule = ""
        for word in found[1].split() if (found := MARK.search(line)) else ():
            if "-" in word:
                rule = word
            else:
                promised.add((number, rule, word))
    return promised


def found(source):
    return {(finding.line, finding.rule, finding.name) for finding in check_source(source)}


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_found_in_a_right_loop(name):
    assert found(RIGHT[name]) == set()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_loop_is_named(name):
    assert marked(WRONG[name])
    assert found(WRONG[name]) == marked(WRONG[name])


def test_there_are_enough_loops():
    assert len(RIGHT) >= 48
    assert len(WRONG) >= 64


@pytest.mark.parametrize("name", WRONG)
def test_each_line_can_be_silenced(name):
    assert found(silenced(WRONG[name])) == set()


def silenced(source):
    return "\n".join(MARK.sub("# trainerd: ok", line) for line in source.splitlines())


def test_a_text_in_a_string_silences_nothing():
    source = WRONG["a sum over an epoch"].replace(
        "loss.item()  #!", 'loss.item() + len("# trainerd: ok")  #!'
    )
    assert found(source) == marked(source)


def test_findings_come_in_the_order_of_lines_and_say_what_to_write():
    findings = check_source(WRONG["seeds from the clock and from the system"])
    assert [finding.line for finding in findings] == sorted(finding.line for finding in findings)
    assert all(finding.why and finding.instead and finding.column >= 1 for finding in findings)


@pytest.mark.parametrize(
    "source", ["for x in:\n", "a = (\n", "\0", "x = " + "(" * 5000 + ")" * 5000], ids=range(4)
)
def test_a_script_that_is_not_python_is_an_error_with_its_line(source):
    with pytest.raises(ScriptSyntaxError) as error:
        check_source(source)
    assert error.value.line >= 1


def test_a_generator_of_an_object_is_tracked_by_the_name_that_the_object_has_outside():
    (found,) = check_source(WRONG["a generator that is drawn from in a method"])
    assert found.instead == "session.track(rng=noise.rng)"


def test_an_object_of_a_class_is_not_to_become_a_value():
    """No value can be one: `session.variables(memory=…)` would refuse it."""
    source = """
import trainerd

class Memory:
    def __init__(self):
        self.items = []

    def add(self, item):
        self.items.append(item)

memory = Memory()
with trainerd.session() as session:
    session.track(model=model)
    for step in session.steps(9):
        train(model, memory)
        memory.add(step)
"""
    (finding,) = check_source(source)
    assert finding.instead == (
        "give its class state_dict and load_state_dict, and write session.track(memory=memory)"
    )
