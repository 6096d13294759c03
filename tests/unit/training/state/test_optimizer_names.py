"""Optimizers are matched to their parameters by name, and groups added during training are made again."""

from __future__ import annotations

import pytest
import torch

from tests.support.exact import assert_same, through_disk
from trainerd.errors import MismatchError
from trainerd.training.checkpointer import Checkpointer
from trainerd.training.state.optimizer_names import Matching, match, parameter_names

pytestmark = pytest.mark.torch


def net(seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))


def trained(model, optimizer):
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).sum().backward()
        optimizer.step()
    return optimizer


def moments(optimizer, parameter):
    return optimizer.state[parameter]["exp_avg"]


# --------------------------------------------------------------------- the decision


def state_of(*groups):
    return {"state": {}, "param_groups": [{"params": list(group), "lr": 0.1} for group in groups]}


def test_another_order_is_put_right():
    found = match("o", state_of([0, 1]), [["m.a", "m.b"]], [["m.b", "m.a"]], {"m.a", "m.b"})
    assert found == Matching(state_of([1, 0]))


def test_groups_in_another_order_are_put_right_with_their_values():
    state = {"state": {}, "param_groups": [{"params": [0], "lr": 1.0}, {"params": [1], "lr": 2.0}]}
    found = match("o", state, [["m.a"], ["m.b"]], [["m.b"], ["m.a"]], {"m.a", "m.b"})
    assert [group["lr"] for group in found.state["param_groups"]] == [2.0, 1.0]
    assert found.differences == []


def test_a_group_that_the_program_lacks_is_to_be_added():
    found = match("o", state_of([0], [1]), [["m.a"], ["m.b"]], [["m.a"]], {"m.a", "m.b"})
    assert found.added == [["m.b"]]
    assert found.differences == []


def test_names_in_a_group_follow_its_parameters():
    state = {"state": {}, "param_groups": [{"params": [0, 1], "param_names": ["x", "y"]}]}
    found = match("o", state, [["m.a", "m.b"]], [["m.b", "m.a"]], {"m.a", "m.b"})
    assert found.state["param_groups"] == [{"params": [1, 0], "param_names": ["y", "x"]}]


