"""The requests to the web page and their answers, as a Starlette application. ID is the SHA-256 of a photograph of the
index or of an uploaded image; no file is ever opened by a path from a request.

GET  /, /page.css, /main.js, ...           the page and its parts
GET  /about                                what the index holds, how it is searched, what may be uploaded
GET  /photographs?offset=&limit=           photographs, filtered by text=&folder=&since=&until=, in the order sort=
GET  /photograph?id=ID, ?name=NAME         one photograph, with its paths
GET  /thumbnail/ID, /picture/ID            a photograph as a small or a larger JPEG
GET  /original/ID                          the file of a photograph
GET  /upload/ID                            an image that was searched for, as a larger JPEG
GET  /progress                             what a search is doing
GET  /duplicates?offset=&limit=            groups of near-duplicates, and how far the search for them is
POST /search/ID?box=[x1,y1,x2,y2]          photographs like one of the index; all searches take the filters, too
POST /search/upload/ID?box=...             ... like an image that was uploaded before
POST /search?box=...&name=...              ... like the image in the body, which is kept for a while
POST /details/ID?photo=ID or upload=ID     what a photograph shares with one of the index or an upload (box=...)
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rrt.errors import InputError
from rrt.files.images import Box, parse_box
from rrt.photo_index.access import TokenGuard
from rrt.photo_index.deadline import Deadline
from rrt.photo_index.listing import SORTS, Wanted
from rrt.photo_index.service import Query, Refusal, Service

PAGE = Path(__file__).with_name("page")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {f"/{file.relative_to(PAGE).as_posix()}": file for file in PAGE.rglob("*") if file.suffix in TYPES}
# Image formats that browsers show and that cannot contain scripts; files of other formats are downloaded.
SHOWN = {kind: f"image/{kind.lower()}" for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP")}
_PORT = r"[0-5]?\d{1,4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5]"
_HOST = re.compile(rf"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]*)(:({_PORT})?)?", re.ASCII | re.IGNORECASE)
METHODS = ("GET", "HEAD", "POST")
UPLOAD_SECONDS = 60.0  # for the body of a request to arrive
UNREAD_SECONDS = 2.0  # for the rest of the body of a refused request, see Guard
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def make_app(
    service: Service, knows: Callable[[str], bool], max_upload: int, token: str | None = None, deadline: float = 120
) -> ASGIApp:
    """The application. knows(host): whether a Host header may mean this page; max_upload: largest image file in bytes;
    token: that each request must show, None = none; deadline: seconds until an answer must begin."""
    pages = Pages(service, max_upload)
    app = Starlette(
        routes=[
            Route("/", pages.page),
            *(Route(path, pages.file) for path in FILES),
            Route("/about", pages.about),
            Route("/photographs", pages.photographs),
            Route("/photograph", pages.photograph),
            Route("/thumbnail/{content}", pages.thumbnail),
            Route("/picture/{content}", pages.picture),
            Route("/original/{content}", pages.original),
            Route("/upload/{content}", pages.upload),
            Route("/progress", pages.progress),
            Route("/duplicates", pages.duplicates),
            Route("/search/{content}", pages.search_photograph, methods=["POST"]),
            Route("/search/upload/{content}", pages.search_again, methods=["POST"]),
            Route("/search", pages.search_upload, methods=["POST"]),
            Route("/details/{content}", pages.details, methods=["POST"]),
        ],
        exception_handlers={
            Refusal: refuse,
            404: _nothing_there,
            405: _nothing_there,
            ClientDisconnect: lambda *_: Response(),  # nobody reads it
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    late = _refusal(504, f"no answer within {deadline:g} seconds (--deadline); try a smaller box or a quicker --method")
    timed = Deadline(app, deadline, late)
    return Guard(TokenGuard(timed, token) if token else timed, knows)


class Guard:
    """Refuses requests that are not meant for this page, and adds the HEADERS to every answer."""

    def __init__(self, app: ASGIApp, knows: Callable[[str], bool]):
        self.app, self.knows = app, knows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, then reads the rest of its body for at most UNREAD_SECONDS: a browser does not read the
        answer while it cannot go on sending."""
        asked = Headers(scope=scope)
        unread = "transfer-encoding" in asked or asked.get("content-length", "0") != "0"

        async def receive_noting() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            elif unread and not message.get("more_body"):
                await send({**message, "more_body": True})
                try:
                    async with asyncio.timeout(UNREAD_SECONDS):
                        while unread:
                            await receive_noting()
                except TimeoutError:
                    pass
                message = {"type": "http.response.body"}
            await send(message)

        app = self.app
        if not _HOST.fullmatch(asked.get("host", "")):
            app = _refusal(400, "the Host header is no name with a port from 0 to 65535")
        elif not self.knows(asked.get("host", "")):
            app = _refusal(
                403, "this page does not go by that name; use its own address, or start it with --allow_host NAME"
            )
        elif scope["method"] not in METHODS:
            app = _refusal(501, f"this page knows {', '.join(METHODS)} alone")
        await app(scope, receive_noting, send_guarded)


