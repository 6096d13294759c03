"""Notices of AWS: the end of a spot instance, and the recommendation to leave one. IMDSv2."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal

from trainerd.supervisor.preemption_notices.metadata_http import MetadataAnswer, ask, found
from trainerd.supervisor.preemption_notices.taking import POLL_S, NotSeenError, Taking, parse_moment

if TYPE_CHECKING:
    from trainerd.contract.clock import Clock

AWS_URL: Final = "http://169.254.169.254"
AWS_ENDPOINT: Final = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""Variable by which the tools of AWS are told of another server."""

TOKEN_S: Final = 21600
"""For how long a token is asked for, in seconds."""
TOKEN_RENEWAL_S: Final = 300.0
"""So long before its end a new one is asked for, in seconds."""

_UNAUTHORIZED: Final = 401
_ACTIONS: Final = frozenset({"terminate", "stop", "hibernate"})


class AwsSource:
    """The instance metadata service.

    Args:
        clock: Tells when a token ends.
        rebalance: What a recommendation does.
        url: The server.
    """

    name = "aws"
    poll_s = POLL_S

    def __init__(
        self, clock: Clock, rebalance: Literal["hold", "drain", "ignore"] = "hold", url: str | None = None
    ) -> None:
        self._clock = clock
        self._rebalance = rebalance
        self._url = (url or os.environ.get(AWS_ENDPOINT) or AWS_URL).rstrip("/")
        self._token = ""
        self._renew_at_s = 0.0

    def look(self) -> tuple[Taking, ...]:
        notices = []
        if (answer := self._get("/latest/meta-data/spot/instance-action")) is not None:
            notices.append(_action(answer))
        if self._rebalance != "ignore":
            answer = self._get("/latest/meta-data/events/recommendations/rebalance")
            if answer is not None:
                notices.append(self._recommendation(answer))
        return tuple(notices)

    def _get(self, path: str) -> MetadataAnswer | None:
        answer = self._ask(path)
        if answer.status == _UNAUTHORIZED:  # the token is no longer valid, as after a stop of the instance
            self._token = ""
            answer = self._ask(path)
        return found(answer)

    def _ask(self, path: str) -> MetadataAnswer:
        if not self._token or self._clock.monotonic_s() >= self._renew_at_s:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
            answer = ask(f"{self._url}/latest/api/token", method="PUT", headers=headers)
            token = answer.text.strip()
            if answer.status != 200 or not token or not token.isascii() or not token.isprintable():
                raise NotSeenError(f"it gives no token: status {answer.status}")
            self._token = token
            self._renew_at_s = self._clock.monotonic_s() + TOKEN_S - TOKEN_RENEWAL_S
        return ask(f"{self._url}{path}", headers={"X-aws-ec2-metadata-token": self._token})

    def _recommendation(self, answer: MetadataAnswer) -> Taking:
        plain = answer.json()
        if not isinstance(plain, dict) or not isinstance(plain.get("noticeTime"), str):
            raise NotSeenError("its rebalance recommendation has no noticeTime")
        return Taking(
            "AWS",
            f"rebalance {plain['noticeTime']}",
            "recommends to leave this machine",
            drains=self._rebalance == "drain",
        )


def _action(answer: MetadataAnswer) -> Taking:
    plain = answer.json()
    if not isinstance(plain, dict) or plain.get("action") not in _ACTIONS:
        raise NotSeenError("its instance-action has no action that is known")
    try:
        deadline_s = parse_moment(plain.get("time"))
    except ValueError as error:
        raise NotSeenError(f"the time of its instance-action is {error}") from None
    return Taking("AWS", f"{plain['action']} {plain['time']}", deadline_wall_s=deadline_s)
