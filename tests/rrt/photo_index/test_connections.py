"""What the server of the web page does to slow, many, odd and late connections."""

import json
import socket
import subprocess
import sys
import threading
import time

import pytest
from photo_folders import FakeDescriber, build, draw, use_fakes
from photo_server import request, serving

from rrt.photo_index import app
from rrt.photo_index import server as server_module
from rrt.photo_index.server import MOST_CONNECTIONS


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("connections")
    for i in range(3):
        draw(folder / "photos" / f"p{i}.png", i)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    return folder / "index"


@pytest.fixture
def quick(monkeypatch):
    """Short time limits."""
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(app, "UPLOAD_SECONDS", 1.0)


def connected(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def received(connection):
    """All that comes until the server closes the connection."""
    found = b""
    try:
        while block := connection.recv(65536):
            found += block
    except ConnectionResetError:
        pass
    return found


def upload_head(server, length, *more):
    host = f"127.0.0.1:{server.port}"
    lines = [
        "POST /search HTTP/1.1",
        f"Host: {host}",
        f"Origin: http://{host}",
        "Content-Type: application/octet-stream",
        f"Content-Length: {length}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_head_has_what_a_get_has_but_the_body(index):
    with serving(index) as server:
        for path in ("/", "/photographs", "/main.js"):
            status, headers, body = request(server, "GET", path)
            found, known, nothing = request(server, "HEAD", path)
            assert (found, nothing) == (status, b"") == (200, b"")
            assert known["Content-Length"] == headers["Content-Length"] == str(len(body))
        assert request(server, "HEAD", "/search")[0] == 404
        assert request(server, "HEAD", "/", Host="attacker.example")[0] == 403


def test_two_host_headers_are_refused_whatever_they_say(index):
    with serving(index) as server:
        own = f"Host: 127.0.0.1:{server.port}\r\n"
        for hosts in (own * 2, own + "Host: attacker.example\r\n", "Host: attacker.example\r\n" + own, ""):
            with connected(server) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\n{hosts}\r\n".encode())
                head, _, body = received(connection).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400") and "error" in json.loads(body), hosts
            assert b"content-security-policy: default-src 'none'" in head.lower()


def test_what_is_no_http_is_refused_and_the_server_lives_on(index):
    with serving(index) as server:
        for text in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"a" * 99999,
        ):
            with connected(server) as connection:
                connection.sendall(text)
                assert received(connection).startswith(b"HTTP/1.1 400")
        assert request(server, "GET", "/")[0] == 200


def test_a_head_that_comes_too_slowly_ends_its_connection(index, quick):
    with serving(index) as server, connected(server) as silent, connected(server) as slow:
        began = time.monotonic()
        slow.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):  # each line is in time, the head as a whole is not
            for i in range(100):
                slow.sendall(b"X-More: %d\r\n" % i)
                time.sleep(0.1)
        assert received(silent) == b"" and time.monotonic() - began < 5


def test_a_body_that_comes_too_slowly_is_refused(index, quick):
    with serving(index) as server, connected(server) as slow:
        began = time.monotonic()
        slow.sendall(upload_head(server, 1000) + b"x" * 10)
        head, _, body = received(slow).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408") and "did not arrive" in json.loads(body)["error"]
        assert time.monotonic() - began < 8 and server.service.describer.asked == []


def test_the_answer_to_a_refused_upload_reaches_a_client_that_reads_only_when_it_has_sent_all(index):
    with serving(index) as server, connected(server) as connection:
        connection.sendall(upload_head(server, 20_000_000) + bytes(20_000_000))
        assert received(connection).startswith(b"HTTP/1.1 413")


def test_a_request_as_a_whole_has_a_time_limit(index, monkeypatch):
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.5)
    wait = threading.Event()
    with serving(index, FakeDescriber(wait)) as server, connected(server) as connection:
        image = (index.parent / "photos" / "p0.png").read_bytes()
        connection.sendall(upload_head(server, len(image)) + image)
        assert received(connection) == b""
        wait.set()


def test_an_answer_that_nobody_reads_ends_its_connection(index, quick, monkeypatch):
    with serving(index) as server, connected(server) as deaf:
        monkeypatch.setattr(server.service, "photographs", lambda *_: {"all": "x" * 20_000_000})
        deaf.sendall(f"GET /photographs HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        assert deaf.recv(1)
        time.sleep(3)
        assert len(received(deaf)) < 19_000_000


@pytest.mark.parametrize("begun", ["nothing", "head", "body"])
def test_more_slow_connections_than_are_kept_shut_nobody_out(index, begun):
    with serving(index) as server:
        sent = {"nothing": b"", "head": b"GET / HTTP/1.1\r\n", "body": upload_head(server, 1000) + b"x"}[begun]
        slow = []
        for _ in range(MOST_CONNECTIONS + 6):
            slow.append(connected(server))
            slow[-1].sendall(sent)
        for _ in range(3):
            assert request(server, "GET", "/")[0] == 200
        assert received(slow[0]) == b""  # the one that was slow for the longest time made room
        slow[-1].settimeout(0.3)
        with pytest.raises(TimeoutError):
            slow[-1].recv(1)
        for connection in slow:
            connection.close()


def test_a_search_at_work_is_not_ended_for_newcomers(index):
    wait = threading.Event()
    image = (index.parent / "photos" / "p0.png").read_bytes()
    with serving(index, FakeDescriber(wait)) as server:
        answers = []
        search = threading.Thread(target=lambda: answers.append(request(server, "POST", "/search", image)[0]))
        search.start()
        while not server.service.describer.asked:
            time.sleep(0.01)
        silent = [connected(server) for _ in range(MOST_CONNECTIONS + 6)]
        assert request(server, "GET", "/")[0] == 200
        wait.set()
        search.join()
        assert answers == [200]
        for connection in silent:
            connection.close()


def test_a_server_that_ends_finishes_what_is_at_work(index, monkeypatch):
    monkeypatch.setattr(server_module, "LAST_SECONDS", 60)
    wait = threading.Event()
    image, answers = (index.parent / "photos" / "p0.png").read_bytes(), []
    with serving(index, FakeDescriber(wait)) as server:
        search = threading.Thread(target=lambda: answers.append(request(server, "POST", "/search", image)[0]))
        search.start()
        while not server.service.describer.asked:
            time.sleep(0.01)
        threading.Timer(0.5, wait.set).start()
    search.join()
    assert answers == [200]
    with pytest.raises(ConnectionRefusedError):
        connected(server)


def test_a_request_that_fails_is_one_line_on_the_console_and_tells_the_client_nothing(index, monkeypatch, capfd):
    with serving(index) as server:
        monkeypatch.setattr(server.service, "photographs", lambda *_: 1 / 0)
        status, headers, body = request(server, "GET", "/photographs")
        assert status == 500 and "Content-Security-Policy" in headers and b"division" not in body
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "error: GET '/photographs': ZeroDivisionError" in told


def test_only_serving_needs_the_web_libraries():
    code = (
        "import sys, rrt.photo_index.update, rrt.photo_index.service, rrt.photo_index.measure, rrt.commands.search; "
        "print([m for m in ('starlette', 'uvicorn', 'anyio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
