"""Files of a folder as state: whole, or named; put back as they were."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

import trainerd
from trainerd.errors import CorruptError, UserError

pytestmark = pytest.mark.torch


def contents(folder):
    return {
        each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()
    }


def test_files_are_put_back_as_they_were_and_others_go(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(b"a")
    (folder / "empty").write_bytes(b"")
    files = trainerd.Files(folder)
    before, state = contents(folder), files.state_dict()
    (folder / "deep" / "a").write_bytes(b"other")
    (folder / "later").write_bytes(b"later")
    for _ in range(2):  # a state may be put back twice
        files.load_state_dict(state)
        assert contents(folder) == before


def test_a_link_to_a_file_is_saved_by_content_and_the_file_behind_it_is_never_written(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.write_bytes(b"first")
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    files = trainerd.Files(folder)
    state = files.state_dict()
    outside.write_bytes(b"second")
    files.load_state_dict(state)
    assert (contents(folder), outside.read_bytes()) == ({"link": b"first"}, b"second")
    (folder / "other").symlink_to(outside)
    files.load_state_dict(state)
    assert (contents(folder), outside.read_bytes()) == ({"link": b"first"}, b"second")


def test_a_folder_that_took_the_place_of_a_file_makes_room_if_nothing_else_is_in_it(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    files = trainerd.Files(tmp_path, pattern="a*")
    state = files.state_dict()
    (tmp_path / "a").unlink()
    (tmp_path / "a" / "b").mkdir(parents=True)
    files.load_state_dict(state)
    assert contents(tmp_path) == {"a": b"a"}
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_bytes(b"mine")
    with pytest.raises(UserError, match="is a folder with other files"):
        files.load_state_dict(state)
    assert contents(tmp_path) == {"a/mine": b"mine"}


def test_a_file_that_goes_while_it_is_saved_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b.tmp").write_bytes(b"b")
    read = Path.read_bytes

    def going(path):
        (tmp_path / "b.tmp").unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", going)
    assert set(trainerd.Files(tmp_path).state_dict()) == {"a"}


@pytest.mark.parametrize("times", [1, 100], ids=["once", "always"])
def test_a_file_that_is_written_while_it_is_read_is_read_again_and_named_if_that_does_not_end(
    tmp_path, monkeypatch, times
):
    path = tmp_path / "a"
    path.write_bytes(b"")
    read, reads = Path.read_bytes, []

    def torn(self):
        content = read(self)
        reads.append(content)
        if len(reads) <= times:
            self.write_bytes(content + b"x")
        return content

    monkeypatch.setattr(Path, "read_bytes", torn)
    files = trainerd.Files(tmp_path)
    if times == 1:
        assert bytes(files.state_dict()["a"].numpy()) == b"x"
    else:
        with pytest.raises(UserError, match="is written while it is saved"):
            files.state_dict()


def test_a_path_that_leads_out_of_the_folder_is_refused_before_anything_is_changed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    files = trainerd.Files(folder)
    state = files.state_dict()
    for name in ("../out", "/tmp/out", "b/../../out"):
        with pytest.raises(CorruptError, match="outside of its folder"):
            files.load_state_dict({name: state["a"]})
    assert contents(folder) == {"a": b"a"}


def test_a_folder_with_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("trainerd.training.state.files.FILES_MAX", 1)
    (tmp_path / "one").touch()
    assert trainerd.Files(tmp_path).state_dict().keys() == {"one"}
    (tmp_path / "two").touch()
    with pytest.raises(UserError, match="has 2 files: more than 1 are no state"):
        trainerd.Files(tmp_path).state_dict()
