"""Plain scripts are changed or refused: what is changed is checked, and says as little as it can."""

from __future__ import annotations

import ast
import difflib
import functools

import pytest

pytest.importorskip("libcst")

from tests.unit.adoption.scripts_that_adopt import PARTS, RIGHT
from tests.unit.adoption.scripts_that_are_refused import REFUSED
from trainerd.adoption.adopt_script import CHANGED_LINES_MAX, adopt_source
from trainerd.adoption.refusal import AdoptionRefusedError
from trainerd.analysis.check_script import check
from trainerd.analysis.script import Script
from trainerd.analysis.script_finding import ScriptSyntaxError

adopted_once = functools.cache(adopt_source)


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_a_plain_script_is_changed_in_a_few_lines_and_passes_the_check(name):
    adopted = adopted_once(RIGHT[name])
    script = Script(adopted.text)
    assert script.has_session
    assert check(script) == ()
    assert adopted.changed <= CHANGED_LINES_MAX
    comments = [line.partition("#")[2] for line in RIGHT[name].splitlines() if "#" in line]
    assert [each for each in comments if each not in adopted.text] == []
    assert not any(line != line.rstrip() for line in adopted.text.splitlines())


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_the_counts_of_lines_are_those_of_a_diff(name):
    adopted = adopted_once(RIGHT[name])
    old, new = RIGHT[name].splitlines(), adopted.text.splitlines()
    assert len(new) - len(old) <= adopted.added
    kept = sum(a.size for a in difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks())
    assert kept + adopted.changed + adopted.indented == len(old)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_not_understood_is_refused_at_its_line(name):
    source, line, reason = REFUSED[name]
    ast.parse(source)
    with pytest.raises(AdoptionRefusedError) as caught:
        adopt_source(source)
    first = caught.value.refusals[0]
    assert (first.line, reason in first.reason) == (line, True), first


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_a_changed_script_is_not_changed_twice(name):
    with pytest.raises(AdoptionRefusedError, match="uses trainerd already"):
        adopt_source(adopted_once(RIGHT[name]).text)


def test_the_whole_text_of_one_change():
    adopted = adopt_source(PLAIN)
    assert adopted.text == PLAIN_ADOPTED
    assert (adopted.changed, adopted.added, adopted.indented) == (5, 5, 9)


def test_names_of_the_script_are_left_alone():
    text = adopt_source(PLAIN.replace("running", "carry")).text
    assert "carried = session.variables(carry=0.0)" in text
    assert "print(carried.carry)" in text


def test_one_name_in_two_functions_is_two_variables_of_the_session():
    text = adopt_source(TWO_TOTALS).text
    assert "session.variables(train_total=0.0)" in text
    assert "session.variables(main_total=0)" in text
    assert "return carry.train_total" in text
    assert "print(carry.main_total)" in text


def test_a_variable_in_a_format_string_a_keyword_and_an_attribute():
    source = PLAIN.replace(
        "print(running)", 'print(f"{running:.2f} running", dict(running=running), net.running)'
    )
    text = adopt_source(source).text
    assert 'print(f"{carry.running:.2f} running", dict(running=carry.running), net.running)' in text


def test_columns_count_characters_where_text_is_not_ascii():
    source = PLAIN.replace("for x, y in loader:", "for x, y in (äöü_loader):").replace(
        "loader =", "äöü_loader ="
    )
    assert "for x, y in (session.batches(äöü_loader)):" in adopt_source(source).text


def test_tabs_stay_tabs():
    text = adopt_source(PLAIN.replace("    ", "\t")).text
    assert "\n\tfor epoch in session.epochs(3):\n\t\tcarry.running = 0.0\n" in text
    ast.parse(text)


def test_a_script_that_is_not_python_has_a_line():
    with pytest.raises(ScriptSyntaxError) as caught:
        adopt_source("import torch\nfor in x:\n")
    assert caught.value.line == 2


def test_all_reasons_are_given_at_once():
    with pytest.raises(AdoptionRefusedError) as caught:
        adopt_source("import lightning\nimport ignite\n" + PLAIN)
    assert [each.line for each in caught.value.refusals] == [1, 2]


def test_own_checkpoints_stay_and_are_named():
    source = PLAIN + '    torch.save(net.state_dict(), f"{epoch}.pt")\n'
    adopted = adopt_source(source)
    assert 'torch.save(net.state_dict(), f"{epoch}.pt")' in adopted.text
    assert adopted.notes == ("torch.save in line 19 stays as it is: the session has checkpoints of its own",)


PLAIN = """\
import torch
from torch.utils.data import DataLoader

torch.manual_seed(5)  # as before

# what trains
net = torch.nn.Linear(2, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
loader = DataLoader(data, batch_size=4)
for epoch in range(3):
    running = 0.0
    for x, y in loader:
        opt.zero_grad()
        loss = (net(x) - y).pow(2).mean()
        loss.backward()
        opt.step()
        running += loss.item()
    print(running)
"""

PLAIN_ADOPTED = """\
import torch
from torch.utils.data import DataLoader
import trainerd

with trainerd.session(seed=5) as session:
    torch.manual_seed(5)  # as before

    # what trains
    net = torch.nn.Linear(2, 1)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    loader = DataLoader(data, batch_size=4)
    carry = session.variables(running=0.0)
    session.track(net=net, opt=opt)
    for epoch in session.epochs(3):
        carry.running = 0.0
        for x, y in session.batches(loader):
            opt.zero_grad()
            loss = (net(x) - y).pow(2).mean()
            loss.backward()
            session.log(loss=loss)
            opt.step()
            carry.running += loss.item()
        print(carry.running)
"""

TWO_TOTALS = (
    PARTS
    + """
def train(loader, model, optimizer):
    total = 0.0
    for x, y in loader:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total


def main():
    torch.manual_seed(0)
    loader = DataLoader(make_data(), batch_size=4)
    model = nn.Linear(4, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    total = 0
    for epoch in range(2):
        total += train(loader, model, optimizer)
    print(total)


main()
"""
)


@pytest.mark.parametrize(
    ("name", "rest"),
    [("accumulation", " or i + 1 == len(loader)"), ("accumulation_from_1", " or len(loader) == i")],
)
def test_gradients_left_at_the_end_of_a_loop_are_refused_with_the_condition_that_takes_them(name, rest):
    plain = RIGHT[name]
    assert rest in plain
    with pytest.raises(AdoptionRefusedError) as caught:
        adopt_source(plain.replace(rest, ""))
    (refusal,) = caught.value.refusals
    line = plain.splitlines()[refusal.line - 1]
    remedied = plain.replace(line.strip(), refusal.instead)
    assert remedied.replace("len(loader) == i", "i == len(loader)").count(refusal.instead) == 1
    assert adopt_source(remedied).text == adopted_once(plain).text


def test_the_type_of_a_variable_that_is_left_out_is_no_comment_of_another_line():
    source = (
        RIGHT["module_level"]
        .replace("for epoch", "seen = 0  # type: int\nfor epoch", 1)
        .replace(
            "        optimizer.step()",
            "        optimizer.step()\n        seen += 1\n        if seen > 9:\n            break",
            1,
        )
    )
    assert "type: int" not in adopt_source(source).text
