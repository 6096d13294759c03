"""Which run folder a program without a supervisor trains."""

from __future__ import annotations

import pytest

from trainerd.checkpoint.digest import digest_of_bytes
from trainerd.checkpoint.manifest import Manifest
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.paths import RunPaths
from trainerd.contract.run_record import RunRecord, read_run_record, write_run_record
from trainerd.errors import UserError
from trainerd.training.which_run.kept_runs import RUNS
from trainerd.training.which_run.program_identity import ProgramIdentity
from trainerd.training.which_run.run_choice import choose_run
from trainerd.training.which_run.run_names import default_name


@pytest.fixture
def program(tmp_path):
    def make(words="", script="train.py"):
        return ProgramIdentity(script, tuple(words.split()), tmp_path)

    return make


def begin(program, name=None):
    """Train as a session does, as far as the folder is concerned."""
    choice = choose_run(program, name=name)
    choice.paths.root.mkdir(parents=True, exist_ok=True)
    write_run_record(choice.paths.record, choice.record)
    return choice.paths.root.name


def old_run(folder, name, fingerprint):
    """A run of an earlier version, with one checkpoint."""
    store = CheckpointStore.of_run(RunPaths(folder / RUNS / name))
    with store.lock():
        manifest = Manifest(
            job=name,
            lineage="l",
            parent=None,
            step=3,
            epoch=0,
            batch=0,
            reason="steps",
            scores={},
            world_size=1,
            attempt=1,
            fingerprint=fingerprint,
            history_bytes=0,
            is_final=False,
            created_wall_s=0.0,
            trainerd_version="0",
        )
        store.commit(store.begin(3), manifest)


def test_the_same_script_with_the_same_arguments_is_the_same_run(program):
    for words in ("", "--lr 0.1", "--lr 0.01"):
        assert begin(program(words)) == begin(program(words))
    assert begin(program("--lr=0.1")) == begin(program("--lr 0.1"))


def test_other_arguments_other_folders_and_other_notebooks_are_other_runs(program):
    programs = [
        program(),
        program("--lr 0.1"),
        program("--lr 0.01"),
        program(script="a/train.py"),
        program(script="b/train.py"),
        program(script="Train.py"),
        program(script="train"),
        program(script="notebook:train.ipynb"),
        program(script="notebook:other.ipynb"),
        program(script="kernel:a"),
        program(script="kernel:b"),
    ]
    names = [begin(each) for each in programs]
    assert len({*names}) == len(programs)
    assert [begin(each) for each in programs] == names
    assert names[0] == "train"


def test_a_name_has_the_form_of_a_job_name(program):
    long = default_name(program("--x 1", script="Mein Skript" * 30 + ".py"))
    assert len(long) <= 80
    assert begin(program(script=".py")) == begin(program(script=".py"))


def test_a_new_run_knows_the_nearest_earlier_one_of_its_script(program):
    begin(program("--epochs 2 --lr 1"))
    near = begin(program("--epochs 2 --lr 5"))
    begin(program("--epochs 9", script="other.py"))
    choice = choose_run(program("--epochs 4 --lr 5"))
    assert choice.others[0].name == near
    assert len(choice.others) == 2
    assert choose_run(program("--epochs 2 --lr 5")).others == ()


def test_a_run_that_was_continued_with_other_arguments_is_found_by_them(program):
    first = begin(program("--epochs 2"))
    assert begin(program("--epochs 4"), name=first) == first
    assert begin(program("--epochs 4")) == first
    again = begin(program("--epochs 2"))
    assert again == f"{first}-2"
    assert begin(program("--epochs 2")) == again


def test_a_run_that_a_person_has_named_is_continued_by_its_name_alone(program):
    assert begin(program("--epochs 2"), name="mine") == "mine"
    assert begin(program("--epochs 2")) != "mine"
    assert begin(program("--epochs 3"), name="mine") == "mine"
    record = read_run_record(choose_run(program(), name="mine").paths.record)
    assert record == RunRecord("mine", "train.py", ("--epochs", "3"), is_named=True)


@pytest.mark.parametrize("name", ["../up", "", "A b"], ids=["path", "empty", "characters"])
def test_a_name_that_cannot_be_one_is_refused(program, name):
    with pytest.raises(UserError):
        choose_run(program(), name=name)


