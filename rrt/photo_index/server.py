"""Where the web page of an index listens, which host names it accepts, and how long a request may take; uvicorn serves
the application of rrt/photo_index/app.py."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
import sys
from contextlib import closing, nullcontext
from dataclasses import dataclass

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rrt.errors import InputError, check_count
from rrt.files.images import LIMIT, megapixel_limit
from rrt.photo_index.access import VARIABLE, is_loopback, own_address, token_for
from rrt.photo_index.app import HEADERS, make_app
from rrt.photo_index.extraction import open_describer
from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.ranking import ranker_of
from rrt.photo_index.service import Service

MOST_CONNECTIONS = 64
HEAD_SECONDS = 20.0  # for sending the head of a request, and for reading the previous answer
REQUEST_SECONDS = 300.0  # for a whole request, from its head to its answer
LONGEST_DEADLINE = 240.0  # the largest --deadline
LAST_SECONDS = 5  # for running requests when the server ends


@dataclass(frozen=True)
class ServerSettings:
    """host, port: where to listen; names: further host names that the page accepts; max_upload: largest image file in
    bytes; token: that each request must show, None = a new one where other machines can reach the page, else none;
    deadline: seconds until an answer must begin. Raises InputError for values out of range."""

    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    max_upload: int = 32_000_000
    token: str | None = None
    deadline: float = 120.0

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise InputError(f"--port {self.port}: expected 0 to 65535")
        check_count("max_upload_mb", self.max_upload)
        if not 0 < self.deadline <= LONGEST_DEADLINE:
            raise InputError(f"--deadline {self.deadline:g}: expected seconds above 0, at most {LONGEST_DEADLINE:g}")


class Connection(H11Protocol):
    """A connection that is closed when a request, or the reading of an answer, takes too long. When there are more than
    MOST_CONNECTIONS, the one whose client has kept the server waiting longest is closed, so that slow clients shut
    nobody out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._ends_within(HEAD_SECONDS)
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [known for known in self.connections if isinstance(known, Connection) and known._is_waiting()]
            slowest = min(waiting, key=lambda known: known._since)
            self.connections.discard(slowest)
            slowest.transport.abort()

    def handle_events(self) -> None:
        """Data were received."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._ends_within(REQUEST_SECONDS)

    def on_response_complete(self) -> None:
        """An answer was handed over for sending."""
        self._ends_within(HEAD_SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection was closed by either side."""
        if self._deadline:
            self._deadline.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not a valid HTTP request, such as one with two Host headers."""
        body = json.dumps({"error": msg}).encode()
        headers = HEADERS | {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = ["HTTP/1.1 400 Bad Request", *(f"{name}: {value}" for name, value in headers.items())]
        self.transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("ascii") + body)
        self.transport.close()

    def _is_waiting(self) -> bool:
        """Whether the client is to act next: to send a request, or more of it, or to read the answer."""
        return self.cycle is None or self.cycle.response_started or self.cycle.more_body

    def _ends_within(self, seconds: float) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._since = self.loop.time()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)


class PageServer:
    """Serves a Service. It listens from the start, and answers from run() until stop(). ``address`` is that of its
    page. Raises InputError when it cannot listen there."""

    def __init__(self, service: Service, settings: ServerSettings | None = None):
        self.service, self.settings = service, settings or ServerSettings()
        host, port = self.settings.host, self.settings.port
        self.token = token_for(host, self.settings.token)
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = kind == socket.AF_INET6 and socket.has_dualstack_ipv6()
        try:
            self._socket = socket.create_server((host, port), family=kind, dualstack_ipv6=both)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{host}:{port}: cannot listen there ({reason}); give another --port or --host") from None
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(service, self.knows, self.settings.max_upload, self.token, self.settings.deadline),
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                log_config=None,
                log_level="critical",
                access_log=False,
                timeout_graceful_shutdown=LAST_SECONDS,
            )
        )

    @property
    def address(self) -> str:
        """The page's address for a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def shared_address(self) -> str:
        """The page's address for a browser on any machine that can reach it; with the token, if that is a new one."""
        host = own_address(self.settings.host)
        token = f"?token={'...' if self.settings.token else self.token}" if self.token else ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{token}"

    def knows(self, host: str) -> bool:
        """Whether a Host header (a name, perhaps with a port) may mean this page: its address, this machine, an allowed
        name, and, where other machines are served, any numeric address. Other names that lead here are those of an
        attack (DNS rebinding)."""
        name, colon, port = host.rpartition(":")
        if not colon or port.endswith("]"):
            name, port = host, "80"
        name = name.strip("[]").lower()
        if int(port or 80) != self.port:
            return False
        if name in {"localhost", "127.0.0.1", "::1", self.settings.host.lower(), *map(str.lower, self.settings.names)}:
            return True
        try:
            ipaddress.ip_address(name)
            return not ipaddress.ip_address(self.settings.host).is_loopback
        except ValueError:
            return False

    def run(self) -> None:
        """Answers requests until stop(), SIGINT or SIGTERM; running requests then have LAST_SECONDS to end."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Makes run() end; may be called from another thread."""
        self._server.should_exit = True


def serve_index(args) -> None:
    """The command: serves the page until it is interrupted. Raises InputError."""
    for name in ("max_upload_mb", "max_megapixels"):
        if not 0 < getattr(args, name) < 1e6:
            raise InputError(f"--{name} {getattr(args, name)}: expected a number above 0")
    check_count("k", args.k)
    os.environ[LIMIT] = str(max(args.max_megapixels, megapixel_limit()))  # for child processes, too
    token = args.token or os.environ.get(VARIABLE) or None
    limits = int(args.max_upload_mb * 1e6), token, args.deadline
    settings = ServerSettings(args.host, args.port, tuple(args.allow_host), *limits)
    index = PhotoIndex(args.index)
    describer = open_describer(index.folder, index.manifest.extraction)
    try:
        ranker = ranker_of(index.manifest, args, index.whitening)
        server = PageServer(Service(index, ranker, describer, args.k, int(args.max_megapixels * 1e6)), settings)
        describer.start()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print(f"{len(index.entries):,} photographs at {server.shared_address} (Ctrl-C ends)", flush=True)
        if not is_loopback(args.host):
            print("note: whoever has this address may look; what is looked at travels unencrypted", flush=True)
        if ranker.note:
            print(f"note: {ranker.note}", flush=True)
        with closing(server.service.duplicates), _followed(index) if args.watch else nullcontext():
            server.run()
    except KeyboardInterrupt:
        print()
    finally:
        describer.close()


def _followed(index: PhotoIndex):
    from rrt.photo_index.update import BuildSettings
    from rrt.photo_index.watch import Watch, followed

    return followed(Watch(index.folder, index.manifest.root, BuildSettings(), lambda line: print(line, flush=True)))