MISFITS = {
    "another parameter": (
        [["m.a", "m.b"]],
        [["m.a", "m.c"]],
        [
            "o.param_groups[0]: m.b in the checkpoint, not here",
            "o.param_groups[0]: m.c here, not in the checkpoint",
        ],
    ),
    "a group that is not there any more": (
        [["m.a"], ["m.gone"]],
        [["m.a"]],
        ["o.param_groups[1]: m.gone in the checkpoint, not in this program"],
    ),
    "a group too many": (
        [["m.a"]],
        [["m.a"], ["m.b"]],
        ["o.param_groups[1]: here with m.b, no such group in the checkpoint"],
    ),
    "unnamed, and known ones swapped": (
        [["m.a", "m.b", None]],
        [["m.b", "m.a", None]],
        [
            "o.param_groups[0].params[0]: in the checkpoint m.a, here m.b",
            "o.param_groups[0].params[1]: in the checkpoint m.b, here m.a",
        ],
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_told_by_name(name):
    saved, live, expected = MISFITS[name]
    numbers = iter(range(9))
    state = state_of(*([next(numbers) for _ in group] for group in saved))
    assert match("o", state, saved, live, {"m.a", "m.b", "m.c"}).differences == expected


def test_unnamed_parameters_are_matched_by_position():
    found = match("o", state_of([0, 1]), [[None, "m.a"]], [[None, "m.a"]], {"m.a"})
    assert found == Matching(state_of([0, 1]))


def test_a_parameter_of_two_modules_has_one_name():
    model = net(0)
    optimizer = torch.optim.SGD(model.parameters())
    names = parameter_names({"whole": model, "part": model[0], "o": optimizer})
    assert names["o"][0][0] == "whole.0.weight"
    assert parameter_names({"part": model[0], "whole": model, "o": optimizer})["o"][0][0] == "part.weight"


# --------------------------------------------------------------------- through a checkpoint


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_every_parameter_gets_its_own_moments_whatever_the_order(tmp_path, order):
    former, fresh = net(1), net(2)
    saved = trained(former, torch.optim.Adam([former[index].weight for index in (0, 1, 2)]))
    live = torch.optim.Adam([fresh[index].weight for index in order])
    through_disk(tmp_path, {"model": former, "optimizer": saved}, {"model": fresh, "optimizer": live})
    for index in (0, 1, 2):
        assert torch.equal(moments(live, fresh[index].weight), moments(saved, former[index].weight))


def test_a_group_added_during_training_is_made_again_with_its_values(tmp_path):
    former, fresh = net(1), net(2)
    saved = torch.optim.Adam(former[2].parameters(), lr=0.1)
    saved.add_param_group({"params": former[0].parameters(), "lr": 0.01})
    trained(former, saved)
    live = torch.optim.Adam(fresh[2].parameters(), lr=0.5)
    through_disk(tmp_path, {"model": former, "optimizer": saved}, {"model": fresh, "optimizer": live})
    assert [group["lr"] for group in live.param_groups] == [0.1, 0.01]
    assert_same(live.state_dict(), saved.state_dict())
    assert torch.equal(moments(live, fresh[0].weight), moments(saved, former[0].weight))


def test_a_script_that_adds_the_group_once_more_finds_it_there(tmp_path):
    former, fresh = net(1), net(2)
    saved = torch.optim.Adam(former[2].parameters())
    saved.add_param_group({"params": former[0].parameters()})
    live = torch.optim.Adam(fresh[2].parameters())
    through_disk(
        tmp_path, {"model": former, "optimizer": trained(former, saved)}, {"model": fresh, "optimizer": live}
    )
    live.add_param_group({"params": fresh[0].parameters(), "lr": 7.0})
    assert len(live.param_groups) == 2
    assert live.param_groups[1]["lr"] == saved.param_groups[1]["lr"]
    live.add_param_group({"params": fresh[1].parameters(), "lr": 7.0})
    assert [group["lr"] for group in live.param_groups][2:] == [7.0]
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        live.add_param_group({"params": fresh[0].parameters()})


def test_another_group_added_first_is_added(tmp_path):
    former, fresh = net(1), net(2)
    saved = torch.optim.Adam(former[2].parameters())
    saved.add_param_group({"params": former[0].parameters()})
    live = torch.optim.Adam(fresh[2].parameters())
    through_disk(
        tmp_path, {"model": former, "optimizer": trained(former, saved)}, {"model": fresh, "optimizer": live}
    )
    live.add_param_group({"params": [fresh[1].weight], "lr": 7.0})
    assert len(live.param_groups) == 3


def test_a_misfit_takes_added_groups_away_again(tmp_path):
    former = net(1)
    saved = torch.optim.Adam(former[2].parameters())
    saved.add_param_group({"params": former[0].parameters()})
    with Checkpointer(tmp_path, {"model": former, "optimizer": trained(former, saved)}) as checkpointer:
        checkpointer.save(step=1)
    fresh = net(2)
    fresh[1] = torch.nn.Linear(4, 4, bias=False)
    live = torch.optim.Adam(fresh[2].parameters())
    with pytest.raises(MismatchError, match=r"model\.1\.bias"):
        Checkpointer(tmp_path, {"model": fresh, "optimizer": live}).load("1")
    assert len(live.param_groups) == 1
    assert "add_param_group" not in vars(live)


def test_a_parameter_that_is_not_tracked_by_that_name_is_told(tmp_path):
    former, fresh = net(1), net(2)
    saved = trained(former, torch.optim.Adam([former[0].weight]))
    with Checkpointer(tmp_path, {"model": former, "optimizer": saved}) as checkpointer:
        checkpointer.save(step=1)
    live = torch.optim.Adam([fresh[1].weight])
    with pytest.raises(MismatchError, match=r"model\.0\.weight in the checkpoint, not here"):
        Checkpointer(tmp_path, {"model": fresh, "optimizer": live}).load("1")