def test_what_was_moved_aside_is_neither_continued_nor_offered(program, tmp_path):
    name = begin(program("--lr 1"))
    folder = tmp_path / RUNS
    (folder / name).rename(folder / f"{name}.old-1")
    choice = choose_run(program("--lr 1"))
    assert (choice.paths.root.name, choice.others) == (name, ())
    named = choose_run(program("--lr 1"), name=f"{name}.old-1")
    assert named.record.name == name  # as its checkpoints say


@pytest.mark.parametrize("fingerprint", [{}, {"config": {"arguments": []}}], ids=["unknown", "none"])
def test_a_run_of_an_earlier_version_is_continued_by_its_script(program, tmp_path, fingerprint):
    old_run(tmp_path, "train", fingerprint)
    choice = choose_run(program())
    assert (choice.paths.root.name, choice.is_adopted) == ("train", True)
    assert begin(program()) == "train"
    assert not choose_run(program()).is_adopted


def test_a_run_of_an_earlier_version_with_arguments_is_found_too(program, tmp_path):
    old_run(tmp_path, "train", {"config": {"arguments": ["--lr", "1"]}})
    assert choose_run(program("--lr 1")).paths.root.name == "train"
    other = choose_run(program())
    assert not other.is_adopted
    assert other.paths.root.name == "train-2"
    assert [(each.name, each.arguments) for each in other.others] == [("train", ("--lr", "1"))]
    assert begin(program()) == "train-2" == begin(program())


def test_a_run_of_an_earlier_version_belongs_to_the_script_that_made_it(program, tmp_path):
    for folder, text in [("a", b"one"), ("b", b"two")]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.py").write_bytes(text)
    old_run(tmp_path, "train", {"code": {"train.py": digest_of_bytes(b"two")}})
    other = choose_run(program(script="a/train.py"))
    assert (other.is_adopted, [each.name for each in other.others]) == (False, ["train"])
    assert choose_run(program(script="b/train.py")).paths.root.name == "train"


def test_old_runs_of_notebooks_are_offered(program, tmp_path):
    old_run(tmp_path, "interactive", {})
    choice = choose_run(program(script="kernel:a"))
    assert [each.name for each in choice.others] == ["interactive"]
    assert choose_run(program(script="interactive")).is_adopted


def test_a_run_whose_record_cannot_be_read_is_begun_again(program, tmp_path):
    name = begin(program("--lr 1"))
    (tmp_path / RUNS / name / "run.json").write_text("{")
    assert choose_run(program("--lr 1")).paths.root.name == name


def test_a_run_of_an_earlier_version_is_found_where_the_script_has_gone_to(program, tmp_path):
    out = tmp_path / "out"
    old_run(out, "train", {"config": {"arguments": ["--lr", "1"]}})
    assert choose_run(program("--lr 1")).paths.root.parent == tmp_path / RUNS
    for _ in range(2):  # to adopt it, and to find it by its record
        choice = choose_run(program("--lr 1"), working_folder=out)
        assert choice.paths.root == out / RUNS / "train"
        assert choice.start == tmp_path
        write_run_record(choice.paths.record, choice.record)
    assert not choice.is_adopted
    named = choose_run(program("--lr 2"), name="train", working_folder=out)
    assert named.paths.root == out / RUNS / "train"
    assert choose_run(program("--lr 2"), working_folder=out).paths.root.parent == tmp_path / RUNS


def test_a_run_of_another_script_where_the_script_has_gone_to_is_not_taken(program, tmp_path):
    out = tmp_path / "out"
    paths = RunPaths(out / RUNS / "train")
    paths.root.mkdir(parents=True)
    write_run_record(paths.record, RunRecord("train", "train.py"))  # the one that is started there
    for name in (None, "train"):
        choice = choose_run(program(), name=name, working_folder=out)
        assert choice.paths.root == tmp_path / RUNS / "train"


def test_an_edited_script_in_a_folder_adopts_its_run_unless_another_one_may_have_made_it(program, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_bytes(b"edited")
    old_run(tmp_path, "train", {"code": {"train.py": digest_of_bytes(b"before")}})
    choice = choose_run(program(script="src/train.py"))
    assert (choice.paths.root.name, choice.is_adopted, choice.is_edited) == ("train", True, True)
    (tmp_path / "train.py").write_bytes(b"before")
    assert not choose_run(program(script="src/train.py")).is_adopted
    (tmp_path / "train.py").unlink()
    known = RunPaths(tmp_path / RUNS / "train-2")
    known.root.mkdir()
    write_run_record(known.record, RunRecord("train-2", "tools/train.py"))
    choice = choose_run(program(script="src/train.py"))
    assert (choice.is_adopted, [each.name for each in choice.others]) == (False, ["train"])
