"""torch.distributed.checkpoint: checkpoints that appear as a whole, and are compared with digests when read.

All ranks write into a hidden folder beside the checkpoint. The coordinator puts the digests of all files into
it, syncs it and renames it: a crash at any moment leaves no checkpoint of that name, or all of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter

from trainerd.checkpoint.digest import digest_of_bytes, digest_of_file
from trainerd.contract.durable import make_directory, read_file, sync_directory, write_file
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from torch.distributed.checkpoint.metadata import Metadata
    from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
    from torch.distributed.checkpoint.storage import WriteResult
    from torch.futures import Future

FORMAT: Final = "trainerd.dcp/1"
DIGESTS: Final = "digests.json"
_METADATA: Final = ".metadata"


class StoreWriter(FileSystemWriter):
    """A storage writer for ``torch.distributed.checkpoint.save`` and ``async_save``.

    Args:
        path: Folder of the checkpoint, which must not exist. ``checkpoint_id`` of a save replaces it.
        options: For torch's `FileSystemWriter`, but for ``sync_files`` and ``overwrite``.

    Raises:
        UserError: ``sync_files`` or ``overwrite`` is given.
    """

    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        for name in ("overwrite", "sync_files"):
            if name in options:
                raise UserError(
                    f"StoreWriter({name}=...): a checkpoint is always synced, and never replaced",
                    hint=f"leave {name} out, and give each checkpoint a folder of its own",
                )
        super().__init__(path, sync_files=True, overwrite=True, **options)
        self._final = Path(path)
        self.path = _staging(self._final)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        super().reset(checkpoint_id)
        if checkpoint_id:
            self._final = Path(checkpoint_id)
            self.path = _staging(self._final)

    @property
    def checkpoint_id(self) -> Path:
        """Folder of the checkpoint."""
        return self._final

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Make the hidden folder of the save.

        Args:
            plan: As torch gives it.

        Raises:
            UserError: The checkpoint exists, or the save does not use collectives.
        """
        if not self.use_collectives:
            raise UserError(
                "StoreWriter commits a checkpoint for all ranks together",
                hint="leave use_collectives=False out",
            )
        if self._final.exists():
            raise UserError(
                f"{self._final} exists: StoreWriter replaces no checkpoint",
                hint="give each checkpoint a folder of its own, such as one named after the step",
            )
        make_directory(Path(self.path))
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        for left in Path(self.path).iterdir():  # by a save that was interrupted; no rank writes yet
            left.unlink()
        return super().prepare_global_plan(plans)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's files and their digests.

        Args:
            plan: As torch gives it.
            planner: As torch gives it.

        Raises:
            SpaceError: The disk is full or read-only.
        """
        written = super().write_data(plan, planner)
        names = {each.storage_data.relative_path for each in written.wait()}
        digests = {name: _entry(Path(self.path) / name) for name in sorted(names)}
        write_file(Path(self.path) / f"{plan.storage_data.prefix}{DIGESTS}", json.dumps(digests).encode())
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit the checkpoint, on the coordinator.

        Args:
            metadata: As torch gives it.
            results: As torch gives them.

        Raises:
            CorruptError: A file of another rank is not in the folder.
            SpaceError: The disk is full or read-only.
        """
        folder = Path(self.path)
        super().finish(metadata, results)
        files = {_METADATA: _entry(folder / _METADATA)}
        for part in sorted(folder.glob(f"*_{DIGESTS}")):
            files |= json.loads(read_file(part))
            part.unlink()
        names = {each.storage_data.relative_path for of_rank in results for each in of_rank}
        if missing := sorted(names - files.keys()):
            raise CorruptError(
                f"{self._final}: {missing[0]} of another rank is not in {folder}: do all ranks see that one?"
            )
        write_file(folder / DIGESTS, _document(files))
        sync_directory(folder)
        folder.rename(self._final)
        sync_directory(self._final.parent)


class StoreReader(FileSystemReader):
    """A storage reader for ``torch.distributed.checkpoint.load`` that compares each file with its digest.

    ``StoreReader(path)`` takes the folder of a checkpoint that a `StoreWriter` wrote. Each rank reads, and
    compares, the files that hold its part.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the metadata once they are compared with their digest.

        Args:
            args: As torch gives them.
            kwargs: As torch gives them.

        Raises:
            CorruptError: They are missing or damaged, or no `StoreWriter` has finished the checkpoint.
        """
        _check(Path(self.path), [_METADATA])
        return super().read_metadata(*args, **kwargs)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read this rank's files once they are compared with their digests.

        Args:
            plan: As torch gives it.
            planner: As torch gives it.

        Raises:
            CorruptError: A file is missing or damaged.
        """
        names = {self.storage_data[item.storage_index].relative_path for item in plan.items}
        _check(Path(self.path), sorted(names))
        return super().read_data(plan, planner)


def verify(path: str | os.PathLike[str]) -> None:
    """Read a checkpoint of a `StoreWriter`, all of it, and compare it with its digests.

    Args:
        path: Folder of the checkpoint.

    Raises:
        CorruptError: A file is missing, or is not what was written.
    """
    _check(Path(path))


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what a save that was interrupted has left of a checkpoint. Only while no rank writes it.

    Args:
        path: Folder that the checkpoint would have had.
    """
    shutil.rmtree(_staging(Path(path)), ignore_errors=True)


def _staging(final: Path) -> Path:
    return final.with_name(f".staging-{final.name}")


def _entry(path: Path) -> dict[str, Any]:
    size, digest = digest_of_file(path)
    return {"bytes": size, "digest": digest}


def _document(files: dict[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT, "digest": _digest_of(files), "files": files}, indent=1).encode()


def _digest_of(files: dict[str, Any]) -> str:
    return digest_of_bytes(json.dumps(files, sort_keys=True).encode())


def _digests(folder: Path) -> dict[str, Any]:
    path = folder / DIGESTS
    try:
        found = json.loads(read_file(path))
        files: dict[str, Any] = found["files"]
        is_sound = found["format"] == FORMAT and found["digest"] == _digest_of(files)
    except FileNotFoundError:
        raise CorruptError(f"{path} is missing: no StoreWriter has finished a checkpoint there") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CorruptError(f"{path} is damaged: {error}") from None
    if not is_sound:
        raise CorruptError(f"{path} is damaged, or of a newer trainerd: its digest or its format is another")
    return files


def _check(folder: Path, names: Sequence[str] | None = None) -> None:
    """Compare files with their digests, all that have one if no names are given."""
    digests = _digests(folder)
    for name in sorted(digests) if names is None else names:
        path, expected = folder / name, digests.get(name)
        if expected is None:
            raise CorruptError(f"{path}: {folder / DIGESTS} has no digest of it")
        try:
            found = _entry(path)
        except FileNotFoundError:
            raise CorruptError(f"{path} is missing") from None
        if found != expected:
            raise CorruptError(
                f"{path} is damaged: it has {found['bytes']} bytes with {found['digest']}, and {expected} "
                "was written"
            )
