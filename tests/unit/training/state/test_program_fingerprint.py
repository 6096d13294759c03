"""What the program looks like: which folders its own files are found in."""

import os

import pytest

pytest.importorskip("torch")

from trainerd.training.state.program_fingerprint import real_folder

pytestmark = pytest.mark.torch


def test_the_real_folder_is_what_realpath_says_also_through_links_and_dots(tmp_path, monkeypatch):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "a" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    known = {}
    for name in ("a/b/c", "link/c", "link/../x", "a/out/gone", "a//b/", "loop/x", "link/./c", "missing/x"):
        for folder in (f"{tmp_path}/{name}", name):
            assert real_folder(folder, known) == os.path.realpath(folder), folder
    assert real_folder("/", known) == "/"
    assert real_folder("", known) == str(tmp_path.resolve())
