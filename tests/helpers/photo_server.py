"""The page of a photo index at work, and requests to it."""

import http.client
import json
import threading
from contextlib import contextmanager

from photo_folders import FakeDescriber

from rrt.photo_index.query import PhotoIndex
from rrt.photo_index.ranking import Ranker
from rrt.photo_index.server import PageServer, ServerSettings
from rrt.photo_index.service import Service

MAX_UPLOAD = 300_000


@contextmanager
def serving(folder, describer=None, settings=None, ranker=None, **more):
    """A PageServer at work."""
    service = Service(
        PhotoIndex(folder), ranker or Ranker("none"), describer or FakeDescriber(), k=5, max_pixels=1_000_000, **more
    )
    server = PageServer(service, settings or ServerSettings(port=0, max_upload=MAX_UPLOAD))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def request(server, method, path, body=None, **headers):
    """-> (status, headers, body). A POST has the headers of the page's own unless others are given; None leaves one
    out."""
    host = f"127.0.0.1:{server.port}"
    given = {"Host": host} | (
        {"Origin": f"http://{host}", "Content-Type": "application/octet-stream"} if method == "POST" else {}
    )
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None or method == "POST":
            given.setdefault("Content-Length", str(len(body or b"")))
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders()
        if body:
            connection.send(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def refused(server, status, part, *args, **headers):
    """-> headers of an answer that is an error: its status, and a part of what it says."""
    found, given, body = request(server, *args, **headers)
    assert found == status and part in json.loads(body)["error"], (found, body)
    return given
