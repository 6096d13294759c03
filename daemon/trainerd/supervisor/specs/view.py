"""What the jobs folder says, as the supervisor sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainerd.contract.resolved import ResolvedJob


@dataclass(frozen=True)
class Accepted:
    """A spec that can run."""

    job: ResolvedJob

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def path(self) -> Path:
        return Path(self.job.spec_path)


@dataclass(frozen=True)
class Refused:
    """A spec that cannot run.

    Attributes:
        name: Under which it is shown: the name it had while it was good, or says it has, or one made from the
            file's name.
        path: The file.
        error_text: What is wrong and how to fix it, for the user.
    """

    name: str
    path: Path
    error_text: str


SpecReading = Accepted | Refused


@dataclass(frozen=True)
class FolderView:
    """What the jobs folder says.

    Attributes:
        specs: By name.
        unsettled: Files that are changing, could not be observed, or have just vanished.
        look_again_s: When another scan may settle some of them, in seconds; None if there are none.
    """

    specs: dict[str, SpecReading]
    unsettled: tuple[Path, ...] = ()
    look_again_s: float | None = None

    def is_removed(self, name: str, spec_path: str) -> bool:
        """Return whether the spec of job `name`, last read from `spec_path`, is gone for certain."""
        path = Path(spec_path)
        return (
            name not in self.specs
            and path not in self.unsettled
            and not any(
                isinstance(reading, Refused) and reading.path == path for reading in self.specs.values()
            )
        )
