"""Copies in memory within a session: where there are none, what other saves see of them, and what stays."""

import os
import shutil
from concurrent import futures
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from torch.distributed import HashStore  # noqa: E402 - only where torch is

import trainerd  # noqa: E402 - only where torch is
from tests.support.fake_values import FakeValues  # noqa: E402
from tests.support.memory_copies import memory_folder  # noqa: E402
from trainerd.checkpoint.manifest import Manifest  # noqa: E402
from trainerd.checkpoint.memory_place import memory_place, newest_in_memory  # noqa: E402
from trainerd.checkpoint.memory_room import Room  # noqa: E402
from trainerd.checkpoint.store import CheckpointStore  # noqa: E402
from trainerd.contract.paths import RunPaths  # noqa: E402
from trainerd.errors import CorruptError, RankLostError, UserError  # noqa: E402
from trainerd.training.distributed.rank_store import Ranks  # noqa: E402
from trainerd.training.engine import memory_tier as module  # noqa: E402
from trainerd.training.engine.arriving_rows import LateRow  # noqa: E402
from trainerd.training.engine.run_parts import RunParts  # noqa: E402
from trainerd.training.engine.run_saves import RunSaves  # noqa: E402
from trainerd.training.settings import resolve_settings  # noqa: E402
from trainerd.training.state.rank_files import read_verified  # noqa: E402
from trainerd.training.writing.direct_file import AbandonedError  # noqa: E402
from trainerd.training.writing.writer import CheckpointWriter  # noqa: E402

LIMIT_S = 20.0
SELDOM = {"steps": 1000, "seconds": None, "epochs": None}

pytestmark = pytest.mark.torch


@pytest.fixture
def base(monkeypatch):
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no /dev/shm")
    with memory_folder() as folder:
        monkeypatch.setenv("TRAINERD_MEMORY_DIR", str(folder))
        monkeypatch.setenv("TRAINERD_MEMORY_SHARE", "1e9")
        yield folder


@pytest.fixture
def patient(monkeypatch):
    """Have each step wait for what copies wait for, and for the copy of its boundary."""
    keep = RunSaves.keep_in_memory

    def keep_and_wait(saves):
        if saves._writer._preparation is not None:
            saves._writer._preparation.join(LIMIT_S)
        if saves._writer._in_flight is not None:
            futures.wait([saves._writer._in_flight.future], LIMIT_S)
        keep(saves)
        if saves._writer._aside is not None:
            assert saves._writer._aside.has_ended.wait(LIMIT_S)

    monkeypatch.setattr(RunSaves, "keep_in_memory", keep_and_wait)


def train(run_dir, *, after_step=lambda _session: None, memory="auto", every=None, steps=5, **settings):
    with trainerd.session(run_dir, every=every or SELDOM, memory=memory, **settings) as session:
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters())
        session.track(model=model, optimizer=optimizer)
        for _ in session.epochs(1):
            for batch in session.batches([torch.full((2,), float(n)) for n in range(steps)]):
                model(batch).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                after_step(session)


def steps_in_memory(run_dir):
    return newest_in_memory(RunPaths(run_dir).checkpoints)


@pytest.mark.usefixtures("patient")
def test_each_step_has_its_copy_and_only_the_newest_stays(tmp_path, base):
    seen = []

    def look(session):
        place = memory_place(RunPaths(tmp_path).checkpoints)
        seen.append((session.step, sorted(path.name for path in place.glob("step-*"))))

    train(tmp_path, after_step=look)
    assert seen == [(0, [])] + [(step, [f"step-{step:09d}"]) for step in range(1, 5)]
    assert list(base.glob("*/*")) == []
    assert [each.step for each in CheckpointStore.of_run(RunPaths(tmp_path)).checkpoints()] == [5]


@pytest.mark.usefixtures("patient")
def test_checkpoints_on_disk_are_the_same_with_copies_and_without(tmp_path, base):
    names = {}
    for memory in ("auto", "off"):
        run = RunPaths(tmp_path / memory)
        train(run.root, memory=memory, every={"steps": 2}, keep_last=2)
        found = CheckpointStore.of_run(run).checkpoints()
        names[memory] = [(each.name, each.manifest.reason, each.manifest.files) for each in found]
    assert names["auto"] == names["off"]
    assert len(names["auto"]) == 2


