"""The downloader of this project: files that are whole and checked, and continued where a connection was cut.

Needs nothing but the standard library and the progress bar; `rrt.files.archives` unpacks what it fetched.
"""

import errno
import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from urllib.parse import urlsplit

from rrt.errors import InputError, describe_error
from rrt.files.atomic import atomic_path, flush_to_disk, sha256_of_file
from rrt.files.locks import locked
from rrt.progress import bar, read_shown, say
from rrt.version import __version__

_CHUNK = 1 << 20
# A server that asks for a longer pause than this (seconds) is asked again earlier.
_LONGEST_WAIT = 120
# Statuses below 500 that may pass: request timeout, too early, too many requests.
_PASSING_STATUSES = (408, 425, 429)
_HEX_DIGITS = {"sha256": 64, "md5": 32}
# A line that says what is missing names so many.
_LISTED = 30
_MIRROR = "name a mirror with --base_url"


class _PassingFault(Exception):
    """A fault of connection or server that the next attempt may not meet. wait: seconds the server asks for."""

    def __init__(self, message, wait=0):
        super().__init__(message)
        self.wait = wait


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
    sums = _checked_sums(sha256=sha256, md5=md5)
    if path.exists() and not _difference(path, sums, size, shown):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    source = part.with_name(part.name + ".json")
    with bar(what=path.name, unit="B", total=size, shown=shown) as fetched, _held(part) as file:
        try:
            _fetch_and_check(
                _Transfer(url, file, source, bool(sums), size, timeout, fetched, on_bytes), sums, retries, backoff
            )
            os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            if not os.fstat(file.fileno()).st_size:
                part.unlink(missing_ok=True)
                source.unlink(missing_ok=True)
            raise
        flush_to_disk(path.parent)
        source.unlink(missing_ok=True)
    return path


def file_address(base_url, *names):
    """The address of a file below a base address, with or without a slash at its end."""
    return "/".join((base_url.rstrip("/"), *names))


