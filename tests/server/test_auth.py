from __future__ import annotations

import base64

import pytest

from omnivec.core.errors import BadRequest, Forbidden, Unauthorized
from omnivec.core.nouns import Call
from omnivec.server.auth import Hosts, Keys, challenge, check_page

KEYS = Keys(["alpha-key", "beta-key"])


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer alpha-key"},
        {"authorization": "alpha-key"},
        {"authorization": "bearer beta-key"},
        {"x-api-key": "alpha-key"},
        {"api-key": "beta-key"},
        {"authorization": "Bearer none", "api-key": "beta-key"},
    ],
)
def test_a_key_in_any_of_three_headers_passes(headers):
    assert KEYS
    KEYS.check(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer  alpha-key"},
        {"authorization": "Bearer alpha-key "},
        {"authorization": "Bearer alpha-ke"},
        {"authorization": "Bearer ALPHA-KEY"},
        {"authorization": "Basic alpha-key"},
        {"authorization": "alpha-ke"},
        {"authorization": "Bearer \xe9\udc80"},
        {"x-api-key": ""},
        {"cookie": "api-key=alpha-key"},
    ],
)
def test_anything_else_does_not(headers):
    with pytest.raises(Unauthorized):
        KEYS.check(headers)


def test_a_browser_sends_the_key_as_a_password_and_is_asked_for_it():
    KEYS.check({"authorization": "Basic " + base64.b64encode(b"me:alpha-key").decode()})
    for wrong in (b"me:beta", b"alpha-key", b"\xff:alpha-key"):
        with pytest.raises(Unauthorized):
            KEYS.check({"authorization": "Basic " + base64.b64encode(wrong).decode()})
    page = Call("GET", "/docs", headers={"accept": "text/html,*/*"})
    assert challenge(page).startswith("Basic ")
    assert challenge(Call("GET", "/v1/models", headers={"accept": "*/*"})) == "Bearer"
    assert challenge(Call("POST", "/v1/embeddings", headers=page.headers)) == "Bearer"


def test_without_keys_every_header_passes():
    for keys in (Keys(), Keys([""])):
        assert not keys
        keys.check({"authorization": "Bearer None"})
        keys.check({})


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8400", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:99", "[::1]:8400"],
)
def test_a_server_on_loopback_answers_to_its_own_names(host):
    Hosts("127.0.0.1", keyed=False).check({"host": host})
    Hosts("localhost", keyed=False).check({"host": host})


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8400", "localhost.evil.example", "localhost:x", "", "::1"],
)
def test_and_to_no_foreign_one(host):
    with pytest.raises(BadRequest, match="Host"):
        Hosts("::1", keyed=False).check({"host": host})


def test_the_configured_name_counts():
    Hosts("127.0.0.7", keyed=False).check({"host": "127.0.0.7:8400"})


def test_with_a_key_or_another_address_every_host_passes():
    Hosts("127.0.0.1", keyed=True).check({"host": "proxy.example"})
    Hosts("0.0.0.0", keyed=False).check({"host": "proxy.example"})
    Hosts("box.example", keyed=False).check({"host": "anything"})


def test_a_call_that_came_by_another_way_than_http_has_no_host():
    Hosts("127.0.0.1", keyed=False).check({})


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://box.evil.example"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_page_of_another_site_has_nothing_done(origin, method):
    headers = {"host": "box:8400", "origin": origin}
    password = "Basic " + base64.b64encode(b"me:alpha-key").decode()
    for more in ({}, {"authorization": password}, {"authorization": "", "x-api-key": ""}):
        with pytest.raises(Forbidden, match="another site"):
            check_page(Call(method, "/run", headers={**headers, **more}))
    for more in ({"authorization": "Bearer k"}, {"x-api-key": "k"}, {"api-key": "k"}):
        check_page(Call(method, "/run", headers={**headers, **more}))
    check_page(Call("GET", "/v1/models", headers=headers))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("box:8400", "http://box:8400"),
        ("box:8400", "https://BOX"),
        ("localhost:8400", "http://127.0.0.1:3000"),
        ("[::1]:8400", "http://localhost:1"),
    ],
)
def test_a_page_of_this_host_may_post(host, origin):
    headers = {"host": host, "origin": origin}
    check_page(Call("POST", "/v1/embeddings", headers=headers))
    check_page(Call("POST", "/v1/embeddings", headers={"host": host}))
    with pytest.raises(Forbidden):
        check_page(Call("POST", "/v1/embeddings", headers={**headers, "host": "elsewhere"}))
