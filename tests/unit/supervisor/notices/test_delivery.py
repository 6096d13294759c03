"""One delivery over loopback or by a command: what arrives, and what is said when it fails."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.loopback_servers import Answer, http_fake, smtp_fake
from trainerd.contract.hooks import Hook
from trainerd.supervisor.notices.delivery import DeliveryError, MailServer, deliver
from trainerd.supervisor.notices.hook_command import RunningCommands
from trainerd.supervisor.notices.notice_rules import Notice
from trainerd.supervisor.notices.payloads import Origin

NOTICE = Notice("parked", "it <did> & \x1b[31mfailed", job="ant", attempt=3, state="parked", wall_s=1.8e9)


def send(hook, notice=NOTICE, mail=None, running=None):
    deliver(hook, notice, origin=Origin("box", "/state"), mail=mail, running=running or RunningCommands())


def refusal(hook, **options):
    with pytest.raises(DeliveryError) as caught:
        send(hook, **options)
    return caught.value


def test_a_webhook_is_posted_json_and_slack_its_own():
    with http_fake() as fake:
        hook = Hook("ops", "webhook", url=f"{fake.url}/T0/SECRET")
        send(hook)
        send(replace(hook, format="slack"))
    plain, slack = fake.asked
    assert (plain.method, plain.path, plain.headers["content-type"]) == (
        "POST",
        "/T0/SECRET",
        "application/json",
    )
    body = json.loads(plain.body)
    assert (body["format"], body["event"], body["job"], body["attempt"], body["host"], body["test"]) == (
        "trainerd.notice/1",
        "parked",
        "ant",
        3,
        "box",
        False,
    )
    assert body["time"] == "2027-01-15T08:00:00Z"
    text = json.loads(slack.body)["text"]
    assert "it &lt;did&gt; &amp; \\x1b[31mfailed" in text
    assert "*trainerd: ant: parked* on box" in text


@pytest.mark.parametrize(("status", "is_final"), [(500, False), (429, False), (404, True), (302, True)])
def test_an_answer_that_is_no_success_is_told_without_the_url(status, is_final):
    with http_fake(lambda _asked: Answer(status)) as fake:
        error = refusal(Hook("ops", "webhook", url=f"{fake.url}/T0/SECRET"))
    assert (str(error), error.is_final) == (f"the webhook answered {status}", is_final)


def test_a_refused_and_a_slow_webhook_are_told_without_the_url():
    error = refusal(Hook("ops", "webhook", url="http://127.0.0.1:9/T0/SECRET", limit_s=1))
    assert "refused" in str(error)
    assert "SECRET" not in str(error)
    with http_fake(lambda _asked: Answer(delay_s=1.0)) as fake:
        began = time.monotonic()
        error = refusal(Hook("ops", "webhook", url=f"{fake.url}/T0/SECRET", limit_s=0.1))
        assert time.monotonic() - began < 0.9
    assert "ReadTimeout" in str(error)
    assert not error.is_final


def test_the_url_may_be_in_a_file_that_only_its_owner_may_read(tmp_path):
    file = tmp_path / "url"
    with http_fake() as fake:
        file.write_text(f"{fake.url}/SECRET\n")
        file.chmod(0o600)
        send(Hook("ops", "webhook", url_file=str(file)))
        assert fake.asked[0].path == "/SECRET"
        file.chmod(0o644)
        error = refusal(Hook("ops", "webhook", url_file=str(file)))
    assert "open to all users" in str(error)
    assert "SECRET" not in str(error)
    file.write_text("SECRET")
    file.chmod(0o600)
    assert "SECRET" not in str(refusal(Hook("ops", "webhook", url_file=str(file))))
    assert "No such file" in str(refusal(Hook("ops", "webhook", url_file=str(tmp_path / "none"))))


def test_an_email_arrives_and_cannot_be_given_more_headers():
    with smtp_fake() as fake:
        mail = MailServer("127.0.0.1", fake.port, "trainerd@example.org", tls="none")
        hook = Hook("mail", "email", to=("me@example.org", "you@example.org"))
        send(hook, replace(NOTICE, job="ant\r\nBcc: evil@example.org"), mail=mail)
    (text,) = fake.mails
    head = text.partition("\n\n")[0]
    assert "Subject: trainerd: ant" in head
    assert not any(line.startswith("Bcc") for line in head.splitlines())
    assert [line.upper() for line in fake.recipients] == [
        "RCPT TO:<ME@EXAMPLE.ORG>",
        "RCPT TO:<YOU@EXAMPLE.ORG>",
    ]


def test_what_a_mail_server_says_is_told_without_the_password(tmp_path):
    hook = Hook("mail", "email", to=("me@example.org",), limit_s=0.2)
    with smtp_fake(reply="451 later") as fake:
        mail = MailServer("127.0.0.1", fake.port, "trainerd@example.org", tls="none")
        error = refusal(hook, mail=mail)
        assert (str(error), error.is_final) == ("127.0.0.1: 451 later", False)
        assert "STARTTLS" in str(refusal(hook, mail=replace(mail, tls="starttls")))
    with smtp_fake(auth_reply="535 wrong: SECRETWORD") as fake:
        mail = replace(mail, port=fake.port, user="me", password="SECRETWORD")
        error = refusal(hook, mail=mail)
        assert (str(error), error.is_final) == ("127.0.0.1: 535 wrong: (hidden)", True)
    with smtp_fake(greeting_delay_s=2.0) as fake:
        assert "timed out" in str(refusal(hook, mail=replace(mail, port=fake.port)))
    assert "[smtp]" in str(refusal(hook))


def test_a_command_does_not_speak_for_the_service(tmp_path, monkeypatch):
    ours = (
        "NOTIFY_SOCKET",
        "LISTEN_FDNAMES",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "SYSTEMD_EXEC_PID",
        "WATCHDOG_USEC",
    )
    for name in (*ours, "ORDINARY"):
        monkeypatch.setenv(name, "1")
    send(Hook("run", "command", command=("sh", "-c", "env > env"), folder=str(tmp_path)))
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert not names.intersection(ours)
    assert {"ORDINARY", "PATH", "TRAINERD_EVENT"} <= names


def test_a_command_gets_variables_and_json_and_its_failure_is_told(tmp_path):
    script = f"cat > {tmp_path}/in; env > {tmp_path}/env"
    send(Hook("run", "command", command=("sh", "-c", script), folder=str(tmp_path)))
    assert json.loads((tmp_path / "in").read_text())["event"] == "parked"
    variables = dict(
        line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line
    )
    assert (variables["TRAINERD_EVENT"], variables["TRAINERD_JOB"], variables["TRAINERD_ATTEMPT"]) == (
        "parked",
        "ant",
        "3",
    )
    assert variables["TRAINERD_STATE"] == "/state"  # so `trainerd` in a command finds this supervisor
    error = refusal(Hook("run", "command", command=("sh", "-c", "echo no cheese >&2; exit 3")))
    assert str(error) == "sh exited with 3: no cheese"
    error = refusal(Hook("run", "command", command=("/no/such/program",)))
    assert "cannot be started: No such file" in str(error)
    assert error.is_final


def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path):
    script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    began = time.monotonic()
    error = refusal(Hook("run", "command", command=("sh", "-c", script), limit_s=0.2))
    assert str(error) == "sh did not end within 0.2 s"
    assert time.monotonic() - began < 2
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while _lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_commands_are_killed_when_the_supervisor_leaves():
    running = RunningCommands()
    running.kill_all()
    began = time.monotonic()
    error = refusal(Hook("run", "command", command=("sleep", "60")), running=running)
    assert "signal 9" in str(error)
    assert time.monotonic() - began < 5
    assert running.pids == frozenset()


def test_desktop_notices_are_shown_by_notify_send(tmp_path, monkeypatch):
    tool = tmp_path / "notify-send"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/args\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    send(Hook("me", "desktop"))
    assert (tmp_path / "args").read_text().splitlines()[1:3] == ["--", "trainerd: ant: parked"]