@pytest.mark.usefixtures("patient")
def test_a_boundary_that_is_saved_on_disk_is_not_copied(tmp_path, base):
    copied = []

    def look(session):
        session._run.saves.wait()
        copied.append(steps_in_memory(tmp_path))

    train(tmp_path, every={"steps": 2}, after_step=look)
    assert copied == [None, 1, 1, 3, 3]


@pytest.mark.usefixtures("patient")
def test_without_the_setting_there_is_no_copy_and_a_former_one_goes(tmp_path, base):
    leave_a_copy(tmp_path)
    found = []
    train(
        tmp_path, memory="off", after_step=lambda session: found.append((session.step, session.resumed_from))
    )
    assert found[0] == (0, None)
    assert list(base.glob("*/*")) == []


@pytest.mark.usefixtures("patient")
def test_where_memory_is_short_copies_are_given_up_with_a_line_and_training_goes_on(
    tmp_path, base, monkeypatch, capfd
):
    def run_short(session):
        if session.step == 3:
            monkeypatch.setattr(module, "memory_room", lambda _: [Room(1 << 20, "in a small machine")])
        if session.step == 4:
            assert list(base.glob("*/*")) == []  # their memory is free at once

    train(tmp_path, after_step=run_short)
    said = [line for line in capfd.readouterr().err.splitlines() if "no copies are kept in memory" in line]
    assert len(said) == 1
    assert "1 MiB are free in a small machine" in said[0]
    assert CheckpointStore.of_run(RunPaths(tmp_path)).checkpoints()[-1].step == 5


@pytest.mark.usefixtures("patient")
def test_a_tmpfs_that_fails_ends_no_run(tmp_path, base, capfd):
    def take_away(session):
        if session.step == 2:
            shutil.rmtree(memory_place(RunPaths(tmp_path).checkpoints))

    train(tmp_path, after_step=take_away)
    assert "trainerd: no copies are kept in memory: " in capfd.readouterr().err
    assert CheckpointStore.of_run(RunPaths(tmp_path)).checkpoints()[-1].step == 5


@pytest.mark.usefixtures("patient")
def test_no_copy_waits_for_memory_that_is_being_provided(tmp_path, base, monkeypatch):
    found = []
    monkeypatch.setattr(CheckpointWriter, "is_preparing", True)
    train(tmp_path, after_step=lambda _session: found.append(steps_in_memory(tmp_path)))
    assert found == [None] * 5


@pytest.mark.parametrize("share", ["2 %", "nan", "0", "-0.02"])
def test_a_share_that_is_not_a_number_above_0_is_an_error_that_names_it(tmp_path, base, monkeypatch, share):
    monkeypatch.setenv("TRAINERD_MEMORY_SHARE", share)
    with pytest.raises(UserError, match=f"TRAINERD_MEMORY_SHARE='{share}' is not a number above 0"):
        train(tmp_path)


def test_a_place_that_is_refused_ends_no_run(tmp_path, base, capfd):
    folder = base / f"trainerd-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    train(tmp_path)
    assert "no copies are kept in memory: " in capfd.readouterr().err


def leave_a_copy(run_dir):
    """Train three steps, and leave a copy of the third as a kill would."""

    class Killed(BaseException):
        pass

    def kill(session):
        if session.step == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "discard_memory", lambda _: None)
        patch.setattr(RunSaves, "flush_held", lambda saves: saves.newest)
        with pytest.raises(Killed):
            train(run_dir, after_step=kill)
    assert steps_in_memory(run_dir) == 3
    assert CheckpointStore.of_run(RunPaths(run_dir)).checkpoints() == ()


@pytest.mark.usefixtures("patient")
def test_a_copy_is_gone_on_from_and_is_an_ordinary_checkpoint_then(tmp_path, base):
    leave_a_copy(tmp_path)
    found = []
    train(tmp_path, after_step=lambda session: found.append((session.step, session.resumed_from.name)))
    assert found == [(3, "step-000000003"), (4, "step-000000003")]


@pytest.mark.usefixtures("patient")
def test_a_copy_that_is_not_used_is_gone_before_the_first_step(tmp_path, base):
    leave_a_copy(tmp_path)
    for tensors in memory_place(RunPaths(tmp_path).checkpoints).glob("step-*/rank-00000.safetensors"):
        tensors.write_bytes(b"damaged")
    found = []
    train(tmp_path, after_step=lambda session: found.append((session.step, steps_in_memory(tmp_path))))
    assert found[0] == (0, None)


