"""A web server on this machine for the tests of downloads, which can fail in the ways real ones do; and small tar
archives."""

import gzip
import hashlib
import io
import re
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """files: {path: bytes}. faults: {path: [fault, ...]}, one taken by each request until none is left:
    ("status", 500), ("status", 503, {"Retry-After": "0"}), ("cut", n) closes after n bytes of the body, ("stall", n)
    sends nothing more after n bytes, ("answer", status, {header: value}, body) answers just that. requests: [(path,
    Range or None)]."""

    def __init__(self):
        self.files, self.faults, self.requests = {}, {}, []
        self.ranges = self.validators = self.lengths = True
        self.base_url = ""
        self.released = threading.Event()

    def etag(self, path):
        return f'"{hashlib.md5(self.files[path]).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site, wanted = self.server.site, self.headers.get("Range")
        site.requests.append((self.path, wanted))
        faults = site.faults.get(self.path)
        fault = faults.pop(0) if faults else ("none",)
        if fault[0] == "status":
            return self.answer(fault[1], fault[2] if len(fault) > 2 else {}, b"sorry")
        if fault[0] == "answer":
            return self.answer(*fault[1:])
        if self.path not in site.files:
            return self.answer(404, {}, b"not here")
        body, status = site.files[self.path], 200
        headers = {"ETag": site.etag(self.path)} if site.validators else {}
        condition = self.headers.get("If-Range")
        if wanted and site.ranges and condition in (None, headers.get("ETag")):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(body):
                return self.answer(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        self.answer(status, headers, body, fault)

    def answer(self, status, headers, body, fault=("none",)):
        self.send_response(status)
        if self.server.site.lengths:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: fault[1]] if fault[0] in ("cut", "stall") else body)
        if fault[0] == "stall":
            self.wfile.flush()
            self.server.site.released.wait(20)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """A Site that is served while the block runs; `site.base_url` is its address without a slash at the end."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads, server.site = True, site
    site.base_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield site
    finally:
        site.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def tar_bytes(members, compress=True):
    """A tar archive of {name: bytes, or a tarfile.TarInfo without content} or of pairs of the two."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0) if compress else buffer.getvalue()


def special(name, kind, linkname=""):
    """A tar member without content: tarfile.SYMTYPE, LNKTYPE, CHRTYPE, FIFOTYPE, DIRTYPE."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, linkname, 0o755
    return info


def asked_for(mirror):
    return [path for path, _ in mirror.requests]
