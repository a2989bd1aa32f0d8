"""Files of a mirror: their addresses, the options for their checksums, and a list of those that could not be had."""

from __future__ import annotations

import os
import re
from multiprocessing.pool import ThreadPool
from urllib.parse import urlsplit

from rrt.errors import InputError, describe_error
from rrt.files.atomic import sha256_of_file
from rrt.progress import say

_HEX_DIGITS = {"sha256": 64, "md5": 32}
# A line that says what is missing names so many.
_LISTED = 30
# The remedy at the end of most messages.
MIRROR = "name a mirror with --base_url"


def file_address(base_url, *names):
    """The address of a file below a base address, with or without a slash at its end."""
    return "/".join((base_url.rstrip("/"), *names))


def check_address(url):
    """InputError unless the text can be the address of a file or folder of a web server."""
    try:
        parts = urlsplit(url)
        # Reading the port raises ValueError unless it is a number.
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and re.fullmatch("[!-~]+", url)
    except ValueError:
        fits = False
    if not fits:
        raise InputError(f"{url}: not an address that starts with http:// or https:// and names a server; {MIRROR}")


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
        sums[names[name]] = None if value == "none" else checked_sums(sha256=value or "nothing")["sha256"]
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


def checked_sums(**sums):
    """{sha256 or md5: hexadecimal digits in small letters} of those that are not None. Raises InputError."""
    for kind, value in sums.items():
        if value is not None and not re.fullmatch(f"[0-9a-fA-F]{{{_HEX_DIGITS[kind]}}}", value):
            raise InputError(f"{kind} {value[:80]!r}: expected {_HEX_DIGITS[kind]} hexadecimal digits")
    return {kind: value.lower() for kind, value in sums.items() if value is not None}
