"""A temporary copy of the tree, in which a mutant can be run without touching the original."""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mutants.mutant import Mutant

REPOSITORY = Path(__file__).parents[2]

COPIED = (
    "daemon",
    "tests",
    "chaos",
    "docs",
    "jobs",
    "systemd",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
)


class TreeCopy:
    """A copy of the repository in `root`, without what git ignores there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, root / name, symlinks=True, ignore=ignored)
            else:
                shutil.copy2(source, root / name)
        # By default a cached file is known by its time and size, which a mutant may share with the original.
        compileall.compile_dir(
            root / "daemon", quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH, legacy=False
        )

    @contextmanager
    def broken_by(self, mutant: Mutant | None) -> Iterator[None]:
        """Have a mutant in the copy, or none, for as long as this is held."""
        if mutant is None:
            yield
            return
        path = self.root / mutant.path
        original = path.read_text()
        path.write_text(mutant.applied_to(original))
        try:
            yield
        finally:
            path.write_text(original)

    def command(self, test_file: str) -> list[str]:
        """Return the command that runs one test file of the copy, until the first failure."""
        options = ["-q", "-x", "-m", "not slow", "-o", "timeout=60"]
        plugins = [
            "no:cacheprovider",
            "no:xdist",
            "no:schemathesis",
        ]  # which take longer than most of the files
        return [sys.executable, "-m", "pytest", *options, *(f"-p{name}" for name in plugins), test_file]

    def environment(self, environ: dict[str, str]) -> dict[str, str]:
        """Return an environment in which the copy wins over the installed package."""
        return environ | {
            "PYTHONPATH": f"{self.root / 'daemon'}:{self.root}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, test_file: str, environ: dict[str, str]) -> subprocess.Popen[str]:
        """Start one test file in a process group of its own."""
        return subprocess.Popen(
            self.command(test_file),
            cwd=self.root,
            env=self.environment(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