@pytest.mark.usefixtures("patient")
def test_an_attempt_that_was_taken_over_writes_no_copy_and_leaves_those_of_the_other(tmp_path, base, capfd):
    def take_over(session):
        if session.step == 2:
            CheckpointStore(memory_place(RunPaths(tmp_path).checkpoints)).fence_off()

    train(tmp_path, after_step=take_over)
    assert "no copies are kept in memory: another attempt has taken over" in capfd.readouterr().err
    assert steps_in_memory(tmp_path) == 2


def test_a_copy_waits_for_the_rows_whose_numbers_are_still_on_a_device(tmp_path, base):
    device = FakeValues()
    with trainerd.session(tmp_path, every=SELDOM, memory="auto") as session:
        tier, rows, history = session._run.memory, session._run.rows, session._run.history
        late = device.batch()
        late.add(device.tensor(1.0))
        rows.add(LateRow({}, lambda _: history.row({"step": 1}), late))
        manifest = Manifest(
            job="", lineage="line", parent=None, step=1, epoch=0, batch=0, reason="flushed",
            history_bytes=rows.mark(),
        )  # fmt: skip
        copy = tier.commit(tier.begin(manifest), manifest, is_urgent=False)
        assert copy.manifest.history_bytes == history.position_bytes > 0


@pytest.mark.usefixtures("patient")
def test_a_script_that_fails_before_the_resume_leaves_the_copy(tmp_path, base):
    leave_a_copy(tmp_path)
    with pytest.raises(UserError), trainerd.session(tmp_path, every=SELDOM, memory="auto"):
        raise UserError("no data")
    assert steps_in_memory(tmp_path) == 3


@pytest.mark.usefixtures("patient")
def test_an_error_of_the_script_makes_the_copied_boundary_durable(tmp_path, base):
    def fail(session):
        if session.step == 3:
            raise RuntimeError("the script fails")

    with pytest.raises(RuntimeError):
        train(tmp_path, after_step=fail)
    assert CheckpointStore.of_run(RunPaths(tmp_path)).checkpoints()[-1].step == 3
    assert list(base.glob("*/*")) == []


class RanksOnTwoMachines:
    rank = 0
    is_one_machine = False


@pytest.mark.parametrize("ranks", [None, RanksOnTwoMachines()], ids=["one node of two", "two machines"])
def test_ranks_on_several_machines_have_no_copies_and_are_told(tmp_path, base, capfd, ranks):
    place = {"node": 0} if ranks is None else {}
    tier, _, _ = tier_of(tmp_path, ranks=ranks, **place)
    tier.open()
    assert not tier.is_on
    assert "no copies are kept in memory: the ranks are on several nodes" in capfd.readouterr().err


def tier_of(run_dir, *, ranks=None, **place):
    """Return the copies of a run, and its checkpoints, as this process has them as one of several ranks.

    Args:
        run_dir: The run folder.
        ranks: All ranks, as this one sees them.
        place: Fields of the environment that say which of them this process is, and where.
    """
    settings = resolve_settings(
        run_dir=run_dir, seed=0, every=None, keep_last=3, keep_best=None, keep_every=None, memory="auto",
        grace_s=None, environ={},
    )  # fmt: skip
    settings = replace(settings, environment=replace(settings.environment, **place))
    parts = RunParts(settings, None)
    disk = parts.checkpoints.store
    return module.MemoryTier(settings, disk, parts.rows, parts.history, ranks=ranks), disk, parts


@pytest.mark.parametrize(
    ("error", "rank", "is_kept"),
    [
        (RankLostError("rank 1 has ended"), 0, True),
        (AbandonedError(), 0, True),
        (OSError("rank 1 could not save its part"), 0, False),
        (OSError("no such folder"), 1, True),
    ],
    ids=["a rank is lost", "called off", "a problem", "a problem of another rank than rank 0"],
)
@pytest.mark.usefixtures("patient")
def test_copies_stay_when_a_rank_is_lost_and_go_where_they_do_not_work(
    tmp_path, base, capfd, error, rank, is_kept
):
    leave_a_copy(tmp_path)
    tier, disk, _ = tier_of(tmp_path, rank=0)
    with disk.lock():
        tier.open()
        tier._settings = tier_of(tmp_path, rank=rank)[0]._settings
        tier.ended(error, 0.0)
        assert steps_in_memory(tmp_path) == (3 if is_kept else None)
        assert ("no copies are kept in memory" in capfd.readouterr().err) == (not is_kept)
        tier.close()


