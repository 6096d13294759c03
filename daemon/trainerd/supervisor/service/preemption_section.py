"""The section of the configuration that says who announces that this machine is taken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator

from trainerd.supervisor.preemption_notices.cloud import cloud_sources
from trainerd.supervisor.preemption_notices.logind_source import LogindSource
from trainerd.supervisor.preemption_notices.own_sources import FileNoticeSource, UrlNoticeSource
from trainerd.supervisor.specs.document import kind_name
from trainerd.supervisor.specs.fields import Duration, FilePath, SomeDuration, as_words
from trainerd.supervisor.specs.hook_fields import Url, with_absolute
from trainerd.supervisor.specs.section import Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.contract.clock import Clock
    from trainerd.supervisor.preemption_notices.taking import TakingSource

Provider = Literal["auto", "aws", "gcp", "azure", "logind"]


class FileSource(Section):
    """A file that is there while the machine is about to be taken."""

    file: FilePath = Field(
        description="A file whose existence is a notice. Its text may name a time and a reason "
        "(docs/notices.md)."
    )
    notice: SomeDuration = Field(
        30.0,
        description="Time from the modification of the file until the machine is taken, if the "
        "file names no time.",
    )


class UrlSource(Section):
    """A URL that answers with a notice while the machine is about to be taken."""

    url: Url = Field(description="A URL that is requested every few seconds.")
    notice: SomeDuration = Field(
        30.0,
        description="Time from the first answer until the machine is taken, if the answer names no time.",
    )


def _source(value: Any, _check: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, FileSource | UrlSource) or value in get_args(Provider):
        return value
    if isinstance(value, dict) and "file" in value:
        return FileSource.model_validate(value)
    if isinstance(value, dict) and "url" in value:
        return UrlSource.model_validate(value)
    raise ValueError(
        "expected 'auto', 'aws', 'gcp', 'azure', 'logind', {file = \"/run/preempted\"} or "
        f'{{url = "https://…"}}, not {kind_name(value)}'
    )


def _distinct(value: list[Any]) -> list[Any]:
    if len({repr(one) for one in value}) < len(value):
        raise ValueError("a source is named twice")
    return value


Source = Annotated[Provider | FileSource | UrlSource, WrapValidator(_source)]


def sources_alone(value: Any) -> Any:
    """Take a list of sources, or the name of one, for a whole section."""
    return {"sources": as_words(value)} if isinstance(value, str | list) else value


class PreemptionSection(Section):
    """Who announces that this machine is taken, and what is done about it."""

    sources: Annotated[list[Source], BeforeValidator(as_words), AfterValidator(_distinct)] = Field(
        [],
        description="Sources to ask: `aws`, `gcp`, `azure`, `logind`, `{file = …}`, `{url = …}`; "
        "`auto` is the "
        'cloud that the machine\'s firmware names. `preemption = ["aws"]` is short for this.',
    )
    margin: Duration = Field(5.0, description="Time before the deadline by which all jobs are to have left.")
    rebalance: Literal["hold", "drain", "ignore"] = Field(
        "hold",
        description="Action at a rebalance recommendation of AWS, which has no deadline: start no "
        "job (`hold`), also drain running jobs (`drain`), or nothing (`ignore`).",
    )

    def in_folder(self, folder: Path) -> Self:
        """Return the section with paths that are relative to `folder` made absolute."""
        sources = [
            with_absolute(source, "file", folder) if isinstance(source, FileSource) else source
            for source in self.sources
        ]
        return self if sources == self.sources else self.model_copy(update={"sources": sources})


def taking_sources(
    section: PreemptionSection, clock: Clock, *, has_left: Callable[[], bool]
) -> list[TakingSource]:
    """Return the sources that a configuration names.

    Args:
        section: The configuration.
        clock: Tells the time.
        has_left: Returns whether no job has processes.
    """
    providers = [source for source in section.sources if isinstance(source, str)]
    found = cloud_sources(providers, clock=clock, rebalance=section.rebalance)
    if "logind" in providers:
        found.append(LogindSource(clock, has_left))
    for source in section.sources:
        if isinstance(source, FileSource):
            found.append(FileNoticeSource(source.file, source.notice))
        elif isinstance(source, UrlSource):
            found.append(UrlNoticeSource(source.url, source.notice, clock))
    return found
