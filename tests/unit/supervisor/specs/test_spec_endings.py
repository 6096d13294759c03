"""Files whose ending is nearly that of a spec."""

from __future__ import annotations

import pytest

from trainerd.errors import SpecError
from trainerd.supervisor.specs.document import meant_suffix
from trainerd.supervisor.specs.folder import SpecFolder
from trainerd.supervisor.specs.load import load_spec
from trainerd.supervisor.specs.view import Accepted


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("foo.ymal", ".yaml"),
        ("foo.yalm", ".yaml"),
        ("foo.yaml.txt", ".yaml"),
        ("foo.yam", ".yaml"),
        ("foo.mly", ".yml"),
        ("foo.jsno", ".json"),
        ("foo.JOSN", ".json"),
        ("foo.tmol", ".toml"),
        ("foo.tml", ".toml"),
        ("foo.yaml", None),
        ("foo.YML", None),
        ("foo.txt", None),
        ("foo.yaml~", None),
        ("foo.yaml.swp", None),
        ("foo.yaml.bak", None),
        ("foo.tmpl", None),
        ("foo.jsonl", None),
        ("foo.py", None),
        ("yaml", None),
        (".ymal", None),
    ],
)
def test_a_misspelt_ending_is_told_from_other_files(name, meant):
    assert meant_suffix(name) == meant


def test_it_is_refused_with_the_name_to_give_it(tmp_path):
    for name, meant in {"foo.ymal": "foo.yaml", "foo.yml.txt": "foo.yml"}.items():
        (tmp_path / name).write_text("command: x\n")
        with pytest.raises(SpecError, match=f"rename it to {meant}$"):
            load_spec(tmp_path / name, trust=None)


def test_in_the_jobs_folder_it_is_a_rejected_job_and_takes_no_name_from_a_good_one(tmp_path, monkeypatch):
    monkeypatch.setattr("trainerd.supervisor.specs.folder.SETTLE_S", 0.0)
    monkeypatch.setattr("trainerd.supervisor.specs.folder.BROKEN_SETTLE_S", 0.0)
    (tmp_path / "foo.ymal").write_text("command: x\n")
    folder = SpecFolder(tmp_path, None)
    (tmp_path / "notes.txt").write_text("x")
    specs = folder.scan().specs
    assert list(specs) == ["foo"]
    assert "rename it to foo.yaml" in specs["foo"].error_text
    (tmp_path / "foo.yaml").write_text("command: x\n")
    specs = folder.scan().specs
    assert isinstance(specs["foo"], Accepted)
    assert set(specs) == {"foo", "foo.ymal"}
