"""The token that the page of an index asks for, and the deadline of its answers."""

import json
import threading
import time

import pytest
from photo_folders import FakeDescriber, build, draw, use_fakes
from photo_server import MAX_UPLOAD, request, serving

from rrt.errors import InputError
from rrt.photo_index.access import is_loopback, token_for
from rrt.photo_index.server import ServerSettings

TOKEN = "a-token.of~my_own"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("access")
    draw(folder / "photos/secret_name.png", 1)
    with pytest.MonkeyPatch.context() as patched:
        use_fakes(patched)
        build(folder / "index", folder / "photos")
    return folder / "index"


@pytest.fixture(scope="module")
def server(index):
    with serving(index, settings=ServerSettings(port=0, max_upload=MAX_UPLOAD, token=TOKEN)) as server:
        yield server


def image(index):
    return (index.parent / "photos/secret_name.png").read_bytes()


def cookie_of(server):
    status, headers, body = request(server, "GET", f"/?token={TOKEN}")
    assert status == 200 and b'url=/"' in body and TOKEN.encode() not in body
    cookie, *rest = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {*rest} and TOKEN not in cookie
    return cookie


def test_nothing_is_told_without_the_token_but_how_to_show_it(server, index):
    for method, path, body in (
        *(("GET", path, None) for path in ("/", "/photographs", "/about", "/duplicates", "/page.css", "/nowhere")),
        *(("HEAD", "/", None), ("POST", "/search", image(index)), ("GET", "/?token=wrong-token", None)),
        *(("GET", "/?token=%FF", None), ("GET", "/?token=", None)),
    ):
        for shown in ({}, {"Cookie": "rrt_0=1; x"}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            status, headers, answer = request(server, method, path, body, **shown)
            assert status == 401 and "Set-Cookie" not in headers and b"secret_name" not in answer, (path, shown)
            assert headers["WWW-Authenticate"].startswith("Bearer") and "Content-Security-Policy" in headers
            assert method == "HEAD" or "?token=" in json.loads(answer)["error"]
    status, headers, page = request(server, "GET", "/", Accept="text/html,*/*")
    assert status == 401 and headers["Content-Type"].startswith("text/html") and b"?token=" in page


def test_the_address_with_the_token_gives_a_cookie_that_opens_the_page(server, index):
    shown = {"Cookie": f'other; an odd name=1; x="; {cookie_of(server)}'}
    assert b"secret_name" in request(server, "GET", "/photographs", **shown)[2]
    assert request(server, "POST", "/search", image(index), **shown)[0] == 200
    assert request(server, "GET", "/photographs", Authorization=f"bearer {TOKEN}")[0] == 200
    wrong = shown["Cookie"][:-1] + ("0" if shown["Cookie"][-1] != "0" else "1")
    assert request(server, "GET", "/photographs", Cookie=wrong)[0] == 401


def test_the_token_opens_nothing_to_other_names_and_other_sites(server, index):
    shown = {"Cookie": cookie_of(server)}
    assert request(server, "GET", "/photographs", Host=f"attacker.example:{server.port}", **shown)[0] == 403
    assert request(server, "GET", f"/?token={TOKEN}", Host=f"attacker.example:{server.port}")[0] == 403
    assert request(server, "POST", "/search", image(index), Origin="http://attacker.example", **shown)[0] == 403
    assert request(server, "POST", f"/search?token={TOKEN}", image(index))[0] == 401


def test_other_machines_are_asked_for_a_token_whether_one_was_chosen_or_not(index):
    with serving(index, settings=ServerSettings("0.0.0.0", 0)) as first:
        assert request(first, "GET", "/")[0] == 401
        assert first.shared_address.endswith(f":{first.port}/?token={first.token}") and len(first.token) >= 24
        assert request(first, "GET", f"/?token={first.token}")[0] == 200
    assert token_for("::", None) != token_for("::", None)
    assert token_for("192.168.0.9", TOKEN) == token_for("127.0.0.1", TOKEN) == TOKEN
    with serving(index) as server:
        assert server.token is None and server.shared_address == server.address
        assert request(server, "GET", "/")[0] == 200
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "192.168.0.9", "photos.lan")))


@pytest.mark.parametrize("token", ["short", "with space", "a;b=cdefgh", "x" * 201, "schl\u00fcssel", "line\nbreak!"])
def test_a_token_that_cannot_stand_in_an_address_is_refused(token):
    with pytest.raises(InputError, match="--token: expected 8 to 200") as told:
        token_for("127.0.0.1", token)
    assert token not in str(told.value)


def test_an_answer_that_takes_too_long_is_given_up_and_a_search_that_waits_for_it_is_not_begun(index):
    wait = threading.Event()
    with serving(index, FakeDescriber(wait), ServerSettings(port=0, deadline=0.4)) as server:
        answers = []
        threads = [
            threading.Thread(
                target=lambda more=more: answers.append(request(server, "POST", "/search", image(index) + more))
            )
            for more in (b"", b"another")
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [status for status, _, _ in answers] == [504, 504] and time.monotonic() - began < 10
        assert all("no answer within 0.4 seconds" in json.loads(body)["error"] for _, _, body in answers)
        assert request(server, "GET", "/photographs")[0] == 200
        wait.set()
        ends = time.monotonic() + 10
        while server.service._asked:
            assert time.monotonic() < ends
            time.sleep(0.01)
        assert len(server.service.describer.asked) == 1


def test_a_deadline_that_is_none_is_refused():
    for deadline in (0, -1, 1e9, float("nan")):
        with pytest.raises(InputError, match="--deadline"):
            ServerSettings(deadline=deadline)
