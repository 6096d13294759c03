"""Chromium without a window, driven over a pipe: no package of its own is needed."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ANSWER_LIMIT_S = 60.0


def chromium_program() -> str | None:
    """Return the program, None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def _place(reads: int, writes: int) -> None:
    """Put two descriptors where the browser looks for them, wherever they are now."""
    reads, writes = (fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in (reads, writes))
    os.dup2(reads, 3)
    os.dup2(writes, 4)
    os.close(reads)
    os.close(writes)


class Chromium:
    """One page of a browser. Use it as a context manager."""

    def __init__(self, profile: Path, *, width: int = 1200, height: int = 900, is_dark: bool = False) -> None:
        self._numbers = itertools.count(1)
        self._rest = b""
        self.messages: list[dict] = []
        ours, theirs = os.pipe(), os.pipe()  # what it reads, what it writes
        program = chromium_program()
        assert program is not None
        self._process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            preexec_fn=lambda: _place(ours[0], theirs[1]),  # noqa: PLW1509 - it calls nothing of Python's own
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._out, self._in = ours[1], theirs[0]
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=theme)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str):
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, limit_s: float = ANSWER_LIMIT_S):
        """Return the value of an expression once it is true."""
        deadline_s = time.monotonic() + limit_s
        while not (value := self.ask(expression)):
            assert time.monotonic() < deadline_s, (
                f"{expression} stayed {value!r}: {self.ask('document.body.innerText')}"
            )
            time.sleep(0.1)
        return value

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def problems(self) -> list[str]:
        """Return what the browser complained about: exceptions, refused content, failed requests."""
        self.ask("1")
        found = []
        for message in self.messages:
            if message.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                found.append(message["params"]["entry"]["text"])
        return found

    def call(self, method: str, **parameters) -> dict:
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            request["sessionId"] = self._session
        os.write(self._out, json.dumps(request).encode() + b"\0")
        deadline_s = time.monotonic() + ANSWER_LIMIT_S
        while True:
            message = self._read(deadline_s)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.messages.append(message)

    def _read(self, deadline_s: float) -> dict:
        while b"\0" not in self._rest:
            left_s = deadline_s - time.monotonic()
            ready, _, _ = select.select([self._in], [], [], max(left_s, 0))
            assert ready, "chromium does not answer"
            data = os.read(self._in, 1 << 20)
            assert data, "chromium has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)
