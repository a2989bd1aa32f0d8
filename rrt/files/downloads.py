"""The downloader of this project: files that are whole and checked, and continued where a connection was cut.

HTTP is the library requests'; what it lacks, continuing a broken answer by Range, is here.
`rrt.files.archives` unpacks what was fetched.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
import time
from contextlib import suppress
from pathlib import Path

import requests
from urllib3 import Retry
from urllib3.exceptions import HTTPError, InvalidHeader, ProtocolError

from rrt.errors import InputError
from rrt.files.atomic import digest_of_file, flush_to_disk, parse_json, write_json
from rrt.files.locks import locked
from rrt.files.mirrors import MIRROR, check_address, checked_sums
from rrt.progress import bar
from rrt.version import __version__

_CHUNK = 1 << 20
# A server that asks for a longer pause than this (seconds) is asked again earlier.
_LONGEST_WAIT = 120
# Below 500: request timeout, too early, too many requests.
_RULES = Retry(status_forcelist=[408, 425, 429, *range(500, 600)])


def download(
    url, path, *, sha256=None, md5=None, size=None, retries=4, timeout=60, backoff=1.0, shown=True, on_bytes=None
):
    """Fetch `url` (http or https) to `path` -> Path. The file appears under its name only when it is whole and right.

    What has come lies in `<name>.part`, its source in `<name>.part.json`; the next attempt, of this run or a later one,
    continues there by HTTP Range when the server still has the same file (ETag, else Last-Modified; without either only
    where a checksum will tell), and starts over otherwise. A file at `path` that fits checksum and size is left alone
    without asking the server, one that does not is replaced.

    sha256, md5: hexadecimal; size: bytes; each is checked where given. retries: further attempts after one that brought
    nothing new (cut connection, timeout, status 5xx, 408, 425 or 429). timeout: seconds without a byte. backoff:
    seconds before the first retry, doubled for each further one. shown: False where the caller has a bar. on_bytes:
    called with (bytes that came, bytes of the whole file or None) again and again, for a bar over several files. Raises
    InputError, at once for other statuses such as 404 or 403, and when the checksum is wrong twice.
    """
    check_address(url)
    path = Path(path)
    sums = checked_sums(sha256=sha256, md5=md5)
    if path.exists() and not _difference(path, sums, size, shown):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    source = part.with_name(part.name + ".json")
    with (
        bar(what=path.name, unit="B", total=size, shown=shown) as fetched,
        locked(part.with_name(part.name + ".lock"), "downloading", part),
        open(part, "ab", buffering=0) as file,
    ):
        try:
            transfer = _Transfer(url, file, source, bool(sums), size, timeout, fetched, on_bytes)
            _fetch_and_check(transfer, sums, retries, backoff)
            os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            if not transfer.length():
                part.unlink(missing_ok=True)
                source.unlink(missing_ok=True)
            raise
        flush_to_disk(path.parent)
        source.unlink(missing_ok=True)
    return path


class _Transfer:
    """One file on its way: its address, the open part file, the note on its source, and what must come."""

    def __init__(self, url, file, source, checked, size, timeout, bar, on_bytes):
        self.url, self.file, self.source, self.checked = url, file, source, checked
        self.size, self.timeout, self.bar, self.on_bytes = size, timeout, bar, on_bytes

    def length(self):
        """Bytes that have come."""
        return os.fstat(self.file.fileno()).st_size

    def discard(self):
        """Forget what has come."""
        self.source.unlink(missing_ok=True)
        self.file.truncate(0)

    def attempt(self):
        """Ask for what is missing and append it. All that comes before an error is kept."""
        offset, known = self.length(), self._known()
        continued = offset > 0 and known.get("url") == self.url and (known.get("validator") or self.checked)
        if continued and known.get("size") == offset:
            return
        headers = {
            "User-Agent": f"rrt/{__version__}",
            # Compressed on the way, neither ranges nor lengths would be those of the file.
            "Accept-Encoding": "identity",
            "Range": f"bytes={offset}-" if continued else None,
            "If-Range": known.get("validator") if continued else None,
        }
        trusted = ssl.get_default_verify_paths()
        certificates = trusted.cafile or trusted.capath or True
        with requests.get(self.url, headers=headers, stream=True, timeout=self.timeout, verify=certificates) as answer:
            if answer.status_code == 200:
                offset, total = 0, self._start(answer.headers)
            elif answer.status_code in (206, 416) and continued:
                span = answer.headers.get("Content-Range", "")
                if answer.status_code == 416 and span == f"bytes */{offset}":
                    return
                found = re.fullmatch(rf"bytes {offset}-\d+/(\d+|\*)", span)
                total = int(found[1]) if found and found[1] != "*" else known.get("size")
                if not found or known.get("size") not in (None, total):
                    self.discard()
                    raise requests.RequestException("the server sent no continuation of what had come")
            else:
                raise requests.HTTPError(f"HTTP status {answer.status_code} ({answer.reason})", response=answer)
            self.bar.total, self.bar.n, self.bar.initial = total, offset, offset
            self.bar.refresh()
            self._append(answer.raw, total)

    def _known(self):
        try:
            known = parse_json(self.source.read_bytes())
        except (OSError, ValueError):
            known = None
        return known if isinstance(known, dict) else {}

    def _start(self, headers):
        """Make the part file ready for the whole file -> its bytes, or None."""
        length = headers.get("Content-Length", "")
        total = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        if self.size is not None and total not in (None, self.size):
            raise InputError(f"{self.url}: the server offers {total} bytes, expected {self.size}; {MIRROR}")
        self.discard()
        tag = headers.get("ETag", "")
        # A weak ETag promises the same meaning, not the same bytes.
        validator = tag if tag.startswith('"') else headers.get("Last-Modified")
        write_json(self.source, {"url": self.url, "size": total, "validator": validator})
        return total

    def _append(self, raw, total):
        cut = False
        # Not read to the end of the stream: a server may keep the connection open after the last byte.
        while total is None or self.length() < total:
            try:
                data = raw.read1(_CHUNK if total is None else min(_CHUNK, total - self.length()), decode_content=False)
            except ProtocolError:
                cut = True
                break
            if not data:
                break
            self.bar.update(len(data))
            if self.on_bytes:
                self.on_bytes(len(data), total)
            self._write(memoryview(data))
        if cut or (total is not None and self.length() < total):
            whole = "" if total is None else f" of {total}"
            raise requests.RequestException(f"the connection ended after {self.length()}{whole} bytes")

    def _write(self, data):
        try:
            while data:
                data = data[self.file.write(data) :]
        except OSError as error:
            remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend the disk"
            raise InputError(
                f"{self.file.name}: cannot be written ({error.strerror}); {remedy} and run again, it is continued"
            ) from None


def _fetch_and_check(transfer, sums, retries, backoff):
    for last in (False, True):
        _fetch(transfer, retries, backoff)
        wrong = _difference(transfer.file.name, sums, transfer.size, not transfer.bar.disable)
        if not wrong:
            return
        transfer.discard()
        if last:
            raise InputError(f"{transfer.url}: {wrong}, twice; the file was changed or damaged at its source, {MIRROR}")


def _fetch(transfer, retries, backoff):
    """Attempts until all has come. Only attempts that bring nothing new count: a line cut every minute still gets
    there."""
    furthest, failures = transfer.length(), 0
    while True:
        try:
            return transfer.attempt()
        except (requests.RequestException, HTTPError) as error:
            fault, pause = _passing_fault(transfer.url, error)
            length = transfer.length()
            failures = failures + 1 if length <= furthest else 1
            furthest = max(furthest, length)
            if failures > retries:
                kept = f"{length} bytes are kept and continued when you run again" if length else "run again later"
                raise InputError(
                    f"{transfer.url}: {fault} (attempt {failures} in a row); {kept}, or {MIRROR}"
                ) from None
            wait = max(backoff * 2 ** (failures - 1), min(pause, _LONGEST_WAIT))
            transfer.bar.set_postfix_str(f"{fault}; next attempt in {wait:.0f} s")
            time.sleep(wait)
            transfer.bar.set_postfix_str("")


def _passing_fault(url, error):
    """(what went wrong, seconds the server asks to wait) where the next attempt may not meet it, else InputError."""
    answer = error.response if isinstance(error, requests.HTTPError) else None
    if answer is not None and not _RULES.is_retry("GET", answer.status_code):
        raise InputError(f"{url}: {error}; if the file has moved, {MIRROR}") from None
    if isinstance(error, (ValueError, requests.TooManyRedirects)):
        raise InputError(f"{url}: cannot be fetched ({error}); {MIRROR}") from None
    if answer is not None:
        wait = None
        with suppress(InvalidHeader):
            wait = _RULES.get_retry_after(answer.raw)
        return str(error), wait or 0
    # What the system said, in the wrappings of two libraries.
    while inner := error.__cause__ or error.__context__:
        error = inner
    if isinstance(error, ssl.SSLCertVerificationError):
        raise InputError(
            f"{url}: the server's certificate cannot be verified ({error.verify_message}); mend the machine's clock "
            f"or certificates, or {MIRROR}"
        ) from None
    return str(error) or type(error).__name__, 0


def _difference(path, sums, size, shown):
    """What is wrong with a file, or ''."""
    length = os.path.getsize(path)
    if size is not None and length != size:
        return f"{length} bytes came, expected {size}"
    for kind, expected in sums.items():
        found = digest_of_file(path, kind, shown)
        if found != expected:
            return f"{kind} is {found}, expected {expected}"
    return ""
