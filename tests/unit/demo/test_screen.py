"""What the demo shows of a job, whatever is known of it so far."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chaos.demo.screen import Screen, progress_table, progress_words

UNKNOWN = {
    "name": "mnist",
    "state": "starting",
    "attempt": 1,
    "epoch": None,
    "epochs": None,
    "step": None,
    "batch": None,
    "batches": None,
    "loss": None,
    "checkpoint_step": None,
}
RUNNING = UNKNOWN | {
    "state": "running",
    "epoch": 0,
    "epochs": 2,
    "step": 12,
    "batch": 12,
    "batches": 30,
    "loss": 1.25,
    "checkpoint_step": 8,
}
AT_THE_END = RUNNING | {"state": "finished", "epoch": 2, "step": 60, "batch": 0}
LOSS_IS_NAN = RUNNING | {"loss": "nan"}


def rendered(part: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize("job", [UNKNOWN, RUNNING, AT_THE_END, LOSS_IS_NAN])
def test_every_state_of_knowledge_can_be_shown(job: dict[str, Any]) -> None:
    assert job["state"] in rendered(progress_table([job]))
    assert job["state"] in progress_words(job)


def test_a_finished_job_is_not_in_an_epoch_beyond_the_last() -> None:
    assert "2/2" in rendered(progress_table([AT_THE_END]))


def test_without_a_terminal_progress_is_a_line_only_when_something_has_changed() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, force_terminal=False, width=120))
    with screen:
        for job in (RUNNING, RUNNING, RUNNING | {"step": 13}, RUNNING | {"checkpoint_step": 16}):
            screen.show([job])
    lines = out.getvalue().splitlines()
    assert [line.split()[-1] for line in lines] == ["8", "16"]


def test_the_picture_holds_the_timeline_and_the_frozen_progress(tmp_path: Path) -> None:
    screen = Screen(Console(file=io.StringIO(), force_terminal=False))
    screen.say("dropped mnist.yaml")
    screen.show([RUNNING])
    screen.freeze()
    screen.show([AT_THE_END])
    screen.conclude("EQUAL", [("weights", "mnist", "xxh3-128:00")], is_good=True)
    screen.save_svg(tmp_path / "demo.svg")
    picture = (tmp_path / "demo.svg").read_text().replace("&#160;", " ")
    assert all(text in picture for text in ("dropped mnist.yaml", "running", "EQUAL", "xxh3-128:00"))
    assert "finished" not in picture
