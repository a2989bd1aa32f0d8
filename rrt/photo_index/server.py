"""The local web page of an index: where it listens, and what it lets in (rrt/photo_index/web.py answers)."""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from http.server import ThreadingHTTPServer

from rrt.errors import InputError, check_count
from rrt.photo_index.extraction import Describer
from rrt.photo_index.query import PhotoIndex, ranker_of
from rrt.photo_index.service import Service
from rrt.photo_index.web import Handler

_CONNECTIONS = 64
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class ServerSettings:
    """host, port: listened at; names: further names the page may be called by; max_upload: bytes of an image's
    file."""

    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    max_upload: int = 32_000_000

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise InputError(f"--port {self.port}: expected 0 to 65535")
        check_count("max_upload_mb", self.max_upload)


class PageServer(ThreadingHTTPServer):
    """Serves a Service; ``address`` is that of its page."""

    daemon_threads = True
    request_queue_size = _CONNECTIONS

    def __init__(self, service: Service, settings: ServerSettings = ServerSettings()):
        self.service, self.settings = service, settings
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        try:
            super().__init__((settings.host, settings.port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{settings.host}:{settings.port}: cannot listen there ({reason}); give another --port or --host"
            ) from None

    @property
    def address(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def knows(self, host: str) -> bool:
        """Whether a Host header may mean this page: its address, this machine, a name that was allowed, and, where
        other machines are served, any numeric address. Names of strangers that lead here are those of an attack (DNS
        rebinding)."""
        name, _, port = host.rpartition(":")
        if not port.isdigit():
            name, port = host, "80"
        name = name.strip("[]").lower()
        if int(port) != self.server_port:
            return False
        if name in {"localhost", "127.0.0.1", "::1", self.settings.host.lower(), *map(str.lower, self.settings.names)}:
            return True
        try:
            ipaddress.ip_address(name)
            return not ipaddress.ip_address(self.settings.host).is_loopback
        except ValueError:
            return False

    def process_request(self, request, client_address):
        if not self._free.acquire(blocking=False):
            try:
                request.settimeout(1)
                request.sendall(_BUSY)
            except OSError:
                pass
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"error: {client_address[0]}: {type(error).__name__}: {error}", file=sys.stderr)


def serve_index(args) -> None:
    """The command: serves until it is interrupted. Raises InputError."""
    for name in ("max_upload_mb", "max_megapixels"):
        if not 0 < getattr(args, name) < 1e6:
            raise InputError(f"--{name} {getattr(args, name)}: expected a number above 0")
    check_count("k", args.k)
    settings = ServerSettings(args.host, args.port, tuple(args.allow_host), int(args.max_upload_mb * 1e6))
    index = PhotoIndex(args.index)
    describer = Describer(index.manifest.extraction["flags"])
    try:
        ranker = ranker_of(index.manifest, args)
        server = PageServer(Service(index, ranker, describer, args.k, int(args.max_megapixels * 1e6)), settings)
        describer.start()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print(f"{len(index.entries):,} photographs at {server.address} (Ctrl-C ends)", flush=True)
        if ranker.note:
            print(f"note: {ranker.note}", flush=True)
        with server:
            server.serve_forever(0.2)
    except KeyboardInterrupt:
        print()
    finally:
        describer.close()
