"""A spec that is exchanged between the look at it and its opening is judged as what was opened."""

from __future__ import annotations

import os

import pytest

from trainerd.errors import SpecError, UntrustedError
from trainerd.supervisor.specs import load
from trainerd.supervisor.specs.trust import TrustPolicy

TRUST = TrustPolicy.of_this_user()


@pytest.fixture
def exchanged(tmp_path, monkeypatch):
    """Return a spec, and a function that names what takes its place just before it is opened."""
    path, opens = tmp_path / "job.yaml", os.open
    path.write_text("command: a")
    path.chmod(0o644)

    def exchange(take_its_place):
        def opened(name, *args, **options):
            if name == path:
                path.unlink()
                take_its_place(path)
            return opens(name, *args, **options)

        monkeypatch.setattr(load.os, "open", opened)
        return path

    return exchange


def moved(other, path):
    other.rename(path)


def linked(other, path):
    path.symlink_to(other)


def others_file(tmp_path, mode):
    path = tmp_path / "others"
    path.write_text("command: evil")
    path.chmod(mode)
    return path


def test_a_pipe_in_its_place_is_not_waited_for(exchanged):
    with pytest.raises(SpecError, match="is not a file"):
        load.load_spec(exchanged(os.mkfifo), trust=TRUST)


@pytest.mark.parametrize("place", [moved, linked])
def test_a_file_that_others_can_write_in_its_place_is_refused(exchanged, tmp_path, place):
    other = others_file(tmp_path, 0o646)
    with pytest.raises(UntrustedError):
        load.load_spec(exchanged(lambda path: place(other, path)), trust=TRUST)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
@pytest.mark.parametrize("place", [moved, linked])
def test_a_strangers_file_in_its_place_is_refused(exchanged, tmp_path, place):
    other = others_file(tmp_path, 0o644)
    os.chown(other, 65534, 65534)
    with pytest.raises(UntrustedError):
        load.load_spec(exchanged(lambda path: place(other, path)), trust=TRUST)


def test_a_link_that_leads_nowhere_by_then_is_no_spec(exchanged, tmp_path):
    with pytest.raises(SpecError):
        load.load_spec(exchanged(lambda path: path.symlink_to(tmp_path / "gone")), trust=TRUST)
