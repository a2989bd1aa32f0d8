"""Downloads from a server of this machine that cuts, stalls, refuses and lies; archives that are damaged or hostile."""

import gzip
import hashlib
import os
import random
import resource
import tarfile
import threading
import time

import pytest
from commands import files_below
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import serving, special, tar_bytes

from rrt.archives import ArchiveError, unpack_tar
from rrt.downloads import describe_download, download, fetch_each, file_address, parse_checksums
from rrt.errors import InputError

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True, scope="module")
def without_flushing():
    """Hundreds of small files need not survive a power cut, and a busy disk takes long over each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as site:
        site.files["/x.tar"] = CONTENT
        yield site


@pytest.fixture
def get(site, tmp_path):
    """Downloads /x.tar, without long waits."""
    def get(path="x.tar", **settings):
        return download(f"{site.base_url}/x.tar", tmp_path / path, **{"backoff": 0.01, "timeout": 5} | settings)
    return get


class TestDownload:
    def test_a_file_comes_whole_and_nothing_else_is_left(self, get, tmp_path):
        path = get("new/folder/x.tar", sha256=SHA256, md5=hashlib.md5(CONTENT).hexdigest().upper(), size=len(CONTENT))
        assert path.read_bytes() == CONTENT
        assert files_below(tmp_path) == ["new", "new/folder", "new/folder/x.tar"]

    def test_a_file_that_is_there_is_not_asked_for_again(self, site, get):
        get()
        get()
        get(sha256=SHA256, size=len(CONTENT))
        assert len(site.requests) == 1

    def test_a_file_with_another_checksum_is_replaced(self, site, get, tmp_path):
        (tmp_path / "x.tar").write_bytes(b"old")
        assert get(sha256=SHA256).read_bytes() == CONTENT
        (tmp_path / "x.tar").write_bytes(b"old")
        site.files.clear()
        with pytest.raises(InputError):
            get(sha256=SHA256)
        assert (tmp_path / "x.tar").read_bytes() == b"old"

    def test_a_cut_download_is_continued(self, site, get, tmp_path):
        site.faults["/x.tar"] = [("cut", 100_000), ("cut", 150_000)]
        assert get().read_bytes() == CONTENT
        assert site.requests == [("/x.tar", None), ("/x.tar", "bytes=100000-"), ("/x.tar", "bytes=250000-")]
        assert files_below(tmp_path) == ["x.tar"]

    def test_a_later_run_continues_an_earlier_one(self, site, get, tmp_path):
        site.faults["/x.tar"] = [("cut", 100_000)]
        with pytest.raises(InputError, match="ended after 100000 of 300000 bytes.*100000 bytes are kept.*--base_url"):
            get(retries=0)
        assert files_below(tmp_path) == ["x.tar.part", "x.tar.part.json"]
        assert get().read_bytes() == CONTENT
        assert site.requests[-1] == ("/x.tar", "bytes=100000-")

    def test_a_line_that_is_cut_all_the_time_gets_there(self, site, get):
        site.faults["/x.tar"] = [("cut", 10_000)] * 20
        assert get(retries=1).read_bytes() == CONTENT
        assert len(site.requests) == 21

    def test_a_server_without_ranges_is_asked_from_the_start(self, site, get):
        site.ranges = False
        site.faults["/x.tar"] = [("cut", 100_000), ("cut", 100_000)]
        assert get().read_bytes() == CONTENT
        assert len(site.requests) == 3

    def test_a_server_without_ranges_that_always_cuts_is_given_up(self, site, get):
        site.ranges = False
        site.faults["/x.tar"] = [("cut", 100_000)] * 20
        with pytest.raises(InputError, match="attempt 3 in a row"):
            get(retries=2)
        assert len(site.requests) == 3

    def test_a_file_that_changed_meanwhile_is_started_over(self, site, get):
        site.faults["/x.tar"] = [("cut", 100_000)]
        with pytest.raises(InputError):
            get(retries=0)
        site.files["/x.tar"] = bytes(reversed(CONTENT))
        assert get().read_bytes() == bytes(reversed(CONTENT))

    @pytest.mark.parametrize("checked", [True, False])
    def test_without_etag_and_date_only_a_checksum_allows_to_continue(self, site, get, checked):
        site.validators = False
        site.faults["/x.tar"] = [("cut", 100_000)]
        assert get(sha256=SHA256 if checked else None).read_bytes() == CONTENT
        assert site.requests[-1] == ("/x.tar", "bytes=100000-" if checked else None)

    def test_another_address_is_started_over(self, site, get, tmp_path):
        site.faults["/x.tar"] = [("cut", 100_000)]
        with pytest.raises(InputError):
            get(retries=0)
        site.files["/mirror/x.tar"] = CONTENT
        download(f"{site.base_url}/mirror/x.tar", tmp_path / "x.tar")
        assert site.requests[-1] == ("/mirror/x.tar", None)

    def test_a_weak_etag_is_not_relied_on(self, site, get):
        site.validators = False
        weak = {"ETag": 'W/"1"', "Content-Length": "300000"}
        site.lengths = False
        site.faults["/x.tar"] = [("answer", 200, weak, CONTENT[:5])]
        assert get().read_bytes() == CONTENT
        assert site.requests == [("/x.tar", None)] * 2

    @pytest.mark.parametrize("headers", [{"Content-Range": "bytes 0-299999/300000"}, {"Content-Range": "bytes 100000-299999/300001"},
                                         {"Content-Range": "nonsense"}, {}])
    def test_another_range_than_asked_for_is_not_taken(self, site, get, headers):
        site.faults["/x.tar"] = [("cut", 100_000), ("answer", 206, headers, CONTENT)]
        assert get().read_bytes() == CONTENT

    def test_a_range_that_was_not_asked_for_is_refused(self, site, get, tmp_path):
        site.faults["/x.tar"] = [("answer", 206, {"Content-Range": "bytes 0-9/300000"}, CONTENT[:10])]
        with pytest.raises(InputError, match="status 206"):
            get()
        assert files_below(tmp_path) == []

    def test_a_range_beyond_the_end_is_started_over(self, site, get):
        site.faults["/x.tar"] = [("cut", 100_000), ("status", 416)]
        assert get().read_bytes() == CONTENT
        assert [wanted for _, wanted in site.requests] == [None, "bytes=100000-", None]

    def test_a_whole_part_is_not_fetched_again(self, site, get, tmp_path):
        site.faults["/x.tar"] = [("cut", 100_000)]
        with pytest.raises(InputError):
            get(retries=0)
        with open(tmp_path / "x.tar.part", "ab") as file:
            file.write(CONTENT[100_000:])
        assert get(sha256=SHA256).read_bytes() == CONTENT
        assert len(site.requests) == 1

    def test_a_damaged_note_beside_the_part_means_starting_over(self, site, get, tmp_path):
        for note in (b"", b"[1]", b"\xff", b'{"url": 3}'):
            (tmp_path / "x.tar.part").write_bytes(b"other bytes")
            (tmp_path / "x.tar.part.json").write_bytes(note)
            assert get().read_bytes() == CONTENT
            os.remove(tmp_path / "x.tar")

    @pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
    def test_a_passing_refusal_is_tried_again(self, site, get, status):
        site.faults["/x.tar"] = [("status", status), ("status", status, {"Retry-After": "0"})]
        assert get().read_bytes() == CONTENT

    def test_a_server_that_asks_to_wait_is_obeyed(self, site, get):
        site.faults["/x.tar"] = [("status", 429, {"Retry-After": "1"})]
        began = time.monotonic()
        get()
        assert time.monotonic() - began >= 1

    def test_retries_wait_longer_each_time_and_end(self, site, get, tmp_path, monkeypatch):
        waits = []
        monkeypatch.setattr("rrt.downloads.time.sleep", waits.append)
        site.faults["/x.tar"] = [("status", 500)] * 9
        with pytest.raises(InputError, match=r"x.tar: HTTP status 500 .*attempt 5 in a row.*--base_url"):
            get(backoff=1)
        assert waits == [1, 2, 4, 8]
        assert files_below(tmp_path) == []

    @pytest.mark.parametrize("status", [404, 403, 401, 410])
    def test_a_lasting_refusal_is_not_tried_again(self, site, get, tmp_path, status):
        site.faults["/x.tar"] = [("status", status)]
        with pytest.raises(InputError, match=rf"^{site.base_url}/x.tar: HTTP status {status} .*--base_url$"):
            get()
        assert len(site.requests) == 1 and files_below(tmp_path) == []

    def test_a_server_that_falls_silent_is_asked_again(self, site, get):
        site.faults["/x.tar"] = [("stall", 100_000)]
        assert get(timeout=0.3).read_bytes() == CONTENT
        assert site.requests[-1] == ("/x.tar", "bytes=100000-")

    def test_a_server_that_is_not_there_is_one_line(self, site, tmp_path):
        with pytest.raises(InputError, match="Connection refused.*--base_url"):
            download("http://127.0.0.1:9/x.tar", tmp_path / "x.tar", backoff=0.01, retries=1)
        assert files_below(tmp_path) == []

    @pytest.mark.parametrize("url", ["x.tar", "file:///etc/passwd", "ftp://a/b", "http://", "http://[::1", "https:///x",
                                     "http://127.0.0.1:port/x", "http://127.0.0.1/a b", "http://127.0.0.1/\u00e9"])
    def test_what_is_no_address_is_one_line(self, tmp_path, url):
        with pytest.raises(InputError, match="not an address"):
            download(url, tmp_path / "x", backoff=0.01)
        assert files_below(tmp_path) == []

    def test_wrong_bytes_are_fetched_once_more(self, site, get):
        site.faults["/x.tar"] = [("answer", 200, {}, b"login page")]
        assert get(sha256=SHA256).read_bytes() == CONTENT
        assert site.requests == [("/x.tar", None)] * 2

    @pytest.mark.parametrize("kind", ["sha256", "md5"])
    def test_bytes_that_stay_wrong_are_thrown_away(self, site, get, tmp_path, kind):
        site.files["/x.tar"] = b"login page"
        expected, found = (hashlib.new(kind, content).hexdigest() for content in (CONTENT, b"login page"))
        with pytest.raises(InputError, match=f"{kind} is {found}, expected {expected}, twice"):
            get(**{kind: expected})
        assert len(site.requests) == 2 and files_below(tmp_path) == []

    def test_a_wrong_beginning_is_not_kept(self, site, get, tmp_path):
        site.validators = False
        site.faults["/x.tar"] = [("cut", 100_000)]
        with pytest.raises(InputError):
            get(retries=0, sha256=SHA256)
        (tmp_path / "x.tar.part").write_bytes(b"x" * 100_000)
        assert get(sha256=SHA256).read_bytes() == CONTENT
        assert [wanted for _, wanted in site.requests] == [None, "bytes=100000-", None]

    def test_another_size_is_refused_before_the_bytes_come(self, site, get, tmp_path):
        with pytest.raises(InputError, match="offers 300000 bytes, expected 7"):
            get(size=7)
        assert len(site.requests) == 1 and files_below(tmp_path) == []

    def test_a_server_that_does_not_say_the_size_is_believed_unless_the_size_is_known(self, site, get):
        site.lengths = False
        assert get().read_bytes() == CONTENT
        site.files["/x.tar"] = CONTENT[:-1]
        with pytest.raises(InputError, match="299999 bytes came, expected 300000, twice"):
            get("y.tar", size=300_000)

    def test_an_empty_file_can_be_fetched(self, site, get):
        site.files["/x.tar"] = b""
        assert get().read_bytes() == b""

    @pytest.mark.parametrize("sums", [{"sha256": "abc"}, {"md5": SHA256}, {"sha256": "g" * 64}])
    def test_what_is_no_checksum_is_refused(self, site, get, sums):
        with pytest.raises(InputError, match="hexadecimal digits"):
            get(**sums)
        assert site.requests == []

    def test_two_at_once_do_not_mix(self, site, get, tmp_path):
        site.faults["/x.tar"] = [("stall", 100_000)]
        first = threading.Thread(target=get, kwargs={"timeout": 30})
        first.start()
        while not (tmp_path / "x.tar.part").exists() or (tmp_path / "x.tar.part").stat().st_size < 100_000:
            time.sleep(0.01)
        with pytest.raises(InputError, match="another process is downloading it"):
            get()
        site.released.set()
        first.join()
        assert (tmp_path / "x.tar").read_bytes() == CONTENT

    def test_a_disk_that_takes_no_more_ends_the_run_and_the_next_one_goes_on(self, site, get):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
        try:
            with pytest.raises(InputError, match="x.tar.part: cannot be written .File too large.; .* run again, it is continued"):
                get()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert get().read_bytes() == CONTENT
        assert site.requests == [("/x.tar", None), ("/x.tar", "bytes=150000-")]

    def test_an_answer_in_chunks_that_is_cut_is_noticed_and_continued(self, site, get):
        site.lengths = False
        headers = {"Transfer-Encoding": "chunked", "ETag": site.etag("/x.tar")}
        site.faults["/x.tar"] = [("answer", 200, headers, b"186a0\r\n" + CONTENT[:100_000] + b"\r\n10\r\n" + CONTENT[100_000:100_005])]
        assert get().read_bytes() == CONTENT
        assert site.requests[-1] == ("/x.tar", "bytes=100005-")

    def test_a_redirection_is_followed_with_the_range(self, site, get):
        site.files["/elsewhere"] = CONTENT
        site.faults["/x.tar"] = [("answer", 302, {"Location": "/elsewhere"}, b"")] * 2
        site.faults["/elsewhere"] = [("cut", 100_000)]
        assert get().read_bytes() == CONTENT
        assert site.requests[-1] == ("/elsewhere", "bytes=100000-")

    def test_bytes_are_flushed_before_the_file_has_its_name(self, get, monkeypatch):
        order = []
        for name in ("fsync", "replace"):
            def call(*arguments, name=name, real=getattr(os, name)):
                order.append(name)
                return real(*arguments)
            monkeypatch.setattr(os, name, call)
        get()
        assert order[-3:] == ["fsync", "replace", "fsync"]

    @settings(max_examples=15)
    @given(st.lists(st.sampled_from([("cut", 0), ("cut", 1), ("cut", 70_000), ("status", 500), ("status", 416), ("none",)]), max_size=6),
           st.booleans(), st.booleans(), st.booleans(), st.booleans())
    def test_whatever_happens_on_the_way_the_bytes_are_right(self, tmp_path_factory, faults, ranges, validators, lengths, checked):
        os.environ["no_proxy"] = "127.0.0.1"
        with serving() as site:
            site.files["/x"], site.faults["/x"] = CONTENT[:100_000], list(faults)
            # A cut without a length cannot be told from the end: then the checksum must tell.
            site.ranges, site.validators, site.lengths = ranges, validators, lengths or not checked
            sums = {"sha256": hashlib.sha256(site.files["/x"]).hexdigest()} if checked else {}
            path = tmp_path_factory.mktemp("x") / "x"
            try:
                download(f"{site.base_url}/x", path, backoff=0, retries=9, **sums)
            except InputError as error:
                # Only so: wrong twice because a length was not said, or the fault of a first answer.
                assert "416" in str(error) or not site.lengths
                assert not path.exists()
            else:
                assert path.read_bytes() == site.files["/x"]

    def test_what_can_be_fetched_is_fetched_and_the_rest_is_one_error(self, capsys):
        def fetch(name):
            if name != "good":
                raise InputError(f"{name}: no")
            print("fetched")

        with pytest.raises(InputError, match="^2 of 3 things are missing, first bad: no$"):
            fetch_each(["bad", "good", "worse"], fetch, "things")
        assert capsys.readouterr().out == "bad: missing (bad: no)\nfetched\nworse: missing (worse: no)\n"
        fetch_each(["good"], fetch, "things")

    def test_addresses_records_and_checksum_options(self, tmp_path):
        assert file_address("http://a/b/", "c", "d.tar") == file_address("http://a/b", "c/d.tar") == "http://a/b/c/d.tar"
        (tmp_path / "x").write_bytes(CONTENT)
        assert describe_download(tmp_path / "x", "http://a/x") == {"url": "http://a/x", "size": 300_000, "sha256": SHA256}
        assert parse_checksums([f"short={SHA256.upper()}", "b=none"], {"short": "long", "b": "b"}) == {"long": SHA256, "b": None}
        for wrong in ("short", "short=", "short=12", f"other={SHA256}", ""):
            with pytest.raises(InputError):
                parse_checksums([wrong], {"short": "long"})


GOOD = {"top/a.txt": b"a" * 2000, "top/sub/b.jpg": b"b", "top/sub/c.jpg": b"c" * 700}


@pytest.fixture
def pack(tmp_path):
    """Writes an archive -> its path."""
    def pack(members, name="x.tar.gz"):
        (tmp_path / name).write_bytes(tar_bytes(members, compress=name.endswith("gz")))
        return tmp_path / name
    return pack


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestUnpack:
    @pytest.mark.parametrize("name", ["x.tar", "x.tgz"])
    def test_all_files_are_unpacked_and_nothing_else_is_left(self, pack, tmp_path, name):
        assert unpack_tar(pack(GOOD, name), tmp_path / "new" / "out") == 3
        assert contents(tmp_path / "new") == {f"out/{path}": content for path, content in GOOD.items()}

    @pytest.mark.parametrize("strip, names", [(1, ["a.txt", "sub/b.jpg", "sub/c.jpg"]), (2, ["b.jpg", "c.jpg"]),
                                              (None, ["a.txt", "b.jpg", "c.jpg"])])
    def test_leading_folders_are_stripped(self, pack, tmp_path, strip, names):
        members = {"./top": special("./top", tarfile.DIRTYPE)} | {f"./{name}": content for name, content in GOOD.items()}
        assert unpack_tar(pack(members), tmp_path / "out", strip=strip) == len(names)
        assert sorted(contents(tmp_path / "out")) == names

    def test_only_what_is_wanted_is_unpacked(self, pack, tmp_path):
        assert unpack_tar(pack(GOOD), tmp_path / "out", strip=1, wanted=lambda name: name == "sub/b.jpg") == 1
        assert files_below(tmp_path / "out") == ["sub", "sub/b.jpg"]

    def test_a_folder_that_is_there_is_left_alone(self, pack, tmp_path):
        archive = pack(GOOD)
        unpack_tar(archive, tmp_path / "out")
        archive.unlink()
        assert unpack_tar(archive, tmp_path / "out") == 0

    def test_several_archives_are_merged_into_a_folder(self, pack, tmp_path):
        for name, members in (("1.tgz", GOOD), ("2.tgz", {"top/sub/b.jpg": b"new", "other/d": b"d"})):
            unpack_tar(pack(members, name), tmp_path / "out", merge=True)
        assert contents(tmp_path / "out") == GOOD | {"top/sub/b.jpg": b"new", "other/d": b"d"}
        assert sorted(os.listdir(tmp_path)) == ["1.tgz", "2.tgz", "out"]

    def test_a_linked_folder_is_filled_where_it_is(self, pack, tmp_path):
        (tmp_path / "disk" / "real").mkdir(parents=True)
        (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
        unpack_tar(pack(GOOD), tmp_path / "out", merge=True)
        assert contents(tmp_path / "disk") == {f"real/{name}": content for name, content in GOOD.items()}

    @pytest.mark.parametrize("member", [
        ("../evil", b"x"), ("/tmp/evil", b"x"), ("a/../../evil", b"x"), ("a/../b", b"x"),
        ("l", special("l", tarfile.SYMTYPE, "/etc/passwd")), ("l", special("l", tarfile.SYMTYPE, "../x")),
        ("a/l", special("a/l", tarfile.SYMTYPE, "..")), ("l", special("l", tarfile.LNKTYPE, "../x")),
        ("l", special("l", tarfile.LNKTYPE, "/etc/passwd")), ("d", special("d", tarfile.CHRTYPE)), ("d", special("d", tarfile.BLKTYPE)),
        ("p", special("p", tarfile.FIFOTYPE))], ids=lambda member: f"{member[0]}")
    @pytest.mark.parametrize("wanted", [None, lambda name: name == "first"])
    def test_hostile_members_are_refused_and_nothing_is_left(self, pack, tmp_path, member, wanted):
        archive = pack([("first", b"1"), member])
        with pytest.raises(ArchiveError, match=r"x.tar.gz: .*do not use this archive") as error:
            unpack_tar(archive, tmp_path / "in" / "out", wanted=wanted)
        assert "\n" not in str(error.value)
        assert files_below(tmp_path) == ["in", "x.tar.gz"]

    def test_links_inside_are_unpacked(self, pack, tmp_path):
        links = [("", special("top/soft", tarfile.SYMTYPE, "sub/b.jpg")), ("", special("top/hard", tarfile.LNKTYPE, "top/a.txt"))]
        unpack_tar(pack([*GOOD.items(), *links]), tmp_path / "out", strip=1)
        assert (tmp_path / "out/soft").read_bytes() == b"b" and os.readlink(tmp_path / "out/soft") == "sub/b.jpg"
        assert (tmp_path / "out/hard").read_bytes() == b"a" * 2000

    def test_a_file_behind_a_link_stays_inside(self, pack, tmp_path):
        unpack_tar(pack([("", special("d", tarfile.DIRTYPE)), ("", special("l", tarfile.SYMTYPE, "d")), ("l/x", b"x")]), tmp_path / "out")
        assert (tmp_path / "out/d/x").read_bytes() == b"x"

    def test_without_folders_links_and_files_of_one_name_are_refused(self, pack, tmp_path):
        with pytest.raises(InputError, match="is a link"):
            unpack_tar(pack([("", special("l", tarfile.SYMTYPE, "x"))]), tmp_path / "out", strip=None)
        with pytest.raises(InputError, match="'a/x' and 'b/x' have one name"):
            unpack_tar(pack({"a/x": b"1", "b/x": b"2"}), tmp_path / "out", strip=None)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("content", [b"", b"no archive", b"<html>" * 2000])
    def test_what_is_no_archive_is_one_line(self, tmp_path, content):
        (tmp_path / "x.tgz").write_bytes(content)
        with pytest.raises(ArchiveError, match="x.tgz: not a tar archive.*download it again"):
            unpack_tar(tmp_path / "x.tgz", tmp_path / "out")
        assert files_below(tmp_path) == ["x.tgz"]

    def test_a_missing_archive_is_one_line(self, tmp_path):
        with pytest.raises(InputError, match="x.tgz: cannot be read .No such file"):
            unpack_tar(tmp_path / "x.tgz", tmp_path / "out")

    @pytest.mark.parametrize("wanted", [None, lambda name: False])
    def test_an_archive_without_the_files_is_one_line(self, pack, tmp_path, wanted):
        with pytest.raises(InputError, match="none of the files looked for"):
            unpack_tar(pack({} if wanted is None else GOOD), tmp_path / "out", wanted=wanted)

    def test_a_fault_of_the_disk_is_not_one_of_the_archive(self, pack, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "top").write_text("a file")
        with pytest.raises(InputError, match="out: x.tar.gz cannot be unpacked .File exists") as error:
            unpack_tar(pack(GOOD), tmp_path / "out", merge=True)
        assert error.type is InputError and files_below(tmp_path) == ["out", "out/top", "x.tar.gz"]

    @settings(max_examples=60)
    @given(st.booleans(), st.floats(0, 1, exclude_max=True))
    def test_an_archive_that_is_cut_anywhere_is_refused(self, tmp_path_factory, compress, place):
        folder = tmp_path_factory.mktemp("cut")
        # tarfile pads to 10,240 bytes with zeros, of which one block is the mark of the end.
        whole = tar_bytes(GOOD, compress)
        end = len(whole) if compress else len(whole.rstrip(b"\0")) + 1
        (folder / "x").write_bytes(whole[:int(place * end)])
        with pytest.raises(ArchiveError) as error:
            unpack_tar(folder / "x", folder / "out")
        assert "\n" not in str(error.value) and files_below(folder) == ["x"]

    def test_a_whole_gzip_of_half_an_archive_is_refused(self, tmp_path):
        half = tar_bytes(GOOD, compress=False)[:512 + 2048]  # header and content of the first file
        (tmp_path / "x.tgz").write_bytes(gzip.compress(half))
        with pytest.raises(ArchiveError, match="damaged archive"):
            unpack_tar(tmp_path / "x.tgz", tmp_path / "out")

    @settings(max_examples=40)
    @given(st.integers(0, 10**6), st.integers(1, 255))
    def test_a_changed_byte_of_a_compressed_archive_never_passes_as_other_files(self, tmp_path_factory, place, change):
        folder = tmp_path_factory.mktemp("changed")
        data = bytearray(tar_bytes(GOOD))
        data[place % len(data)] ^= change
        (folder / "x").write_bytes(data)
        try:
            unpack_tar(folder / "x", folder / "out")
        except InputError as error:
            assert "\n" not in str(error) and files_below(folder) == ["x"]
        else:
            assert contents(folder / "out") == GOOD  # the byte was one of gzip's header that means nothing here

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4))
    def test_a_garbled_archive_is_refused_or_stays_inside(self, tmp_path_factory, changes):
        folder = tmp_path_factory.mktemp("garbled")
        data = bytearray(tar_bytes([*GOOD.items(), ("", special("top/soft", tarfile.SYMTYPE, "a.txt"))], compress=False))
        for place, garbage in changes:
            # Headers are at the multiples of 512 below 6 blocks or so; contents are of no interest.
            place %= 512 * 12
            data[place:place + len(garbage)] = garbage
        (folder / "x").write_bytes(data)
        try:
            unpack_tar(folder / "x", folder / "out")
        except InputError as error:
            assert "\n" not in str(error)
        assert {path.name for path in folder.iterdir()} <= {"x", "out"}