def brought_back(run_dir, harm):
    """Let rank 0 of two bring a copy to disk, and rank 1 wait for it; return what each makes of it."""
    words = HashStore()
    all_ranks = [Ranks(words, rank=rank, world_size=2) for rank in range(2)]
    for ranks in all_ranks:
        ranks._peers = {1 - ranks.rank: None}  # on this machine; none is looked at here
        ranks.look_for_the_lost = lambda: None
    first, disk, parts = tier_of(run_dir, ranks=all_ranks[0])
    second, _, _ = tier_of(run_dir, ranks=all_ranks[1], rank=1)

    def write_back(tier):
        try:
            return tier.write_back()
        except (OSError, CorruptError) as error:
            return error

    with disk.lock():
        disk.take_over()
        first.open()
        parts.history.open()
        checkpoint, _ = first.find(lambda copy: read_verified(copy, 0), lambda _bytes: None)
        copy = first.copy_of(checkpoint)
        second.follow(checkpoint)
        assert second.is_write_back_due
        assert second.returned == first.returned == checkpoint.name
        harm(copy.path)
        with futures.ThreadPoolExecutor(2) as pool:
            found = list(pool.map(write_back, (second, first)))
        first.close()
        parts.history.close()
    return found


@pytest.mark.usefixtures("patient")
def test_the_other_ranks_wait_until_rank_0_has_brought_the_copy_to_disk(tmp_path, base):
    leave_a_copy(tmp_path)
    second, first = brought_back(tmp_path, lambda _folder: None)
    assert (first.step, second.name, second.manifest) == (3, first.name, first.manifest)
    assert steps_in_memory(tmp_path) is None


@pytest.mark.usefixtures("patient")
def test_the_other_ranks_fail_with_rank_0_where_it_cannot_bring_the_copy_to_disk(tmp_path, base):
    leave_a_copy(tmp_path)
    second, first = brought_back(tmp_path, lambda folder: (folder / "rank-00000.json").write_bytes(b"{}"))
    assert isinstance(first, CorruptError)
    assert isinstance(second, OSError)
    assert "rank 0" in str(second)


@pytest.mark.usefixtures("patient")
def test_a_copy_that_a_rank_cannot_read_is_refused_once_and_is_gone(tmp_path, base, capfd):
    leave_a_copy(tmp_path)
    tier, disk, parts = tier_of(tmp_path)
    with disk.lock():
        tier.open()
        parts.history.open()
        found = tier.find(lambda copy: read_verified(copy, 0), lambda _bytes: None)
        assert tier.copy_of(found[0]).step == 3
        tier.refuse("rank 1: damaged")
        assert "a copy in memory is not used: step-000000003: rank 1: damaged" in capfd.readouterr().err
        assert (tier.returned, tier.is_write_back_due) == (None, False)
        assert tier.copy_of(found[0]) is None
        assert tier.find(lambda copy: read_verified(copy, 0), lambda _bytes: None) is None
        tier.close()
        parts.history.close()


@pytest.mark.parametrize("word", ["on", "", "AUTO"])
def test_a_setting_that_is_unknown_is_refused(tmp_path, word):
    with pytest.raises(UserError, match=r"session\(memory="):
        trainerd.session(tmp_path, memory=word)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("has_mirror", [False, True])
def test_with_a_mirror_a_copy_is_on_disk_before_it_is_restored_and_else_behind_the_first_step(
    tmp_path, base, has_mirror
):
    leave_a_copy(tmp_path / "run")
    seen = []

    def look(session):
        on_disk = [each.step for each in CheckpointStore.of_run(RunPaths(tmp_path / "run")).checkpoints()]
        seen.append((session.step, session.resumed_from, on_disk))

    mirror = f"file://{tmp_path}/mirror" if has_mirror else None
    train(tmp_path / "run", after_step=look, mirror=mirror)
    step, resumed_from, on_disk = seen[0]
    assert (step, resumed_from.name) == (3, "step-000000003")
    assert on_disk == ([3] if has_mirror else [])
    assert seen[1][2] == [3]
