"""Files of a mirror: what cannot be had is named at the end, after everything else is there."""

import hashlib
import threading

import pytest

from rrt.errors import InputError
from rrt.files.mirrors import describe_download, fetch_each, file_address, parse_checksums

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("parallel", [1, 2])
def test_what_can_be_fetched_is_fetched_and_the_rest_is_one_error(capsys, parallel):
    def fetch(name):
        if name != "good":
            raise {"bad": InputError("bad: no"), "worse": PermissionError(13, "denied", "worse.tar")}[name]
        print("fetched")

    with pytest.raises(InputError, match="^2 of 3 things are missing: bad, worse; the first: bad: no$"):
        fetch_each(["bad", "good", "worse"], fetch, "things", parallel)
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "bad: missing (bad: no)",
        "fetched",
        "worse: missing (worse.tar: denied; give a path where you may read and write, or get the rights to this one)",
    ]
    fetch_each(["good"], fetch, "things", parallel)


def test_a_long_list_of_what_is_missing_is_cut():
    def fetch(name):
        raise InputError("no")

    with pytest.raises(InputError, match="^500 of 500 things are missing: 0, 1, .*, 29, 470 more; the first: no$"):
        fetch_each([str(i) for i in range(500)], fetch, "things")


def test_as_many_as_are_asked_for_are_fetched_at_once():
    all_there = threading.Barrier(3, timeout=20)
    fetch_each("abcdef", lambda name: all_there.wait(), "things", parallel=3)


def test_a_fault_of_the_program_is_not_taken_for_a_missing_file():
    with pytest.raises(ZeroDivisionError):
        fetch_each("ab", lambda name: 1 / 0, "things", parallel=2)


def test_addresses_records_and_checksum_options(tmp_path):
    assert file_address("http://a/b/", "c", "d.tar") == file_address("http://a/b", "c/d.tar") == "http://a/b/c/d.tar"
    (tmp_path / "x").write_bytes(CONTENT)
    assert describe_download(tmp_path / "x", "http://a/x") == {"url": "http://a/x", "size": 256_000, "sha256": SHA256}
    assert parse_checksums([f"short={SHA256.upper()}", "b=none"], {"short": "long", "b": "b"}) == {
        "long": SHA256,
        "b": None,
    }
    for wrong in ("short", "short=", "short=12", f"other={SHA256}", ""):
        with pytest.raises(InputError):
            parse_checksums([wrong], {"short": "long"})
