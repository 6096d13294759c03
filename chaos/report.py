"""The report: one page of HTML with nothing outside it, light or dark as the reader has it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

from chaos.curves import Curves, curves_of, draw
from chaos.table import HEADINGS, rows_of
from trainerd.contract.counted import counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLOTS_MAX: Final = 40
PAGE: Final = "report.html"

STYLE: Final = """
:root { color-scheme: light dark; --text: #1d2430; --soft: #5d6878; --back: #fff; --card: #f5f7fa; --line: #dde2ea;
        --pale: #9db8e8; --dark: #1c4fa8; --bad: #c02f2f; --good: #1f7a44; --mark: #d9822b; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ee; --soft: #9aa5b5; --back: #12161c; --card: #1b212a;
        --line: #303947; --pale: #4b6aa3; --dark: #9cc0ff; --bad: #ff7b72; --good: #5fce8c; --mark: #f0a458; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--back); color: var(--text);
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.verdict { font-weight: 600; font-size: 1.1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; } code { font-size: .9em; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 11px; fill: var(--soft); }
svg path { fill: none; stroke-linejoin: round; } .grid { stroke: var(--line); }
.undisturbed { stroke: var(--pale); stroke-width: 5; } .disturbed { stroke: var(--dark); stroke-width: 1.4; }
.lost { fill: none; stroke: var(--bad); } .restart line { stroke: var(--mark); stroke-dasharray: 3 3; }
.restart circle { fill: var(--mark); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; color: var(--soft); font-size: .85rem; margin: .3rem 0 .6rem; }
.key svg { display: inline-block; width: 26px; height: 12px; vertical-align: middle; margin-right: .35rem; }
"""  # noqa: E501 - a stylesheet, one rule a line

KEY: Final = """<div class="key">
<span><svg viewBox="0 0 26 12"><path class="undisturbed" d="M0 6H26"/></svg>undisturbed</span>
<span><svg viewBox="0 0 26 12"><path class="disturbed" d="M0 6H26"/></svg>disturbed</span>
<span><svg viewBox="0 0 26 12"><circle class="lost" cx="13" cy="6" r="3"/></svg>lost, and run again</span>
<span><svg viewBox="0 0 26 12"><g class="restart"><line x1="13" x2="13" y1="0" y2="12"/><circle cx="13" cy="4" r="3.5"/></g></svg>restart</span>
</div>"""  # noqa: E501 - one entry of the key a line


def write_report(
    root: Path,
    results: Mapping[str, Any],
    *,
    title: str,
    summary: str,
    folders: Mapping[str, tuple[Path, Path]],
) -> Path:
    """Write the page; return where it is.

    Args:
        root: The folder to write it to.
        results: As they are written down: `runs`, each with `strikes`, `outcomes`, `recoveries` and `checks`.
        title: Of the page.
        summary: One sentence of figures.
        folders: The run folder and that of the undisturbed run, by job.
    """
    runs = list(results["runs"])
    broken = [run for run in runs if not _is_held(run)]
    shown = sorted(runs, key=lambda run: (_is_held(run), -run["attempts"]))[:PLOTS_MAX]
    verdict = (
        f'<p class="verdict bad">{len(broken)} of {len(runs)} runs broke an invariant</p>'
        if broken
        else f'<p class="verdict good">every invariant held in all of {len(runs)} runs</p>'
    )
    more = f'<p class="soft">The other {len(runs) - len(shown)} runs are in the JSON beside this page.</p>'
    page = "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>{verdict}",
            f'<p class="soft">{html.escape(summary)}</p>',
            "<h2>Faults</h2>",
            _table(runs),
            '<p class="soft">Medians, and the worst in brackets.</p>',
            "<h2>Runs</h2>",
            KEY,
            *(_run(run, folders.get(run["job"]), is_open=number == 0) for number, run in enumerate(shown)),
            more if len(shown) < len(runs) else "",
            "</body></html>",
        ]
    )
    path = root / PAGE
    path.write_text(page, encoding="utf-8")
    return path


def _is_held(run: Mapping[str, Any]) -> bool:
    return all(check["is_held"] for check in run["checks"])


def _table(runs: list[Mapping[str, Any]]) -> str:
    heads = "".join(_cell("th", name, number) for number, name in enumerate(HEADINGS))
    lines = [
        "<tr>" + "".join(_cell("td", text, number) for number, text in enumerate(row.cells())) + "</tr>"
        for row in rows_of(runs)
    ]
    return f'<div class="wide"><table class="faults"><tr>{heads}</tr>{"".join(lines)}</table></div>'


def _cell(tag: str, text: str, column: int) -> str:
    kind = ' class="number"' if column in {1, 3, 4} else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


def _run(run: Mapping[str, Any], folders: tuple[Path, Path] | None, *, is_open: bool) -> str:
    is_held = _is_held(run)
    said = '<span class="good">held</span>' if is_held else '<span class="bad">violated</span>'
    attempts = counted(run["attempts"], "attempt")
    what = f": {html.escape(run['what'])}" if run.get("what") else ""
    checks = "".join(
        "<tr><td "
        f'class="{"good" if check["is_held"] else "bad"}">{"held" if check["is_held"] else "violated"}</td>'
        f"<td>{html.escape(check['name'])}</td><td><code>{html.escape(str(check['found']))}</code></td></tr>"
        for check in run["checks"]
    )
    strikes = "".join(
        f"<tr><td>{html.escape(strike['fault'])}</td><td>attempt {strike['attempt']}</td>"
        f"<td>{html.escape(strike['detail'])}</td></tr>"
        for strike in run["strikes"]
    )
    curves = _curves(run, folders)
    plot = draw(curves, title=f"loss of {run['job']}, disturbed and undisturbed") if curves else ""
    return (
        f"<details{' open' if is_open or not is_held else ''}><summary>{said} "
        f"<b>{html.escape(run['job'])}</b>{what}"
        f' <span class="soft">{attempts}</span></summary>{plot}'
        f'<div class="wide"><table>{strikes}</table></div><div '
        f'class="wide"><table>{checks}</table></div></details>'
    )


def _curves(run: Mapping[str, Any], folders: tuple[Path, Path] | None) -> Curves | None:
    if folders is None:
        return None
    try:
        return curves_of(*folders, run["outcomes"])
    except (OSError, ValueError, KeyError):
        return None
