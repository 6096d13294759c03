"""HTTP and SMTP servers on loopback that answer as they are told, and note what they were sent."""

from __future__ import annotations

import contextlib
import socketserver
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What is answered, after `delay_s`."""

    status: int = 200
    body: bytes = b""
    delay_s: float = 0.0


@dataclass
class HttpFake:
    """`answer` is called with each request."""

    answer: object = lambda _asked: Answer()
    asked: deque[Asked] = field(default_factory=deque)
    url: str = ""


@contextlib.contextmanager
def http_fake(answer=None):
    fake = HttpFake(answer or (lambda _asked: Answer()))

    class Handler(BaseHTTPRequestHandler):
        def _any(self):
            length = int(self.headers.get("Content-Length") or 0)
            asked = Asked(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length),
            )
            fake.asked.append(asked)
            answer = fake.answer(asked)
            time.sleep(answer.delay_s)
            with contextlib.suppress(OSError):
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = _any  # noqa: N815

        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class SmtpFake:
    """Takes mail; `reply` answers what follows DATA."""

    port: int = 0
    mails: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    reply: str = "250 taken"
    greeting_delay_s: float = 0.0
    auth_reply: str = "535 no"


@contextlib.contextmanager
def smtp_fake(**fields):
    fake = SmtpFake(**fields)

    class Handler(socketserver.StreamRequestHandler):
        def say(self, text):
            self.wfile.write(f"{text}\r\n".encode())

        def handle(self):
            with contextlib.suppress(OSError):
                time.sleep(fake.greeting_delay_s)
                self.say("220 fake")
                while line := self.rfile.readline().decode().strip():
                    verb = line.upper()
                    if verb.startswith(("EHLO", "HELO")):
                        self.say("250-fake\r\n250 AUTH PLAIN")
                    elif verb.startswith("AUTH"):
                        self.say(fake.auth_reply)
                    elif verb.startswith("RCPT"):
                        fake.recipients.append(line)
                        self.say("250 ok")
                    elif verb == "DATA":
                        self.say("354 go on")
                        lines = []
                        while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                            lines.append(text)
                        fake.mails.append("\n".join(lines))
                        self.say(fake.reply)
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 ok")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    fake.port = server.server_address[1]
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
