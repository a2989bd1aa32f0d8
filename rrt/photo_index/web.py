"""Requests of the web page: what they may be, and their answers.

GET  /, /page.css, /page.js, /icon.svg
GET  /photographs?offset=&limit=&text=     a page of the index
GET  /thumbnail/ID, /picture/ID            ID: SHA-256 of a photograph of the index; no path ever comes from outside
POST /search/ID?box=[x1,y1,x2,y2]          photographs like one of the index
POST /search?box=...&name=...              photographs like the image in the body
"""

from __future__ import annotations

import json
import re
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

from rrt.photo_index.service import Refusal, parse_json_box

PAGE = Path(__file__).with_name("page")
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_BLOCK = 1 << 18
_SECONDS = 60  # that an upload may take
_DRAINED = 1 << 26  # bytes of a refused upload that are read, so that the browser comes to read the answer
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Handler(BaseHTTPRequestHandler):
    """One connection of a PageServer."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rrt", ""
    timeout = 20  # seconds of silence that end a connection

    def do_GET(self):
        self._answer(self._get)

    def do_POST(self):
        self._answer(self._post)

    def _answer(self, how) -> None:
        self._unread = 0
        try:
            if not self.server.knows(self.headers.get("Host", "")):
                raise Refusal(
                    403, "this page does not go by that name; use its own address, or start it with --allow_host NAME"
                )
            how(urlsplit(self.path))
        except Refusal as refusal:
            self._refuse(refusal)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            print(f"error: {self.command} {self.path[:200]!r}: {type(error).__name__}: {error}", flush=True)
            self._refuse(Refusal(500, "the search failed; the console it was started on says more"))

    def _refuse(self, refusal: Refusal) -> None:
        self.close_connection = True
        self._send(
            refusal.status,
            json.dumps({"error": str(refusal)}).encode(),
            "application/json",
            **({"Retry-After": "1"} if refusal.status == 503 else {}),
        )
        ends = time.monotonic() + 2
        while self._unread > 0 and time.monotonic() < ends:
            self._unread -= len(self.rfile.read1(min(_BLOCK, self._unread))) or self._unread

    def _send(self, status: int, body: bytes, kind: str, **more) -> None:
        self.send_response(status)
        for name, value in (
            HEADERS | {"Cache-Control": "no-store", "Content-Type": kind, "Content-Length": len(body)} | more
        ).items():
            self.send_header(name, str(value))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code, message=None, explain=None):
        """Of requests that the base class does not understand."""
        self.close_connection = True
        self._send(code, json.dumps({"error": message or HTTPStatus(code).phrase}).encode(), "application/json")

    # ---- what is asked for -------------------------------------------------------------------------------------------

    def _get(self, url) -> None:
        if url.path in FILES:
            name, kind = FILES[url.path]
            return self._send(200, (PAGE / name).read_bytes(), kind)
        found = re.fullmatch(r"/(thumbnail|picture)/([0-9a-f]{64})", url.path)
        if found:
            jpeg = self.server.service.jpeg(found[2], found[1] == "picture")
            # The address means these very bytes for ever.
            return self._send(200, jpeg, "image/jpeg", **{"Cache-Control": "private, max-age=86400, immutable"})
        if url.path == "/photographs":
            asked = self._query(url)
            found = self.server.service.photographs(
                _number(asked, "offset", 0), _number(asked, "limit", 60), asked.get("text", "")
            )
            limits = {"max_upload": self.server.settings.max_upload, "max_pixels": self.server.service.max_pixels}
            return self._send(200, json.dumps(found | limits).encode(), "application/json")
        raise Refusal(404, "there is nothing at this address")

    def _post(self, url) -> None:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length) or self.headers.get("Transfer-Encoding"):
            raise Refusal(411, "the size of the image is missing (Content-Length)")
        self._unread = min(int(length), _DRAINED)
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise Refusal(403, "searches are taken from this page alone")
        asked = self._query(url)
        box, service = parse_json_box(asked.get("box", "")), self.server.service
        found = re.fullmatch(r"/search/([0-9a-f]{64})", url.path)
        if found:
            if int(length):
                raise Refusal(400, "a search for a photograph of the index has no body")
            result = service.search_photograph(found[1], box)
        elif url.path == "/search":
            if not re.fullmatch(r"application/octet-stream|image/[\w.+-]+", self.headers.get("Content-Type", "")):
                raise Refusal(415, "the body is to be an image's file (Content-Type application/octet-stream)")
            if int(length) > self.server.settings.max_upload:
                raise Refusal(
                    413,
                    f"the file has {int(length) / 1e6:.1f} MB; at most {self.server.settings.max_upload / 1e6:g} are "
                    "taken",
                )
            with TemporaryDirectory(prefix="rrt_upload_") as folder:
                file = self._receive(Path(folder) / "picture", int(length))
                result = service.search_file(file, asked.get("name", "")[:300] or "picture", box)
        else:
            raise Refusal(404, "there is nothing at this address")
        self._send(200, json.dumps(result).encode(), "application/json")

    def _receive(self, file: Path, length: int) -> Path:
        ends = time.monotonic() + _SECONDS
        with open(file, "wb") as out:
            while self._unread:
                block = self.rfile.read1(min(_BLOCK, self._unread))
                if not block or time.monotonic() > ends:
                    self._unread = 0
                    raise Refusal(408, "the image did not arrive")
                self._unread -= len(block)
                out.write(block)
        return file

    def _query(self, url) -> dict[str, str]:
        try:
            return {name: values[-1] for name, values in parse_qs(url.query, max_num_fields=10).items()}
        except ValueError:
            raise Refusal(400, "too many fields in the address") from None

    def log_message(self, *_):
        pass


def _number(asked: dict, name: str, default: int) -> int:
    text = asked.get(name, str(default))
    if not re.fullmatch(r"\d{1,9}", text):
        raise Refusal(400, f"{name} is to be a number")
    return int(text)
