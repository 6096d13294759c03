"""A report of a drill as lines of text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.contract.counted import all_of, counted
from trainerd.contract.safe_text import safe_line, safe_text

if TYPE_CHECKING:
    from trainerd.drill.drill_report import DrillReport, FaultResult

_MESSAGE_CHARACTERS_MAX: Final = 2000


def table_rows(report: DrillReport) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: fault, verdict, steps lost, time to return."""
    return [
        (
            each.title,
            each.verdict.replace("-", " "),
            "-" if each.steps_lost is None else str(each.steps_lost),
            "-" if each.return_s is None else f"{each.return_s:.1f} s",
        )
        for each in report.faults
    ]


def explanations(report: DrillReport) -> list[str]:
    """Return the lines below the table: what differs and why, and what was not run."""
    lines: list[str] = []
    for each in report.faults:
        if each.verdict == "different":
            lines += [f"{each.title}: different", *_differences(each)]
        elif each.verdict == "refused":
            message = safe_text(each.message, characters_max=_MESSAGE_CHARACTERS_MAX)
            lines += [f"{each.title}: refused", *(f"    {line}" for line in message.splitlines())]
    lines += [
        f"not run: {each.title}: {safe_line(each.message)}"
        for each in report.faults
        if each.verdict == "not-run"
    ]
    if report.left_out:
        names = ", ".join(map(safe_line, report.left_out))
        lines.append(
            f"not compared: {names}: differs between two undisturbed runs of equal state; name it in "
            "trainerd.session(uncompared=…)"
        )
    lines += [f"not compared: {safe_line(each)}" for each in report.unseen]
    return lines


def _differences(result: FaultResult) -> list[str]:
    lines = []
    differences = result.compared.differences
    if differences:
        lines.append(f"    first: {safe_line(str(differences[0]))}")
        # What differs in the state as well says which tensor it was.
        state = next((each for each in differences[1:] if each.kind == "state"), None)
        lines += [f"    state: {safe_line(str(state))}"] if state is not None else []
    elif not result.compared.states:
        lines.append("    no checkpoint of the same boundary was there to compare")
    for cause in result.causes:
        lines.append(f"    likely {safe_line(str(cause))}")
        lines += [f"        {safe_line(cause.hint)}"] if cause.hint else []
    return lines


def closing_line(report: DrillReport) -> str:
    """Return the last line: the verdict, and what it covers."""
    ran = [each for each in report.faults if each.verdict != "not-run"]
    struck = [each for each in ran if each.name != "undisturbed"]
    if report.verdict == "exact":
        # What holds of each run: a save that is due while another is in flight is left out.
        states = min(each.compared.states for each in ran)
        values = min(each.compared.values for each in ran)
        said_samples = ", their samples" if all(each.compared.samples for each in ran) else ""
        said_values = f" and {counted(values, 'logged number')}" if values else ""
        said_steps = f"{counted(report.steps, 'step')}, {counted(states, 'checkpoint')}"
        over = f"over {said_steps}{said_samples}{said_values}"
        if report.unfit:
            run = f"{len(struck)} of {counted(len(struck) + report.unfit, 'fault')} run"
            return f"exact ({run}): {over}; give a larger --budget"
        were_run = "that was run" if len(struck) == 1 else "that were run"
        return f"exact: {all_of(len(struck), 'fault')} {were_run}, {over}"
    if report.verdict == "unchecked":
        budget = "; give a larger --budget" if report.unfit else ""
        return f"unchecked: no fault was run, so nothing is known{budget}"
    if not struck:
        return "different: two undisturbed runs differ, so nothing could be compared"
    bad = [each for each in ran if each.verdict != "exact"]
    faults = counted(len(struck), "fault that was run", "faults that were run")
    return f"different: {len(bad)} of {faults} {'is' if len(bad) == 1 else 'are'} not exact"
