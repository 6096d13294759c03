"""Which sources a configuration names, and which cloud this machine is in by its firmware."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.supervisor.preemption_notices.aws_source import AwsSource
from trainerd.supervisor.preemption_notices.azure_source import AzureSource
from trainerd.supervisor.preemption_notices.gcp_source import GcpSource

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from trainerd.contract.clock import Clock
    from trainerd.supervisor.preemption_notices.taking import TakingSource

DMI: Final = Path("/sys/class/dmi/id")

_AZURE_TAG: Final = "7783-7084-3265-9085-8269-3286-77"
"""Asset tag of every virtual machine of Azure; other machines of the same vendor have another."""
_FIELDS: Final = (
    "sys_vendor",
    "product_name",
    "product_version",
    "bios_vendor",
    "bios_version",
    "board_vendor",
)
_TEXT_BYTES_MAX: Final = 4096


def cloud_of(dmi: Path = DMI) -> Literal["aws", "gcp", "azure"] | None:
    """Return the cloud that the firmware names, None if it names none. Sends nothing."""
    texts = {name: _read(dmi / name).lower() for name in _FIELDS}
    if _read(dmi / "chassis_asset_tag") == _AZURE_TAG:
        return "azure"
    if texts["product_name"] == "google compute engine" or texts["sys_vendor"] == "google":
        return "gcp"
    if any("amazon" in text for text in texts.values()):
        return "aws"
    return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_TEXT_BYTES_MAX).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def cloud_sources(
    providers: Iterable[str],
    *,
    clock: Clock,
    rebalance: Literal["hold", "drain", "ignore"],
    dmi: Path = DMI,
) -> list[TakingSource]:
    """Return a source for each cloud that is named, `auto` for the one that this machine is in."""
    names = dict.fromkeys(cloud_of(dmi) if name == "auto" else name for name in providers)
    found: list[TakingSource] = []
    for name in names:
        match name:
            case "aws":
                found.append(AwsSource(clock, rebalance))
            case "gcp":
                found.append(GcpSource(clock))
            case "azure":
                found.append(AzureSource(clock))
    return found