def check_address(url):
    """InputError unless the text can be the address of a file or folder of a web server."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"{url}: not an address that starts with http:// or https:// and names a server; {_MIRROR}")


def describe_download(path, url):
    """{address, size in bytes, sha256} of a fetched file: the record that is kept beside what came out of it."""
    return {"url": url, "size": os.path.getsize(path), "sha256": sha256_of_file(path)}


def parse_checksums(texts, names):
    """Options of the form NAME=HEX -> {name: SHA-256 in small letters, or None for `NAME=none`}. Raises InputError.

    names: {accepted name: name it stands for}.
    """
    sums = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in names:
            raise InputError(f"--sha256 {text}: no file {name!r} here; expected one of {', '.join(names)}")
        sums[names[name]] = None if value == "none" else _checked_sums(sha256=value or "nothing")["sha256"]
    return sums


def fetch_each(names, fetch, kind, parallel=1):
    """`fetch(name)` for every name, also after one that failed with an InputError or OSError; at the end one InputError
    tells what is missing.

    kind: what the names are, for the message, as in `models`. parallel: so many at once, in threads.
    """

    def failure_of(name):
        try:
            fetch(name)
        except (InputError, OSError) as error:
            say(f"{name}: missing ({describe_error(error)})")
            return error
        return None

    if parallel > 1:
        # Its threads are daemons: an interrupt need not wait for files that are half there.
        with ThreadPool(parallel) as pool:
            outcomes = list(pool.imap(failure_of, names))
    else:
        outcomes = [failure_of(name) for name in names]
    failures = {name: error for name, error in zip(names, outcomes, strict=True) if error}
    if failures:
        listed = [*list(failures)[:_LISTED], *([f"{len(failures) - _LISTED} more"] if len(failures) > _LISTED else [])]
        raise InputError(
            f"{len(failures)} of {len(names)} {kind} are missing: {', '.join(listed)}; the first: "
            f"{describe_error(next(iter(failures.values())))}"
        )


class _Transfer:
    """One file on its way: where from, the open part file, what is remembered of the source, how much the file must
    have."""

    def __init__(self, url, file, source, checked, size, timeout, bar, on_bytes=None):
        self.url, self.file, self.source, self.checked = url, file, source, checked
        self.size, self.timeout, self.bar, self.on_bytes = size, timeout, bar, on_bytes

    def length(self):
        """Bytes that have come."""
        return os.fstat(self.file.fileno()).st_size

    def attempt(self):
        """Ask for what is missing and append it. Raises _PassingFault, with all that came kept, and InputError."""
        offset, known = self.length(), _read_source(self.source)
        continued = offset > 0 and known.get("url") == self.url and bool(known.get("validator") or self.checked)
        if continued and known.get("size") == offset:
            return
        headers = {"User-Agent": f"rrt/{__version__}"}
        if continued:
            headers["Range"] = f"bytes={offset}-"
            if known.get("validator"):
                headers["If-Range"] = known["validator"]
        with _faults_of(self.url):
            try:
                response = urllib.request.urlopen(
                    urllib.request.Request(self.url, headers=headers), timeout=self.timeout
                )
            except urllib.error.HTTPError as error:
                if error.code != 416 or not continued:
                    raise
                error.close()
                if error.headers.get("Content-Range") == f"bytes */{offset}":
                    return
                _discard(self.file, self.source)
                raise _PassingFault("what had come is no part of the file there is now") from None
        with response:
            total = self._start(response, offset if continued else None, known)
            self._append(response, total)

    def _start(self, response, offset, known):
        """Check the header of an answer and make the part file ready for its bytes -> bytes of the whole file, or
        None."""
        if response.status == 206 and offset is not None:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            total = known.get("size") if not found or found[2] == "*" else int(found[2])
            if not found or int(found[1]) != offset or known.get("size") not in (None, total):
                _discard(self.file, self.source)
                raise _PassingFault("the server sent another range than it was asked for")
        elif response.status == 200:
            offset, total = 0, _whole_number(response.headers.get("Content-Length"))
            if self.size is not None and total not in (None, self.size):
                raise InputError(f"{self.url}: the server offers {total} bytes, expected {self.size}; {_MIRROR}")
            _discard(self.file, self.source)
            with atomic_path(self.source) as temporary:
                temporary.write_text(
                    json.dumps({"url": self.url, "size": total, "validator": _validator(response.headers)})
                )
        else:
            raise InputError(f"{self.url}: answered with the status {response.status}; {_MIRROR}")
        self.bar.total, self.bar.n, self.bar.initial = total, offset, offset
        self.bar.refresh()
        return total

    def _append(self, response, total):
        # Not read to the end of the stream: a server may keep the connection open after the last byte.
        while total is None or self.length() < total:
            with _faults_of(self.url):
                data = response.read1(_CHUNK if total is None else min(_CHUNK, total - self.length()))
            if not data:
                break
            self.bar.update(len(data))
            if self.on_bytes:
                self.on_bytes(len(data), total)
            self._write(memoryview(data))
        if total is not None and self.length() < total:
            raise _PassingFault(f"the connection ended after {self.length()} of {total} bytes")

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
        _discard(transfer.file, transfer.source)
        if last:
            raise InputError(
                f"{transfer.url}: {wrong}, twice; the file was changed or damaged at its source, {_MIRROR}"
            )


def _fetch(transfer, retries, backoff):
    """Attempts until all has come. Only attempts that bring nothing new count: a line cut every minute still gets
    there."""
    furthest, failures = transfer.length(), 0
    while True:
        try:
            return transfer.attempt()
        except _PassingFault as fault:
            length = transfer.length()
            failures = failures + 1 if length <= furthest else 1
            furthest = max(furthest, length)
            if failures > retries:
                kept = f"{length} bytes are kept and continued when you run again" if length else "run again later"
                raise InputError(
                    f"{transfer.url}: {fault} (attempt {failures} in a row); {kept}, or {_MIRROR}"
                ) from None
            wait = max(backoff * 2 ** (failures - 1), min(fault.wait, _LONGEST_WAIT))
            transfer.bar.set_postfix_str(f"{fault}; next attempt in {wait:.0f} s")
            time.sleep(wait)
            transfer.bar.set_postfix_str("")


@contextmanager
def _held(part):
    """The part file, open for appending, unbuffered, for this process alone."""
    with locked(part.with_name(f"{part.name}.lock"), "downloading", part), open(part, "ab", buffering=0) as file:
        yield file


@contextmanager
def _faults_of(url):
    """Sorts what a connection can raise into faults that may pass and errors that stay."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"HTTP status {error.code} ({error.reason})"
        if error.code >= 500 or error.code in _PASSING_STATUSES:
            raise _PassingFault(reason, _whole_number(error.headers.get("Retry-After")) or 0) from None
        raise InputError(f"{url}: {reason}; if the file has moved, {_MIRROR}") from None
    except (http.client.InvalidURL, UnicodeError) as error:
        raise InputError(f"{url}: not an address ({error}); {_MIRROR}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(
                f"{url}: the server's certificate cannot be verified ({reason.verify_message}); mend the machine's "
                "clock or "
                f"certificates, or {_MIRROR}"
            ) from None
        raise _PassingFault(str(reason) or type(reason).__name__) from None


def _discard(file, source):
    source.unlink(missing_ok=True)
    file.truncate(0)


def _read_source(source):
    try:
        known = json.loads(source.read_bytes())
    except (OSError, ValueError):
        known = None
    return known if isinstance(known, dict) else {}


def _validator(headers):
    # A weak ETag promises the same meaning, not the same bytes.
    tag = headers.get("ETag") or ""
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _difference(path, sums, size, shown):
    """What is wrong with a file, or ''."""
    length = os.path.getsize(path)
    if size is not None and length != size:
        return f"{length} bytes came, expected {size}"
    for kind, expected in sums.items():
        digest = hashlib.new(kind)
        with open(path, "rb") as file:
            for data in read_shown(file, f"{kind} of {Path(path).name}", shown):
                digest.update(data)
        found = digest.hexdigest()
        if found != expected:
            return f"{kind} is {found}, expected {expected}"
    return ""


def _checked_sums(**sums):
    for kind, value in sums.items():
        if value is not None and not re.fullmatch(f"[0-9a-fA-F]{{{_HEX_DIGITS[kind]}}}", value):
            raise InputError(f"{kind} {value[:80]!r}: expected {_HEX_DIGITS[kind]} hexadecimal digits")
    return {kind: value.lower() for kind, value in sums.items() if value is not None}


def _whole_number(text):
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