class Pages:
    """The answers to requests, a method for each route."""

    def __init__(self, service: Service, max_upload: int):
        self.service, self.max_upload = service, max_upload

    def page(self, request: Request) -> Response:
        """The HTML of the page."""
        return Response((PAGE / "page.html").read_bytes(), media_type="text/html")

    def file(self, request: Request) -> Response:
        """A style sheet, script or icon of the page."""
        file = FILES[request.scope["path"]]
        return Response(file.read_bytes(), media_type=TYPES[file.suffix])

    def about(self, request: Request) -> Response:
        """What the index holds and how it is searched, as JSON."""
        return _json(self.service.about() | {"max_upload": self.max_upload})

    def photographs(self, request: Request) -> Response:
        """The photographs that pass the filters, from an offset on, as JSON. Raises Refusal."""
        offset, limit = _number(request, "offset", 0), _number(request, "limit", 60)
        sort = request.query_params.get("sort", "name")
        if sort not in SORTS:
            raise Refusal(400, f"sort is to be one of {', '.join(SORTS)}")
        return _json(self.service.photographs(offset, limit, _wanted(request), sort))

    def photograph(self, request: Request) -> Response:
        """One photograph of the index, as JSON."""
        given = request.query_params
        return _json(self.service.photograph(given.get("id", ""), given.get("name", "")))

    def thumbnail(self, request: Request) -> Response:
        """A photograph as a small JPEG."""
        return _jpeg(self.service.jpeg(request.path_params["content"], large=False))

    def picture(self, request: Request) -> Response:
        """A photograph as a larger JPEG."""
        return _jpeg(self.service.jpeg(request.path_params["content"], large=True))

    def original(self, request: Request) -> Response:
        """The file of a photograph."""
        file, name, kind = self.service.original(request.path_params["content"])
        found, how = SHOWN.get(kind, "application/octet-stream"), "inline" if kind in SHOWN else "attachment"
        return FileResponse(file, media_type=found, filename=name, content_disposition_type=how)

    def upload(self, request: Request) -> Response:
        """An image that was searched for, as a larger JPEG."""
        return _jpeg(self.service.upload(request.path_params["content"]).jpeg)

    def progress(self, request: Request) -> Response:
        """What a search is doing, as JSON."""
        return _json(self.service.progress())

    def duplicates(self, request: Request) -> Response:
        """Groups of near-duplicates, and how far the search for them is, as JSON."""
        return _json(self.service.duplicates.page(_number(request, "offset", 0), _number(request, "limit", 20)))

    async def search_photograph(self, request: Request) -> Response:
        """Photographs like one of the index, as JSON."""
        return await self._search(request, uploaded=False)

    async def search_again(self, request: Request) -> Response:
        """Photographs like an image that was uploaded before, as JSON."""
        return await self._search(request, uploaded=True)

    async def _search(self, request: Request, uploaded: bool) -> Response:
        query = Query(request.path_params["content"], uploaded, _without_body(request))
        return _json(await run_in_threadpool(self.service.search, query, _wanted(request)))

    async def details(self, request: Request) -> Response:
        """What a photograph shares with a query, as JSON."""
        box, given = _without_body(request), request.query_params
        query = Query(given.get("upload") or given.get("photo", ""), "upload" in given, box)
        return _json(await run_in_threadpool(self.service.details, query, request.path_params["content"]))

    async def search_upload(self, request: Request) -> Response:
        """Photographs like the image in the body, as JSON."""
        (length, box), wanted = _checked_search(request), _wanted(request)
        if not re.fullmatch(r"application/octet-stream|image/[\w.+-]+", request.headers.get("content-type", "")):
            raise Refusal(415, "the body is to be an image's file (Content-Type application/octet-stream)")
        if length > self.max_upload:
            raise Refusal(413, f"the file has {length / 1e6:.1f} MB; at most {self.max_upload / 1e6:g} are taken")
        name = request.query_params.get("name", "")[:300] or "picture"
        with TemporaryDirectory(prefix="rrt_upload_") as folder:
            file = Path(folder) / "picture"
            await _receive(request, file)
            return _json(await run_in_threadpool(self.service.search_file, file, name, box, wanted))


