"""The image of docs/engines/Containerfile: another user, no shell, and no signal that is lost."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from trainerd.contract.signals import STOP

REPOSITORY = Path(__file__).parents[3]
TEXT = (REPOSITORY / "docs" / "engines" / "Containerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def test_it_ends_with_a_user_and_without_a_shell():
    found = dict(instructions())
    assert found["USER"] == "10001:10001"
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(found["CMD"])[0] == "trainerd"
    assert [name for name, _ in instructions()].index("USER") > [name for name, _ in instructions()].index(
        "RUN"
    )


def test_its_entry_point_keeps_every_signal_that_asks_for_a_stop():
    program, blocked = json.loads(dict(instructions())["ENTRYPOINT"])
    assert program == "/usr/bin/env"
    names = blocked.removeprefix("--block-signal=").split(",")
    assert {signal.Signals[f"SIG{name}"] for name in names} == STOP


def test_what_it_copies_is_there_and_in_the_context():
    context = (REPOSITORY / ".dockerignore").read_text().splitlines()
    copied = [word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]]
    assert copied
    for path in copied:
        assert (REPOSITORY / path).exists()
        assert f"!{path}" in context
