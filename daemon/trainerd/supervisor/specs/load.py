"""Read one spec: bytes from a file that is trusted, a tree, a validated model, a resolved job."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trainerd.contract.names import check_name
from trainerd.contract.safe_text import safe_line
from trainerd.errors import SpecError, UserError
from trainerd.supervisor.specs import document, parsing
from trainerd.supervisor.specs.explanation import problems_of
from trainerd.supervisor.specs.meaning import meaning_digest
from trainerd.supervisor.specs.model import JobSpec
from trainerd.supervisor.specs.problems import Problem, ProblemsError, spec_error
from trainerd.supervisor.specs.processor_limit import processor_limit
from trainerd.supervisor.specs.resolve import resolve
from trainerd.supervisor.specs.trust import remedy_of_rights

if TYPE_CHECKING:
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.supervisor.specs.trust import TrustPolicy


@dataclass(frozen=True)
class ParsedSpec:
    """A spec that is valid in itself; whether it resolves depends on what is around it."""

    path: Path
    spec: JobSpec
    digest: str
    source: document.Document

    def resolve(self, trust: TrustPolicy | None) -> ResolvedJob:
        """Complete the spec with defaults and absolute paths.

        Raises:
            SpecError: Something that the spec names does not exist or may not be used.
        """
        try:
            return resolve(self.spec, path=self.path, digest=self.digest, trust=trust)
        except ProblemsError as error:
            raise _located(error, self.path, self.source) from None
        except (UserError, OSError):
            raise
        except Exception as error:  # as above
            raise _unforeseen(error, self.path, self.source) from error


def load_spec(path: Path, *, trust: TrustPolicy | None) -> ResolvedJob:
    """Read, validate and complete the spec at `path`.

    Args:
        path: A file whose name ends in one of `document.SUFFIXES`.
        trust: Whose files may be read; None reads files of all users, which is right for showing and wrong
            for running.

    Raises:
        SpecError: It cannot be accepted; the message names file, line and field of everything that is wrong.
        UntrustedError: Another user could have written it.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (links are kept: a spec's folder is where it was dropped)
    if trust is not None:
        try:
            trust.judge_folder(path.parent)
        except OSError as error:
            raise SpecError(f"cannot look at its folder: {error.strerror}", file=path) from error
    data, _ = read_bytes(path, trust)
    return parse_spec(path, data).resolve(trust)


def parse_spec(path: Path, data: bytes) -> ParsedSpec:
    """Validate the content of a spec, without a look at anything else.

    Raises:
        SpecError: It is not valid.
    """
    source = None
    if (meant := document.meant_suffix(path.name)) is not None:
        stem = path.name.rpartition(".")[0].removesuffix(meant)
        raise InvalidSpecError(
            f"a spec's name ends in one of {', '.join(document.SUFFIXES)}, not in {path.suffix!r}",
            file=path,
            hint=f"rename it to {stem}{meant}",
            claims=None,
        )
    try:
        with processor_limit(interrupts=not is_yaml(path)):
            source = parsing.parse(data, path.suffix.lower())
            spec = _validated(source)
            digest = meaning_digest(spec, path)
    except ProblemsError as error:
        raise _located(error, path, source) from None
    except Exception as error:  # whatever the file holds, it is a spec that cannot be accepted
        raise _unforeseen(error, path, source) from error
    return ParsedSpec(path, spec, digest, source)


def is_yaml(path: Path) -> bool:
    """Return whether a spec is YAML, whose reader looks at the clock itself."""
    return path.suffix.lower() in {".yaml", ".yml"}


def _unforeseen(error: Exception, path: Path, source: document.Document | None) -> InvalidSpecError:
    what = safe_line(f"{type(error).__name__}: {error}", characters_max=300)
    return InvalidSpecError(
        f"trainerd cannot read this: {what}",
        file=path,
        hint="this is a bug of trainerd: please report it with the file",
        claims=_claim(source),
    )


def _claim(source: document.Document | None) -> str | None:
    name = source.root.get("name") if source is not None and isinstance(source.root, dict) else None
    try:
        return check_name(name) if isinstance(name, str) else None
    except UserError:
        return None


class InvalidSpecError(SpecError):
    """A spec whose content is not valid.

    Args:
        claims: The name that it says its job has, though the rest of it is no good; None if it says none.
    """

    def __init__(self, message: str, *, claims: str | None, **place: Any) -> None:
        super().__init__(message, **place)
        self.claims = claims


def read_bytes(path: Path, trust: TrustPolicy | None) -> tuple[bytes, os.stat_result]:
    """Read a spec's bytes, at most one more than allowed, and what the file was just after.

    Never waits, whatever stands under that name: only a regular file is opened for good. Ownership is judged
    on the open file, so that no user can exchange it in between. The folder of `path` is not judged.

    Raises:
        SpecError: There is nothing, or no regular file.
        UntrustedError: Another user could have written it.
        OSError: It cannot be read, which says nothing about what it holds.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening: to open a device may set it going
            raise SpecError(
                f"is {_kind_of(path)}, not a file", file=path, hint="move it away, or put a spec there"
            )
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _translated(error, path) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SpecError("is not a file", file=path)
        if trust is not None:
            link = path if path.is_symlink() else None
            if link is not None:
                trust.judge_links(path)
            trust.judge(path, status, link=link)
        data = bytearray()
        while len(data) <= document.BYTES_MAX:
            chunk = os.read(descriptor, document.BYTES_MAX + 1 - len(data))
            if not chunk:
                break
            data += chunk
        return bytes(data), os.fstat(descriptor)
    finally:
        os.close(descriptor)


def claimed_name(path: Path, data: bytes) -> str | None:
    """Return the name that a spec says its job has, though the rest of it may be no good.

    None if it says none.
    """
    try:
        with processor_limit(interrupts=not is_yaml(path)):
            return _claim(parsing.parse(data, path.suffix.lower()))
    except Exception:  # noqa: BLE001 - then it says none that can be read
        return None


def _translated(error: OSError, path: Path) -> OSError | UserError:
    """Return what a failed look at `path` means: a mistake of the user's, or nothing known."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        if path.is_symlink():
            return SpecError(f"is a link to {path.readlink()}, which does not exist", file=path)
        return SpecError("there is no such file", file=path)
    if error.errno == errno.ELOOP:
        return SpecError("is a link that leads back to itself", file=path)
    if error.errno == errno.EACCES:
        return SpecError("may not be read by this user", file=path, hint=remedy_of_rights(path))
    return error


def _kind_of(path: Path) -> str:
    mode = path.stat().st_mode
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _validated(source: document.Document) -> JobSpec:
    try:
        return JobSpec.model_validate(source.root)
    except ValidationError as error:
        raise ProblemsError(*problems_of(error, source)) from None


def _located(error: ProblemsError, path: Path, source: document.Document | None) -> SpecError:
    """Name the file, and the line of each field that is known only by its place."""
    problems = [
        Problem(problem.message, problem.field, problem.line or source.line_of(problem.field), problem.hint)
        if source and problem.field
        else problem
        for problem in error.problems
    ]
    plain = spec_error(path, problems)
    return InvalidSpecError(
        plain.reason, file=path, line=plain.line, field=plain.field, hint=plain.hint, claims=_claim(source)
    )
