"""Which file gives which job where several claim one name."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trainerd.contract.names import check_name
from trainerd.contract.resolved import ResolvedJob
from trainerd.supervisor.specs.claims import Broken, Claim, awarded_names
from trainerd.supervisor.specs.view import Accepted, Refused

JOBS = Path("/jobs")


def good(file_name, job, mtime_ns=0, *, is_missing=False):
    path = JOBS / file_name
    return Claim(path, Accepted(ResolvedJob(job, ("a",), "/", str(path), "d")), mtime_ns, is_missing)


def bad(file_name, says_name=None, mtime_ns=0):
    return Claim(JOBS / file_name, Broken(f"{file_name} is broken", says_name), mtime_ns)


def shown(awarded):
    return {name: (type(reading).__name__, reading.path.name) for name, reading in awarded.specs.items()}


def test_of_two_new_files_the_older_has_the_name_and_the_other_is_told_who_does():
    awarded = awarded_names([good("mnist.json", "mnist", 2), good("mnist.yaml", "mnist", 1)], {})
    assert shown(awarded) == {"mnist": ("Accepted", "mnist.yaml"), "mnist.json": ("Refused", "mnist.json")}
    assert "'mnist': /jobs/mnist.yaml" in awarded.specs["mnist.json"].error_text


def test_of_two_files_of_one_age_the_first_by_name_has_the_name():
    assert shown(awarded_names([good("b.yaml", "x"), good("a.yaml", "x")], {}))["x"] == ("Accepted", "a.yaml")


def test_a_holder_keeps_its_name_though_an_older_file_claims_it():
    claims = [good("old.yaml", "x", 1), good("new.yaml", "x", 2)]
    assert shown(awarded_names(claims, {"x": JOBS / "new.yaml"}))["x"] == ("Accepted", "new.yaml")


def test_a_holder_that_was_broken_by_an_edit_keeps_its_name():
    claims = [bad("a.yaml"), good("b.yaml", "x")]
    awarded = awarded_names(claims, {"x": JOBS / "a.yaml"})
    assert shown(awarded) == {"x": ("Refused", "a.yaml"), "b": ("Refused", "b.yaml")}
    assert awarded.holders == {"x": JOBS / "a.yaml"}


def test_a_new_broken_file_never_takes_the_name_of_a_valid_one():
    awarded = awarded_names([bad("a.yaml", "x", 1), good("b.yaml", "x", 2)], {})
    assert shown(awarded) == {"x": ("Accepted", "b.yaml"), "a": ("Refused", "a.yaml")}
    assert awarded.specs["a"].error_text == "a.yaml is broken"


def test_a_file_that_changed_its_name_gives_the_old_one_up():
    awarded = awarded_names([good("a.yaml", "y"), good("b.yaml", "x")], {"x": JOBS / "a.yaml"})
    assert shown(awarded) == {"y": ("Accepted", "a.yaml"), "x": ("Accepted", "b.yaml")}


def test_after_a_rename_the_new_file_waits_until_the_old_one_is_gone_for_certain():
    claims = [good("a.yaml", "x", is_missing=True), good("b.yaml", "x")]
    awarded = awarded_names(claims, {"x": JOBS / "a.yaml"})
    assert shown(awarded) == {"x": ("Accepted", "a.yaml")}
    assert awarded.waiting == (JOBS / "b.yaml",)


def test_a_holder_not_yet_read_keeps_others_waiting():
    claims = [Claim(JOBS / "a.yaml", None, 5), good("b.yaml", "x", 1)]
    awarded = awarded_names(claims, {"x": JOBS / "a.yaml"})
    assert (awarded.specs, awarded.waiting) == ({}, (JOBS / "b.yaml",))
    assert awarded.holders == {"x": JOBS / "a.yaml"}


def test_a_file_whose_name_cannot_name_a_job_is_shown_under_the_nearest_that_can():
    awarded = awarded_names([bad("My Job (copy).yaml"), bad("é.yaml"), bad("ü.yaml")], {})
    assert sorted(awarded.specs) == ["my-job-copy", "unnamed", "yaml"]


_files = st.sampled_from(["a.yaml", "a.json", "b.yaml", "X.yaml", "x.toml", "c d.yml"])
_names = st.sampled_from(["a", "b", "x", "a.json"])


@given(
    st.dictionaries(
        _files,
        st.tuples(st.sampled_from(["good", "bad", "unread"]), _names, st.integers(0, 3), st.booleans()),
        max_size=6,
    ),
    st.dictionaries(_names, _files, max_size=3),
)
def test_every_file_is_shown_once_and_nothing_depends_on_the_order(files, held):
    held = {name: JOBS / file for name, file in held.items() if list(held.values()).count(file) == 1}
    claims = []
    for file, (kind, name, mtime_ns, is_missing) in files.items():
        if kind == "good":
            claims.append(good(file, name, mtime_ns, is_missing=is_missing))
        elif kind == "bad":
            claims.append(bad(file, name, mtime_ns))
        else:
            claims.append(Claim(JOBS / file, None, mtime_ns))
    awarded = awarded_names(claims, held)
    assert awarded == awarded_names(list(reversed(claims)), held)
    paths = [reading.path for reading in awarded.specs.values()] + list(awarded.waiting)
    assert len(paths) == len(set(paths))
    expected = {claim.path for claim in claims if claim.reading is not None}
    absent = expected - set(paths)
    assert all(claim.is_missing for claim in claims if claim.path in absent)
    for name, reading in awarded.specs.items():
        assert check_name(name) == reading.name == name
        if isinstance(reading, Refused):
            assert reading.error_text
    again = awarded_names(claims, awarded.holders)
    assert {n: r for n, r in again.specs.items() if isinstance(r, Accepted)} == {
        n: r for n, r in awarded.specs.items() if isinstance(r, Accepted)
    }
