"""Sources of notices against fake metadata servers on loopback, files and folders of firmware strings."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.loopback_servers import Answer, http_fake
from trainerd.supervisor.preemption_notices import metadata_http
from trainerd.supervisor.preemption_notices.aws_source import TOKEN_S, AwsSource
from trainerd.supervisor.preemption_notices.azure_source import AzureSource
from trainerd.supervisor.preemption_notices.cloud import cloud_of, cloud_sources
from trainerd.supervisor.preemption_notices.gcp_source import GcpSource
from trainerd.supervisor.preemption_notices.own_sources import FileNoticeSource, UrlNoticeSource
from trainerd.supervisor.preemption_notices.taking import NotSeenError, Taking

NOW = 1_800_000_000.0
AT = "2027-01-15T08:02:00Z"
HTML = Answer(200, b"<html>welcome to the hotel</html>")


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def wall_s(self):
        return NOW + self.now_s

    def monotonic_s(self):
        return self.now_s


class Aws:
    """IMDSv2: a token first, then what is set here by path."""

    def __init__(self):
        self.tokens = 0
        self.valid = ""
        self.pages = {}

    def __call__(self, asked):
        if asked.path == "/latest/api/token":
            if asked.method != "PUT" or "x-aws-ec2-metadata-token-ttl-seconds" not in asked.headers:
                return Answer(400)
            self.tokens += 1
            self.valid = f"token-{self.tokens}"
            return Answer(200, self.valid.encode())
        if asked.headers.get("x-aws-ec2-metadata-token") != self.valid:
            return Answer(401)
        return self.pages.get(asked.path.removeprefix("/latest/meta-data/"), Answer(404))


def answer(plain):
    return Answer(200, json.dumps(plain).encode())


def test_aws_gives_a_token_and_an_action_with_its_time():
    aws, clock = Aws(), Clock()
    with http_fake(aws) as fake:
        source = AwsSource(clock, url=fake.url)
        assert source.look() == source.look() == ()
        assert aws.tokens == 1
        aws.pages["spot/instance-action"] = answer({"action": "terminate", "time": AT})
        assert source.look() == (Taking("AWS", f"terminate {AT}", deadline_wall_s=NOW + 120),)
        aws.valid = "another"  # the server has forgotten the token
        assert len(source.look()) == 1
        assert aws.tokens == 2
        clock.now_s += TOKEN_S
        source.look()
        assert aws.tokens == 3


def test_a_rebalance_recommendation_holds_drains_or_is_ignored():
    aws = Aws()
    aws.pages["events/recommendations/rebalance"] = answer({"noticeTime": AT})
    with http_fake(aws) as fake:
        (hold,) = AwsSource(Clock(), "hold", fake.url).look()
        (drain,) = AwsSource(Clock(), "drain", fake.url).look()
        assert AwsSource(Clock(), "ignore", fake.url).look() == ()
    assert (hold.drains, drain.drains, hold.deadline_wall_s) == (False, True, None)


@pytest.mark.parametrize(
    "page",
    [
        Answer(500),
        HTML,
        Answer(200, b"[]"),
        answer({"action": "dance", "time": AT}),
        answer({"action": "stop"}),
        answer({"action": "stop", "time": "soon"}),
        Answer(200, b"[" * 50_000),
        Answer(200, b" " * 100_000),
        Answer(302),
    ],
    ids=["500", "html", "list", "action", "no-time", "garbage-time", "deep", "long", "redirect"],
)
def test_what_aws_cannot_mean_is_no_notice(page):
    aws = Aws()
    aws.pages["spot/instance-action"] = page
    with http_fake(aws) as fake, pytest.raises(NotSeenError):
        AwsSource(Clock(), url=fake.url).look()


def test_a_server_that_hangs_refuses_or_gives_no_token_is_no_notice(monkeypatch):
    monkeypatch.setattr(metadata_http, "ASK_LIMIT_S", 0.1)
    with http_fake(lambda _asked: Answer(delay_s=1.0)) as fake, pytest.raises(NotSeenError, match="Timeout"):
        GcpSource(Clock(), fake.url).look()
    with pytest.raises(NotSeenError, match="ConnectError"):
        GcpSource(Clock(), "http://127.0.0.1:9").look()
    with (
        http_fake(lambda _asked: Answer(403)) as fake,
        pytest.raises(NotSeenError, match="no token: status 403"),
    ):
        AwsSource(Clock(), url=fake.url).look()


def test_a_proxy_is_not_asked_for_the_metadata_of_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with http_fake(Aws()) as fake:
        assert AwsSource(Clock(), url=fake.url).look() == ()


def test_google_says_that_and_the_time_counts_from_when_it_was_first_seen():
    pages, clock = {"preempted": b"FALSE", "maintenance-event": b"NONE"}, Clock()

    def google(asked):
        if asked.headers.get("metadata-flavor") != "Google":
            return Answer(403)
        return Answer(200, pages[asked.path.removeprefix("/computeMetadata/v1/instance/")])

    with http_fake(google) as fake:
        source = GcpSource(clock, fake.url)
        assert source.look() == ()
        pages["maintenance-event"] = b"MIGRATE_ON_HOST_MAINTENANCE"
        assert source.look() == ()
        pages["preempted"] = b"TRUE\n"
        first = source.look()
        clock.now_s += 5
        assert source.look() == first
        assert first[0].deadline_wall_s == NOW + 30
        pages["maintenance-event"] = b"TERMINATE_ON_HOST_MAINTENANCE"
        assert [one.deadline_wall_s for one in source.look()] == [NOW + 30, NOW + 65]
        pages["preempted"] = b"<html>"
        with pytest.raises(NotSeenError):
            source.look()


def azure_event(**fields):
    plain = {
        "EventId": "602d9444",
        "EventType": "Preempt",
        "EventStatus": "Scheduled",
        "ResourceType": "VirtualMachine",
        "Resources": ["spot_0"],
        "NotBefore": "Fri, 15 Jan 2027 08:02:00 GMT",
    }
    return plain | fields


def azure(events, name=b"Spot_0"):
    def serve(asked):
        if asked.headers.get("metadata") != "true":
            return Answer(400)
        if "/compute/name" in asked.path:
            return Answer(200, name) if name else Answer(500)
        return answer({"DocumentIncarnation": 1, "Events": events})

    return serve


@pytest.mark.parametrize(
    ("event", "deadlines"),
    [
        (azure_event(), [NOW + 120]),
        (azure_event(EventType="Reboot", NotBefore=""), [NOW + 30]),
        (azure_event(EventType="Terminate", NotBefore="", EventStatus="Started"), [NOW]),
        (azure_event(EventType="Freeze"), []),
        (azure_event(Resources=["spot_1"]), []),
        (azure_event(EventStatus="Canceled"), []),
    ],
    ids=["preempt", "no-time", "started", "freeze", "other-machine", "cancelled"],
)
def test_azure_has_scheduled_events(event, deadlines):
    with http_fake(azure([event])) as fake:
        assert [one.deadline_wall_s for one in AzureSource(Clock(), fake.url).look()] == deadlines


def test_an_event_counts_where_the_name_of_the_machine_is_not_known():
    with http_fake(azure([azure_event(Resources=["spot_7"])], name=None)) as fake:
        assert len(AzureSource(Clock(), fake.url).look()) == 1
    with http_fake(azure([azure_event(NotBefore="soon")])) as fake, pytest.raises(NotSeenError):
        AzureSource(Clock(), fake.url).look()
    with http_fake(azure(["Preempt"])) as fake, pytest.raises(NotSeenError):
        AzureSource(Clock(), fake.url).look()


def test_a_file_is_a_notice_while_it_is_there(tmp_path):
    file = tmp_path / "taken"
    source = FileNoticeSource(str(file), 60.0)
    assert source.look() == ()
    file.touch()
    os.utime(file, (NOW, NOW))
    (notice,) = source.look()
    assert notice.deadline_wall_s == NOW + 60
    file.write_text(json.dumps({"deadline": AT, "reason": "power\nwork"}))
    (notice,) = source.look()
    assert notice.deadline_wall_s == NOW + 120
    assert "(power\\nwork)" in notice.text(NOW)
    file.write_text("the machine is needed")
    assert "(the machine is needed)" in source.look()[0].text(NOW)
    file.write_text('{"deadline": "soon"}')
    with pytest.raises(NotSeenError):
        source.look()
    file.unlink()
    file.mkdir()
    with pytest.raises(NotSeenError, match="not a file"):
        source.look()


@pytest.mark.parametrize(
    ("page", "deadline"),
    [
        (Answer(204), None),
        (Answer(404), None),
        (Answer(200, b"false\n"), None),
        (Answer(200, b"{}"), None),
        (Answer(200, b"true"), NOW + 60),
        (Answer(200, AT.encode()), NOW + 120),
        (answer({"deadline": NOW + 7}), NOW + 7),
        (answer({"reason": "work"}), NOW + 60),
    ],
    ids=["204", "404", "false", "empty", "true", "time", "deadline", "reason"],
)
def test_a_url_is_a_notice_while_it_says_so(page, deadline):
    with http_fake(lambda _asked: page) as fake:
        notices = UrlNoticeSource(f"{fake.url}/SECRET", 60.0, Clock()).look()
    assert [one.deadline_wall_s for one in notices] == ([] if deadline is None else [deadline])
    assert "SECRET" not in repr(notices)


@pytest.mark.parametrize("page", [Answer(500), HTML, Answer(302)], ids=["500", "html", "redirect"])
def test_a_url_that_answers_with_something_else_is_no_notice(page):
    with http_fake(lambda _asked: page) as fake:
        source = UrlNoticeSource(f"{fake.url}/SECRET", 60.0, Clock())
        with pytest.raises(NotSeenError) as caught:
            source.look()
    assert "SECRET" not in f"{caught.value} {source.name}"


@pytest.mark.parametrize(
    ("strings", "cloud"),
    [
        ({"sys_vendor": "Amazon EC2", "product_name": "m5.large"}, "aws"),
        ({"sys_vendor": "Xen", "bios_version": "4.11.amazon"}, "aws"),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, "gcp"),
        (
            {
                "sys_vendor": "Microsoft Corporation",
                "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77",
            },
            "azure",
        ),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}, None),
        ({"sys_vendor": "LENOVO"}, None),
        ({}, None),
    ],
    ids=["nitro", "xen", "google", "azure", "hyper-v", "laptop", "nothing"],
)
def test_the_firmware_names_the_cloud(tmp_path, strings, cloud):
    for name, text in strings.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert cloud_of(tmp_path) == cloud
    found = cloud_sources(["auto"], clock=Clock(), rebalance="hold", dmi=tmp_path)
    assert [source.name for source in found] == ([] if cloud is None else [cloud])
