"""Edits find their statement: in texts with unusual line ends, and where statements share a line."""

from __future__ import annotations

import ast

import pytest

pytest.importorskip("libcst")

from trainerd.adoption.adopt_script import adopt_source
from trainerd.adoption.edit_plan import EditPlan, Wrapping
from trainerd.adoption.refusal import AdoptionRefusedError
from trainerd.adoption.rewriting import rewritten

PLAIN = """\
import torch
from torch.utils.data import DataLoader

torch.manual_seed(5)
net = torch.nn.Linear(2, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
loader = DataLoader(data, batch_size=4)
best = float("inf")
for epoch in range(3):
    for x, y in loader:
        opt.zero_grad()
        loss = (net(x) - y).pow(2).mean()
        loss.backward()
        opt.step()
        best = min(best, loss.item())
    print(best)
"""


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"], ids=ascii)
@pytest.mark.parametrize("place", ["comment", "text"])
def test_only_the_ends_of_lines_that_python_knows_count(end, place):
    line = f"# a{end}b\n" if place == "comment" else f'NOTE = """a{end}b"""\n'
    for source in (line + PLAIN, PLAIN.replace("net = ", line + "net = ")):
        text = adopt_source(source).text
        ast.parse(text)
        assert "for epoch in session.epochs(3):" in text
        assert "for x, y in session.batches(loader):" in text
        assert 'carry = session.variables(best=float("inf"))' in text
        assert "carry.best = min(carry.best, loss.item())" in text


def test_a_form_feed_between_functions():
    source = PLAIN.replace("net = torch", "\x0c\nnet = torch")
    assert "for epoch in session.epochs(3):" in adopt_source(source).text


def test_a_first_value_that_shares_its_line_stays_with_the_other_statement():
    text = adopt_source(PLAIN.replace('best = float("inf")', 'best = float("inf"); patience = 5')).text
    assert 'carry.best = float("inf"); patience = 5' in text
    assert text.index("session.variables(best=") < text.index("carry.best = float")
    assert text.index("patience = 5") < text.index("for epoch in")


def test_other_loops_may_be_on_one_line():
    source = PLAIN.replace("loader =", "for p in net.parameters(): p.requires_grad_(True)\nloader =")
    assert "for p in net.parameters(): p.requires_grad_(True)" in adopt_source(source).text


def test_a_batch_may_be_left_where_gradients_begin_at_zero():
    source = PLAIN.replace(
        "        opt.step()", "        if loss > 9:\n            continue\n        opt.step()"
    )
    assert "session.batches(loader)" in adopt_source(source).text


def test_a_scheduler_may_be_left_out_of_a_step():
    source = PLAIN.replace("        opt.zero_grad()\n", "").replace(
        "        opt.step()",
        "        opt.step()\n        opt.zero_grad()\n        if epoch < 1:\n            continue\n"
        "        sched.step()",
    )
    source = source.replace("loader =", "sched = torch.optim.lr_scheduler.StepLR(opt, 1)\nloader =")
    assert "session.batches(loader)" in adopt_source(source).text


def test_the_net_may_move_after_the_loop():
    assert "net = net.cpu()" in adopt_source(PLAIN + "net = net.cpu()\n").text


@pytest.mark.parametrize(
    "plan",
    [
        EditPlan(expressions={(2, 0, 2, 9): "x"}),
        EditPlan(first_arguments={(2, 0, 2, 1): "x"}),
        EditPlan(before={3: ["x"]}),
        EditPlan(after={3: ["x"]}),
        EditPlan(removed={3}),
        EditPlan(at_start={3: ["x"]}),
        EditPlan(headers={3: "for x in y"}),
        EditPlan(nested={3: "for x in y"}),
        EditPlan(first_parameters={3: "x"}),
        EditPlan(wrapping=Wrapping(1, 3, "with x")),
    ],
    ids=[
        "expression", "argument", "before", "after", "removed", "start", "header", "nested", "parameter",
        "with",
    ],
)  # fmt: skip
def test_an_edit_that_found_no_place_is_refused(plan):
    with pytest.raises(AdoptionRefusedError, match="cannot be changed"):
        rewritten("a = 1\nb = (\n  2)\n", plan)


@pytest.mark.parametrize(
    ("before", "is_named"),
    [
        ('log = open("log.csv", "w")\n', True),
        ('log = path.open(mode="w")\n', True),
        ('log = open("log.csv", "a")\n', False),
        ('with open("config.json", "w") as log:\n    log.write("x")\n', False),
        ('open("config.json", "w").write("x")\n', False),
    ],
    ids=["open", "path", "append", "closed", "at-once"],
)
def test_a_file_that_each_resume_empties_is_named(before, is_named):
    source = PLAIN.replace("best =", before + "best =", 1).replace(
        "    print(best)", "    print(best, file=log)"
    )
    named = [each for each in adopt_source(source).notes if "each resume empties it" in each]
    assert [each.split()[1] for each in named] == (["8"] if is_named else [])
