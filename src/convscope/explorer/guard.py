"""What a request must be before any page sees it: to this server by its name, from its own pages, and not too long.

A server on loopback is reached by every page that the browser shows: by a name that resolves to 127.0.0.1 (DNS
rebinding), by forms and images of other sites, and by WebSockets, to which no same-origin policy applies. So the names
and origins of this server are on a fixed list, and everything else is refused, whatever is asked for.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Problem

MOST_BYTES = 64 << 20
"""Bytes that a request may carry: a photograph of 100 megapixels as JPEG has half as many."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing from other hosts, no script or style inside a page, no frame around it."""

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # With "no-referrer" browsers send "Origin: null" with forms of our own pages.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}

_FOREIGN = ("cross-site", "same-site")
_LINKS = ("navigate", "")
_METHODS = ("GET", "HEAD", "POST")


@dataclass
class Entry:
    """Who may come in where others than this machine's user reach the server: whoever had a link, which works once.

    The link's token is exchanged for a cookie, so that no address in a history or a log opens the server again; the
    next link is made then. Cookies are those of a host, whatever the port: the name holds it, the value this run's
    secret.
    """

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def admits(self, cookies: str) -> bool:
        """Whether a request's cookies are those of somebody who came in."""
        try:
            held = SimpleCookie(cookies).get(self._name)
        except CookieError:
            return False
        return held is not None and hmac.compare_digest(held.value.encode(), self._cookie.encode())

    def exchange(self, token: str) -> str | None:
        """Return the cookie to set for a link's token, which is worth nothing from then on; None for another."""
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return None
        self.token = secrets.token_urlsafe(24)
        return f"{self._name}={self._cookie}; HttpOnly; SameSite=Strict; Path=/"

    @property
    def _name(self) -> str:
        return f"convscope-{self.port}"


class Guard:
    """An application behind the checks; `hosts` are this server's names, as a Host header has them, with the port."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], entry: Entry | None = None) -> None:
        self.app, self.entry = app, entry
        self.hosts = frozenset(host.lower() for host in hosts)
        self.origins = frozenset(f"{scheme}://{host}" for host in self.hosts for scheme in ("http", "https"))
        self.first = f"http://{hosts[0]}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        problem = self._problem(scope, _Headers(scope["headers"]))
        if scope["type"] == "websocket":
            if problem is None:
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": problem.title})
            return
        if problem is None:
            await self.app(scope, receive, _with_headers(send))
        else:
            await problem.response(scope)(scope, receive, _with_headers(send))

    def _problem(self, scope: Scope, headers: _Headers) -> Problem | None:
        hosts, origins = headers.all("host"), headers.all("origin")
        live = scope["type"] == "websocket"
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return Problem(400, "not this server's name", f"this server is not called that: open {self.first}")
        # A browser names the origin of every WebSocket; whoever names none is no page of ours.
        if (live and not origins) or len(origins) > 1 or not self.origins.issuperset(origins):
            return Problem(403, "from another site", f"only this server's own pages may ask that: open {self.first}")
        if headers.one("sec-fetch-site") in _FOREIGN and headers.one("sec-fetch-mode") not in _LINKS:
            return Problem(403, "from another site", "pages of other sites cannot show or use what is here")
        return self._unreadable(scope, headers) or self._uninvited(scope, headers)

    def _unreadable(self, scope: Scope, headers: _Headers) -> Problem | None:
        if scope["type"] != "http":
            return None
        if scope["method"] not in _METHODS:
            return Problem(405, "no such method", "pages are read with GET, and changed with POST")
        length = headers.one("content-length")
        if scope["method"] == "POST" and not length.isdecimal():
            return Problem(411, "length unknown", "a request that carries something says how long that is")
        if length and int(length[:20]) > MOST_BYTES:
            return Problem(413, "too large", f"a file may have {MOST_BYTES >> 20} MB: make a smaller picture of it")
        return None

    def _uninvited(self, scope: Scope, headers: _Headers) -> Problem | None:
        open_to_all = scope["path"] == "/enter" or scope["path"].startswith("/static/")
        if self.entry is None or open_to_all or self.entry.admits("; ".join(headers.all("cookie"))):
            return None
        return Problem(401, "not invited", "open the link that convscope serve printed; each works once")


class _Headers:
    """The headers of a request, which may be there more than once."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self.raw = raw

    def all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.raw if key.lower() == name.encode()]

    def one(self, name: str) -> str:
        return next(iter(self.all(name)), "")


def _with_headers(send: Send) -> Send:
    """Send every answer with the headers that bound what a browser does with it."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            held: list[Any] = list(message.get("headers", ()))
            named = {key.lower() for key, _ in held}
            held += [(key.encode(), value.encode()) for key, value in _HEADERS.items() if key.encode() not in named]
            message = {**message, "headers": held}
        await send(message)

    return sent
