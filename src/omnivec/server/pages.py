"""The pages for people: `/`, `/docs`, `/openapi.json` and the files they are made of.

Everything comes out of this package. No page asks another host for anything, and the
Content-Security-Policy holds it to that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files

from omnivec.core.nouns import Call, Reply
from omnivec.server.door import Door

SWAGGER = "/docs/swagger-ui-5.35.0"
"""The version is in the path, so that a browser may keep the files for ever."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DOCS_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_HTML = "text/html; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
_STYLE = "text/css; charset=utf-8"
_ASSETS = {
    "/ui/index.js": ("index.js", _SCRIPT, "no-cache"),
    "/ui/index.css": ("index.css", _STYLE, "no-cache"),
    "/ui/docs.js": ("docs.js", _SCRIPT, "no-cache"),
    "/favicon.ico": ("icon.svg", "image/svg+xml", "max-age=86400"),
    f"{SWAGGER}/swagger-ui-bundle.js": (
        "swagger/swagger-ui-bundle.js",
        _SCRIPT,
        "public, max-age=31536000, immutable",
    ),
    f"{SWAGGER}/swagger-ui.css": (
        "swagger/swagger-ui.css",
        _STYLE,
        "public, max-age=31536000, immutable",
    ),
}

Serve = Callable[[Call], Awaitable[Reply]]


def add_pages(door: Door, document: Callable[[str], bytes]) -> None:
    """`document` makes the OpenAPI description, with a model's name in its examples; it is
    called once, when first asked for."""
    door.add_page("/", _front)
    door.add_page("/docs", _html("docs.html", _DOCS_POLICY))
    door.add_page("/openapi.json", _described(door, cache(document)))
    for path, (name, kind, keep) in _ASSETS.items():
        door.add_page(path, _asset(name, kind, keep))


async def _front(call: Call) -> Reply:
    """A page for browsers, one line for everybody else (Ollama's clients look for it)."""
    if "text/html" in call.headers.get("accept", ""):
        reply = _page("index.html", _POLICY)
    else:
        reply = Reply(b"omnivec is running\n", 200, {"content-type": "text/plain; charset=utf-8"})
    return Reply(reply.body, reply.status, {**reply.headers, "vary": "accept"})


def _html(name: str, policy: str) -> Serve:
    async def serve(_call: Call) -> Reply:
        return _page(name, policy)

    return serve


def _described(door: Door, document: Callable[[str], bytes]) -> Serve:
    async def serve(_call: Call) -> Reply:
        names = [card.name for card in (await door.cards()).cards]
        return Reply(
            document(names[0] if names else "MODEL"),
            200,
            {"content-type": "application/json", **_SAFE},
        )

    return serve


def _asset(name: str, kind: str, keep: str) -> Serve:
    async def serve(_call: Call) -> Reply:
        return Reply(_read(name), 200, {"content-type": kind, "cache-control": keep, **_SAFE})

    return serve


def _page(name: str, policy: str) -> Reply:
    headers = {
        "content-type": _HTML,
        "content-security-policy": policy,
        "cache-control": "no-cache",
    }
    return Reply(_read(name), 200, {**headers, **_SAFE})


@cache
def _read(name: str) -> bytes:
    return files("omnivec.server").joinpath("ui", *name.split("/")).read_bytes()
