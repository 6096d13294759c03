"""Delivery of notices: tries, limits, full queues, and a supervisor that leaves meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time

import structlog

from trainerd.contract.hooks import Hook
from trainerd.supervisor.notices.delivery import DeliveryError
from trainerd.supervisor.notices.notice_rules import Notice
from trainerd.supervisor.notices.outbox import Outbox
from trainerd.supervisor.notices.payloads import Origin

ORIGIN = Origin("box", "/state")
HOOK = Hook("ops", "webhook", url="http://127.0.0.1:1/x", tries=3, limit_s=0.05)


def notice(event="finished", job="ant"):
    return Notice(event, "it did", job=job)


class Sent:
    """Takes deliveries: fails as often as it is told, and may hang."""

    def __init__(self, *failures: DeliveryError, hangs: frozenset[str] = frozenset()):
        self.failures = list(failures)
        self.hangs = hangs
        self.release = threading.Event()
        self.got = []

    def __call__(self, hook, notice):
        if hook.name in self.hangs:
            self.release.wait(10)
            return
        self.got.append((hook.name, notice.job))
        if self.failures:
            raise self.failures.pop(0)


def run(sent, scenario, *hooks, **options):
    """Run a scenario with an outbox; return what was logged."""

    async def main():
        outbox = Outbox(hooks or (HOOK,), ORIGIN, send=sent, **({"retry_wait_s": 0.001} | options))
        await scenario(outbox)

    with structlog.testing.capture_logs() as logs:
        asyncio.run(main())
    sent.release.set()
    return [
        (line["event"], line["hook"], line.get("reason")) for line in logs if line["log_level"] != "debug"
    ]


async def settled(outbox):
    await until(lambda: not outbox._lines)


async def until(is_so):
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_a_failed_try_is_repeated_until_it_succeeds_and_in_order():
    sent = Sent(DeliveryError("500"), DeliveryError("refused"))

    async def scenario(outbox):
        outbox.offer(notice(job="ant"))
        outbox.offer(notice(job="bee"))
        await settled(outbox)

    assert run(sent, scenario) == []
    assert [job for _, job in sent.got] == ["ant", "ant", "ant", "bee"]


def test_after_the_last_try_or_a_final_refusal_it_is_given_up_and_said():
    sent = Sent(*[DeliveryError("500")] * 3, DeliveryError("404", is_final=True))

    async def scenario(outbox):
        outbox.offer(notice())
        outbox.offer(notice())
        await settled(outbox)

    assert run(sent, scenario) == [
        ("notice.not-delivered", "ops", "500"),
        ("notice.not-delivered", "ops", "404"),
    ]
    assert len(sent.got) == 4


def test_a_hook_is_told_only_of_its_events():
    sent = Sent()

    async def scenario(outbox):
        outbox.offer(notice("stalled"), [Hook("ant#1", "desktop", ("stalled",))])
        await settled(outbox)

    run(sent, scenario, Hook("ops", "desktop", ("finished", "parked")))
    assert sent.got == [("ant#1", "ant")]


def test_a_hook_that_hangs_delays_no_other_and_not_the_loop():
    slow = Hook("slow", "webhook", url="http://x", tries=1, limit_s=0.2)
    sent = Sent(hangs=frozenset({"slow"}))

    async def scenario(outbox):
        began = time.monotonic()
        outbox.offer(notice())
        assert time.monotonic() - began < 0.05
        await until(lambda: ("ops", "ant") in sent.got)
        assert time.monotonic() - began < 0.15
        sent.release.set()
        await settled(outbox)

    run(sent, scenario, slow, HOOK)


def test_a_full_queue_drops_the_oldest_and_says_so():
    sent = Sent(hangs=frozenset({"ops"}))

    async def scenario(outbox):
        for number in range(5):
            outbox.offer(notice(job=f"ant{number}"))
            await asyncio.sleep(0)
        assert [one.job for one in outbox._lines["ops"].waiting] == ["ant3", "ant4"]
        sent.release.set()
        await settled(outbox)

    logs = run(sent, scenario, queue_max=2)
    assert logs == [("notice.dropped", "ops", "more than 2 notices wait for it")] * 2


def test_leaving_waits_for_its_limit_and_names_what_is_dropped():
    hanging = Hook("dead", "webhook", url="http://x", tries=3, limit_s=30)
    sent = Sent(hangs=frozenset({"dead"}))

    async def scenario(outbox):
        outbox.offer(notice(job="ant"))
        outbox.offer(notice(job="bee"))
        await until(lambda: len(sent.got) == 2)
        began = time.monotonic()
        await outbox.leave(0.1)
        assert 0.05 < time.monotonic() - began < 30.0

    logs = run(sent, scenario, hanging, HOOK)
    assert [job for _, job in sent.got] == ["ant", "bee"]
    assert logs == [("notice.dropped", "dead", "not delivered within 0.1 s of leaving")] * 2


def test_one_that_waits_for_its_next_try_is_tried_at_once_when_the_supervisor_leaves():
    sent = Sent(DeliveryError("500"))

    async def scenario(outbox):
        outbox.offer(notice())
        await until(lambda: bool(sent.got))
        await asyncio.sleep(0.02)
        await outbox.leave(1.0)

    assert run(sent, scenario, retry_wait_s=60.0) == []
    assert len(sent.got) == 2


def test_a_fault_in_a_delivery_ends_nothing():
    class Broken(Sent):
        def __call__(self, hook, notice):
            raise ZeroDivisionError("SECRET")

    async def scenario(outbox):
        (trial,) = await outbox.try_hooks(outbox.hooks, notice())
        assert trial.problem == "ZeroDivisionError in trainerd: please report it"

    assert run(Broken(), scenario) == []