async def _receive(request: Request, file: Path) -> None:
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            with open(file, "wb") as out:
                async for block in request.stream():
                    out.write(block)
    except TimeoutError:
        raise Refusal(408, "the image did not arrive") from None


def _checked_search(request: Request) -> tuple[int, Box | None]:
    """(Bytes of the body, box searched for or None) of a search, which only this page itself may send. Raises
    Refusal."""
    length = request.headers.get("content-length", "")
    if not re.fullmatch(r"\d{1,12}", length, re.ASCII) or "transfer-encoding" in request.headers:
        raise Refusal(411, "the size of the image is missing (Content-Length)")
    if request.headers.get("origin") != f"http://{request.headers['host']}":
        raise Refusal(403, "searches are taken from this page alone; a program sends the address of the page as Origin")
    box = request.query_params.get("box", "")
    try:
        return int(length), parse_box(box) if box else None
    except InputError as error:
        raise Refusal(400, str(error)) from None


def _without_body(request: Request) -> Box | None:
    length, box = _checked_search(request)
    if length:
        raise Refusal(400, "this search has no body")
    return box


def _wanted(request: Request) -> Wanted:
    given = request.query_params
    for name in ("since", "until"):
        if not re.fullmatch(r"(\d{4}-\d\d-\d\d)?", given.get(name, ""), re.ASCII):
            raise Refusal(400, f"{name} is to be a day, as 2024-05-31")
    return Wanted(*(given.get(name, "")[:1000] for name in ("text", "folder", "since", "until")))


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise Refusal(400, f"{name} is to be a number")
    return int(text)


def _jpeg(content: bytes) -> Response:
    # The address contains the SHA-256 of the photograph, so that what it shows never changes.
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})


def _json(value: dict, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status, headers, "application/json")


def _refusal(status: int, message: str) -> Response:
    headers = {"Connection": "close"} | ({"Retry-After": "1"} if status == 503 else {})
    return _json({"error": message}, status, headers)


def refuse(request: Request, refusal: Exception) -> Response:
    """The answer to a request that was refused."""
    assert isinstance(refusal, Refusal)
    return _refusal(refusal.status, str(refusal))


def _nothing_there(*_) -> Response:
    return _refusal(404, "there is nothing at this address")


def _failed(request: Request, error: Exception) -> Response:
    what = f"{request.method} {request.scope['path'][:200]!r}"
    print(f"error: {what}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return _refusal(500, "the search failed; the console it was started on says more")
