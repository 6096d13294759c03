"""Two fingerprints are compared by field: the same, compatible, or refused."""

import pytest

from trainerd.checkpoint.fingerprint import changes, compared

BEFORE = {
    "code": {"train.py": "a", "gone.py": "b"},
    "config": {"arguments": ["--lr", "0.1"], "seed": 0},
    "world_size": 2,
    "libraries": {"torch": "2.12"},
    "parameters": {"model": {"count": 2, "digest": "x"}},
    "data": {"0": {"samples": 10}},
}


def verdicts(now, *, is_inside_epoch=False, before=BEFORE):
    found = compared(before, now, is_inside_epoch=is_inside_epoch)
    return {each.field: each.verdict for each in found if each.verdict != "same"}


def test_what_is_equal_is_the_same_in_every_field():
    found = compared(BEFORE, BEFORE, is_inside_epoch=True)
    assert {each.verdict for each in found} == {"same"}
    assert len(found) == 9
    assert changes(found) == ()


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("code", {"train.py": "c", "gone.py": "b"}, {"code.train.py": "compatible"}),
        (
            "code",
            {"train.py": "a", "new.py": "d"},
            {"code.gone.py": "compatible", "code.new.py": "compatible"},
        ),
        ("config", {"arguments": [], "seed": 0}, {"config.arguments": "compatible"}),
        ("world_size", 1, {"world_size": "compatible"}),
        ("libraries", {"torch": "2.13"}, {"libraries.torch": "compatible"}),
        ("parameters", {"model": {"count": 2, "digest": "y"}}, {"parameters.model.digest": "refused"}),
        ("data", {"0": {"samples": 11}}, {"data.0.samples": "refused"}),
    ],
)
def test_each_field_has_a_verdict_of_its_own(section, value, expected):
    assert verdicts(BEFORE | {section: value}, is_inside_epoch=True) == expected


def test_between_epochs_the_data_may_have_another_length():
    assert verdicts(BEFORE | {"data": {"0": {"samples": 11}}}) == {"data.0.samples": "compatible"}


def test_what_one_side_never_looked_at_is_no_difference():
    assert verdicts({}) == {}
    assert verdicts(BEFORE, before={}) == {}
    assert verdicts(BEFORE | {"data": {}}, is_inside_epoch=True) == {"data.0.samples": "compatible"}


def test_a_change_reads_as_what_it_was_and_what_it_is():
    (change,) = changes(compared(BEFORE, BEFORE | {"libraries": {"torch": "2.13"}}, is_inside_epoch=False))
    assert str(change) == "libraries.torch: 2.12 → 2.13"
    before, now = ({"code": {"train.py": f"xxh3-128:{digit * 32}"}} for digit in "ab")
    assert list(map(str, changes(compared(before, now, is_inside_epoch=False)))) == ["code.train.py changed"]
