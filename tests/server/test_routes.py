from __future__ import annotations

import pytest

from omnivec.core.errors import NotFound
from omnivec.server.routes import NotAllowed, Table


def table(*paths: str, method: str = "GET") -> Table[str]:
    made: Table[str] = Table()
    for path in paths:
        made.add(method, path, path)
    return made


@pytest.mark.parametrize(
    ("path", "route", "params"),
    [
        ("/v1/models", "/v1/models", {}),
        ("/v1/models/", "/v1/models", {}),
        ("/v1/models/a", "/v1/models/{id:path}", {"id": "a"}),
        ("/v1/models/BAAI/bge-m3", "/v1/models/{id:path}", {"id": "BAAI/bge-m3"}),
        ("/v1/models/BAAI/bge-m3/", "/v1/models/{id:path}", {"id": "BAAI/bge-m3"}),
        ("/v1/models/special", "/v1/models/special", {}),
        ("/status/17", "/status/{job}", {"job": "17"}),
        ("/models/a/b/card", "/models/{id:path}/card", {"id": "a/b"}),
        ("/", "/", {}),
    ],
)
def test_finds_the_route_and_its_parameters(path, route, params):
    known = table(
        "/",
        "/v1/models",
        "/v1/models/{id:path}",
        "/v1/models/special",
        "/status/{job}",
        "/models/{id:path}/card",
    )
    assert known.find("GET", path) == (route, params)


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/model", "/v2/models", "/status/1/2", "/status/", "", "//v1/models", "*"]
)
def test_an_unknown_path_is_not_found(path):
    with pytest.raises(NotFound):
        table("/v1/models", "/v1/models/{id:path}", "/status/{job}").find("GET", path)


def test_a_known_path_says_which_methods_it_has():
    known = table("/v1/models", "/x/{id}")
    known.add("POST", "/v1/models", "posted")
    with pytest.raises(NotAllowed) as caught:
        known.find("DELETE", "/v1/models")
    assert caught.value.allow == "GET, HEAD, POST"
    assert caught.value.status == 405
    with pytest.raises(NotAllowed, match="GET"):
        known.find("POST", "/x/1")


def test_head_is_answered_where_get_is():
    assert table("/a", "/b/{c}").find("HEAD", "/b/1") == ("/b/{c}", {"c": "1"})


def test_two_routes_for_one_path_and_method_are_refused():
    for path in ("/a", "/a/{id:path}"):
        known = table(path)
        known.add("POST", path, "another method is another route")
        with pytest.raises(RuntimeError, match="two routes"):
            known.add("GET", path, "again")


@pytest.mark.parametrize("path", ["/a{id}", "/a/{}", "/a/{id:int}", "/a/{b}/{c}"])
def test_a_template_that_is_not_understood_is_refused(path):
    with pytest.raises(RuntimeError, match="template"):
        table(path)
