"""A report of a drill as one page, with a plot of the loss. Pure."""

from __future__ import annotations

import html
import math
import time
from typing import TYPE_CHECKING, Final

from trainerd.contract.safe_text import safe_text
from trainerd.drill.report_text import closing_line, explanations, table_rows

if TYPE_CHECKING:
    from trainerd.drill.drill_report import DrillReport

_WIDTH: Final = 720
_HEIGHT: Final = 240
_MARGIN: Final = 44

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .8rem .3rem 0 }
th { border-bottom: 1px solid #999 } td:nth-child(n+3), th:nth-child(n+3) { text-align: right }
.exact { color: #176f2c }
.different, .refused { color: #b3261e; font-weight: 600 } .not-run, .unchecked { color: #777 }
pre { white-space: pre-wrap; background: #f4f4f4; padding: .8rem } svg { width: 100%; height: auto }
"""


def page(report: DrillReport) -> str:
    """Return the page. It loads nothing."""
    command = _text(" ".join(report.command))
    when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(report.wall_s))
    rows = "\n".join(
        f'<tr class="{each.verdict}">' + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
        for each, row in zip(report.faults, table_rows(report), strict=True)
    )
    details = "\n".join(map(_text, explanations(report)))
    found = f"<pre>{details}</pre>" if details else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Drill: {report.verdict}</title><style>{_STYLE}</style></head>
<body>
<h1>Drill: <span class="{report.verdict}">{report.verdict}</span></h1>
<p><code>{command}</code><br>{when}, {_text(report.horizon)}, in {report.took_s:.0f} s</p>
<table><tr><th>Fault</th><th>Result</th><th>Steps lost</th><th>Back after</th></tr>
{rows}
</table>
<p>{_text(closing_line(report))}</p>
{found}
{_plot(report)}
</body></html>
"""


def _plot(report: DrillReport) -> str:
    """Return the loss of the undisturbed run, with a line at the first difference of each fault."""
    points = [(step, loss) for step, loss in report.losses if math.isfinite(loss)]
    if len(points) < 2:
        return ""
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    low, high = min(losses), max(losses)

    def x_of(step: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * (step - steps[0]) / max(steps[-1] - steps[0], 1)

    def y_of(loss: float) -> float:
        return _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (loss - low) / ((high - low) or 1.0)

    line = " ".join(f"{x_of(step):.1f},{y_of(loss):.1f}" for step, loss in points)
    marks = []
    for each in report.faults:
        first = next((one for one in each.compared.differences if one.step is not None), None)
        if first is not None and first.step is not None:
            x = x_of(min(max(first.step, steps[0]), steps[-1]))
            title = _text(f"{each.title}: {first}")
            marks.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_MARGIN}" y2="{_HEIGHT - _MARGIN}" stroke="#b3261e" '
                f'stroke-dasharray="4 3"><title>{title}</title></line>'
            )
    return f"""<h2>Loss of the undisturbed run</h2>
<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Loss by step, and first differences">
<polyline fill="none" stroke="#1f5fa8" stroke-width="1.5" points="{line}"/>
{"".join(marks)}
<text x="{_MARGIN}" y="{_HEIGHT - 16}" font-size="12">step {steps[0]:g}</text>
<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 16}" font-size="12" text-anchor="end">step {steps[-1]:g}</text>
<text x="4" y="{y_of(high) + 4:.1f}" font-size="12">{high:.3g}</text>
<text x="4" y="{y_of(low) + 4:.1f}" font-size="12">{low:.3g}</text>
</svg>"""


def _text(text: str) -> str:
    return html.escape(safe_text(text))
