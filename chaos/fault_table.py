"""The table of faults in `chaos/README.md`, made from the code.

`python -m chaos.fault_table` brings it up to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from chaos.faults import REGISTRY, Fault
from chaos.scenario import load_all

PAGE: Final = Path(__file__).parent / "README.md"
BEGIN: Final = "<!-- faults: made by `python -m chaos.fault_table` -->"
END: Final = "<!-- end of faults -->"


def table() -> str:
    """Return the table: each fault, what must come of it, and where it is played."""
    lines = [
        "| fault | what happens | the attempt is judged | scenarios | in the soak |",
        "|---|---|---|---|---|",
    ]
    played: dict[str, list[str]] = {}
    for scenario in load_all():
        names = {planned.fault for planned in scenario.strikes}
        for name in names | ({"failpoint"} if scenario.failpoints else set()):
            played.setdefault(name, []).append(scenario.name)
    for fault in REGISTRY.values():
        scenarios = ", ".join(played.get(fault.name, []))
        soak = "yes" if fault.soak_weight else ""
        lines.append(f"| `{fault.name}` | {fault.what} | {_verdict(fault)} | {scenarios} | {soak} |")
    return "\n".join(lines)


def _verdict(fault: Fault) -> str:
    return " or ".join(fault.verdicts) if fault.verdicts else "it goes on"


def page_with_table(page: str) -> str:
    """Return the page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
