"""Mutants of the commit: a checkpoint or a record that a power cut, a full disk or a flipped bit takes
away."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_STAGING = "checkpoint/staging.py"
_DURABLE = "contract/durable.py"
_TEST_STAGING = "tests/unit/checkpoint/test_checkpoint_staging.py"
_TEST_STORE = "tests/unit/checkpoint/test_checkpoint_store.py"
_TEST_DURABLE = "tests/unit/contract/test_durable.py"

COMMIT = (
    Mutant(
        "a file of a checkpoint is not synced",
        _STAGING,
        "                os.fsync(descriptor)\n                #",
        "                #",
        _TEST_STAGING,
    ),
    Mutant(
        "the read-back reads the page cache: no FADV_DONTNEED before it",
        _STAGING,
        "os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)",
        "pass",
        _TEST_STAGING,
    ),
    Mutant(
        "an error at the close of a file is swallowed",
        _STAGING,
        "            if kind is None:\n                raise",
        "            pass",
        _TEST_STAGING,
    ),
    Mutant(
        "the manifest is not synced",
        _STAGING,
        "            write_all(descriptor, text)\n            os.fsync(descriptor)",
        "            write_all(descriptor, text)",
        _TEST_STAGING,
    ),
    Mutant(
        "the names in the staging folder are not synced before the rename",
        _STAGING,
        "            sync_directory(self.path)\n",
        "",
        _TEST_STAGING,
    ),
    Mutant(
        "the rename of a checkpoint is not synced",
        _STAGING,
        "            sync_directory(self.directory)\n",
        "",
        _TEST_STAGING,
    ),
    Mutant(
        "a staging folder can be committed after a write that failed",
        _STAGING,
        "self._is_dead = True  # until all has gone well",
        "pass",
        _TEST_STAGING,
    ),
    Mutant(
        "a staging folder can be used after its commit",
        _STAGING,
        "self._is_dead = True  # it is used up, whatever happens now",
        "pass",
        _TEST_STAGING,
    ),
    Mutant(
        "a checkpoint is not read back",
        "checkpoint/store.py",
        "self.verify(read_checkpoint(checkpoint.path))",
        "pass",
        _TEST_STAGING,
    ),
    Mutant(
        "verification does not compare digests",
        "checkpoint/verify.py",
        "if digest != entry.digest:",
        "if False:",
        _TEST_STORE,
    ),
    Mutant(
        "verification ignores a file that was cut",
        "checkpoint/verify.py",
        "if size != entry.bytes:",
        "if size > entry.bytes:",
        _TEST_STORE,
    ),
    Mutant(
        "the folder of a record is not synced",
        _DURABLE,
        "        sync_directory(path.parent)\n    RECORD_DURABLE",
        "    RECORD_DURABLE",
        _TEST_DURABLE,
    ),
    Mutant(
        "a record is not synced before it is renamed",
        _DURABLE,
        "                RECORD_WRITTEN.hit()\n                os.fsync(descriptor)",
        "                RECORD_WRITTEN.hit()",
        _TEST_DURABLE,
    ),
    Mutant(
        "the rest of a short write is lost",
        _DURABLE,
        "view = view[os.write(descriptor, view) :]",
        "view = view[len(view) * bool(os.write(descriptor, view)) :]",
        _TEST_DURABLE,
    ),
    Mutant(
        "the name of a new folder is not synced",
        _DURABLE,
        "            sync_directory(folder.parent)\n",
        "",
        _TEST_DURABLE,
    ),
    Mutant(
        "a record that failed leaves its temporary file",
        _DURABLE,
        "temporary.unlink(missing_ok=True)",
        "pass",
        _TEST_DURABLE,
    ),
    Mutant(
        "former attempts are not fenced",
        "checkpoint/fence.py",
        "                for each in others:",
        "                for each in ():",
        "tests/unit/checkpoint/test_fence.py",
    ),
    Mutant(
        "an attempt that another one has overtaken goes on",
        "checkpoint/fence.py",
        "if all(each < name for each in others):",
        "if True:",
        "tests/unit/checkpoint/test_fence.py",
    ),
    Mutant(
        "a history is shared with the attempt before",
        "training/engine/history.py",
        "                renew_file(path)\n",
        "                pass\n",
        "tests/unit/training/engine/test_history_writer.py",
    ),
)
