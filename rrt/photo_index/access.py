"""The token that protects the page where other machines can reach it: it is part of the address that is printed once,
and the browser then keeps it in a cookie."""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import re
import secrets
import socket
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rrt.errors import InputError

VARIABLE = "RRT_TOKEN"
COOKIE_SECONDS = 30 * 24 * 3600
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,200}")
_HOW = (
    "this page needs the address that the program printed when it was started, with ?token=... at its end; "
    f"start it with --token or {VARIABLE} to choose the token yourself"
)


def checked_token(token: str) -> str:
    """``token`` itself. Raises InputError unless it is 8 to 200 characters that may stand in an address."""
    if not _TOKEN.fullmatch(token):
        raise InputError("--token: expected 8 to 200 letters, digits and . _ ~ -, as they can stand in an address")
    return token


def token_for(host: str, given: str | None) -> str | None:
    """The token of a page that listens at ``host``: ``given``, or a new one where other machines can reach the page, or
    None where only this machine can. Raises InputError for an invalid token."""
    if given:
        return checked_token(given)
    return None if is_loopback(host) else secrets.token_urlsafe(18)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a page that listens at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def own_address(host: str) -> str:
    """The address by which other machines reach a page that listens at ``host``. Where it listens at all addresses,
    this machine's address in its network."""
    family = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6, "": socket.AF_INET}.get(host)
    if family is None:
        return host
    far = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"  # documentation addresses; nothing is sent
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return probe.getsockname()[0]
    except OSError:
        return "127.0.0.1" if family == socket.AF_INET else "::1"


class TokenGuard:
    """Answers only requests that show the token: in a cookie, in ?token= of the address (the answer then sets the
    cookie), or, as programs do, in `Authorization: Bearer TOKEN`."""

    def __init__(self, app: ASGIApp, token: str):
        self.app = app
        self._token = hashlib.sha256(token.encode()).digest()
        # Each token has its own cookie, because all ports of a host share cookies and two indexes may be served. Its
        # name is a hash, which does not reveal the token.
        self._cookie = f"rrt_{self._token.hex()[:12]}"
        self._value = hashlib.sha256(b"cookie\n" + token.encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        headers = Headers(scope=scope)
        (shown,) = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1:]
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        app: ASGIApp = self.app
        if scope["method"] in ("GET", "HEAD") and shown:
            app = self._welcome() if self._knows(shown) else _refused(headers)
        elif not self._has_cookie(scope) and not (scheme.lower() == "bearer" and self._knows(bearer.strip())):
            app = _refused(headers)
        await app(scope, receive, send)

    def _knows(self, token: str) -> bool:
        return hmac.compare_digest(hashlib.sha256(token.encode("utf-8", "replace")).digest(), self._token)

    def _has_cookie(self, scope: Scope) -> bool:
        # The browser also sends the cookies that other programs of this host have set.
        found = HTTPConnection(scope).cookies.get(self._cookie, "")
        return hmac.compare_digest(found.encode("utf-8", "replace"), self._value.encode())

    def _welcome(self) -> Response:
        # Not a redirect: a browser that followed a link from another site would not send the cookie with it.
        response = _page("This browser may look now.", '<meta http-equiv="refresh" content="0; url=/">', 200)
        response.set_cookie(self._cookie, self._value, COOKIE_SECONDS, httponly=True, samesite="strict")
        return response


def _refused(headers: Headers) -> Response:
    wants_page = "text/html" in headers.get("accept", "")
    response = _page(_HOW, "", 401) if wants_page else JSONResponse({"error": _HOW}, 401)
    response.headers["WWW-Authenticate"] = 'Bearer realm="photographs"'
    response.headers["Connection"] = "close"
    return response


def _page(text: str, head: str, status: int) -> Response:
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'{head}<title>Photographs</title></head><body><p>{html.escape(text)}</p><p><a href="/">To the photographs</a>'
        "</p></body></html>",
        status,
    )
