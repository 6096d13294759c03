"""Every scenario can be read, every fault is played, and the page names them all."""

import pytest

from chaos import fault_table
from chaos.faults import REGISTRY
from chaos.scenario import ScenarioError, load, load_all


def test_every_fault_is_in_a_scenario():
    scenarios = load_all()
    played = {planned.fault for scenario in scenarios for planned in scenario.strikes}
    played |= {"failpoint" for scenario in scenarios if scenario.failpoints}
    assert sorted(set(REGISTRY) - played) == []


def test_the_page_has_the_table_of_faults_as_it_is():
    page = fault_table.PAGE.read_text(encoding="utf-8")
    assert page == fault_table.page_with_table(page), "run python -m chaos.fault_table"


def test_a_seed_chooses_the_same_points_again():
    (scenario,) = (one for one in load_all() if one.name == "rank-killed-at-random")
    assert scenario.points(3) == scenario.points(3)
    assert scenario.points(3) != scenario.points(4)
    assert len({point.step for point in scenario.points(3)}) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("strikes: []", "what"),
        ("what: x\nstrikes: [{fault: rank-sigkil}]", "there is no fault 'rank-sigkil'"),
        ("what: x\nstrikes: [{fault: rank-sigkill, phase: forward}]", "there is no phase 'forward'"),
        ("what: x\nstrikes: [{fault: rank-sigkill, rank: 1}]", "there is no rank 1 among 1"),
        ("what: x\nwhen: y", "when"),
        ("what: [", "flow"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=r"bad\.yaml") as caught:
        load(path)
    assert says in str(caught.value)
