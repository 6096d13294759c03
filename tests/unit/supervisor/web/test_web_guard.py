"""Who may see the page, and what may be asked of it."""

import dataclasses
import re

import pytest

from tests.unit.supervisor.web.conftest import HOME, TOKEN
from trainerd.supervisor.api.web.web_access import WebAccess

PATHS = (
    "/",
    "/job/mnist",
    "/events",
    "/stream",
    "/metrics",
    "/static/page.css",
    "/job/mnist/curve.json",
    "/nothing",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer"},
        {"cookie": f"trainerd-7878={TOKEN}"},
        {"cookie": "trainerd-7878=;;;\x7f"},
        {"cookie": f"trainerd-9999={WebAccess(TOKEN).cookie}"},
    ],
    ids=range(7),
)
def test_a_request_without_the_token_gets_401_and_nothing_else(page, path, headers):
    answer = page.get(path, has_token=False, headers=headers)
    assert (answer.status_code, answer.content) == (401, b"")
    assert "set-cookie" not in answer.headers


def test_a_wrong_token_in_the_address_gets_401_too(page):
    answer = page.get("/?token=wrong", has_token=False)
    assert (answer.status_code, answer.content) == (401, b"")


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(page):
    answer = page.get(f"/events?token={TOKEN}", has_token=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "./events")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    again = page.get("/", has_token=False, headers={"cookie": cookie.partition(";")[0]})
    assert again.status_code == 200


@pytest.mark.parametrize("path", ["//evil.example", "/a/%0d%0ax: y", "/https:%2f%2fevil.example"])
def test_the_address_never_leads_elsewhere(page, path):
    answer = page.get(f"{HOME}{path}?token={TOKEN}", has_token=False)
    assert answer.headers["location"] == "./" or re.fullmatch(r"\./[\w.-]+", answer.headers["location"])


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7878",
        "127.0.0.1.evil.example",
        "",
        "localhost.evil.example",
        "[::1",
        "a b",
    ],
)
def test_a_name_that_is_not_ours_is_refused_even_with_the_token(page, host):
    """DNS rebinding: a page elsewhere has a name of its own resolve to this address."""
    answer = page.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "mnist" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:7878", "localhost:7878", "[::1]:7878", "10.1.2.3"])
def test_addresses_and_the_name_of_this_machine_are_ours(page, host):
    assert page.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_the_policy(page, path):
    if path == "/stream":
        return  # it has no end; see the browser's test
    headers = page.get(path).headers
    assert headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self';"
    )
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_page_is_read_only_unless_it_was_allowed_more(page, method):
    answer = page.ask(method, "/job/mnist/stop", headers={"origin": HOME})
    assert answer.status_code == 403
    assert page.control.calls == []
    assert "<form" not in page.get("/job/mnist").text


@pytest.fixture
def steered(page):
    page.access = dataclasses.replace(page.access, allows_actions=True)
    return page


def form(page):
    found = re.search(r'name="token" value="(\w+)"', page.get("/job/mnist").text)
    return {"token": found[1]}


def test_a_form_of_the_page_is_carried_out(steered):
    answer = steered.ask("POST", "/job/mnist/stop", data=form(steered), headers={"origin": HOME})
    assert (answer.status_code, answer.headers["location"]) == (303, "../mnist")
    assert steered.control.calls == [("stop", "mnist")]


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:7879"},
     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}],
    ids=range(6),
)  # fmt: skip
def test_a_request_of_another_page_is_refused(steered, headers):
    answer = steered.ask("POST", "/job/mnist/stop", data=form(steered), headers=headers)
    assert answer.status_code == 403
    assert steered.control.calls == []


@pytest.mark.parametrize(
    "data", [{}, {"token": "wrong"}, {"token": "x" * 10_000}, {"token": "\xff"}], ids=range(4)
)
def test_a_form_without_its_token_is_refused(steered, data):
    answer = steered.ask("POST", "/job/mnist/stop", data=data, headers={"origin": HOME})
    assert answer.status_code == 403
    assert steered.control.calls == []


def test_what_the_supervisor_refuses_is_said(steered):
    answer = steered.ask("POST", "/job/done/stop", data=form(steered), headers={"origin": HOME})
    assert answer.status_code == 409
    assert "done is finished" in answer.text


@pytest.mark.parametrize("action", ["rm", "hold_all", "reload", "__class__"])
def test_only_the_actions_of_the_page_are_there(steered, action):
    answer = steered.ask("POST", f"/job/mnist/{action}", data=form(steered), headers={"origin": HOME})
    assert answer.status_code == 404
    assert steered.control.calls == []


def test_on_a_socket_the_kernel_vouches_and_no_token_is_asked_for(page):
    page.access = WebAccess(None)
    assert page.get("/", has_token=False, headers={"host": "watch.example"}).status_code == 200
