"""Archives come whole and of one file, however often the connection breaks; or there is a sentence and no archive."""

import hashlib
import os
import ssl
import threading

import pytest
from breaking_server import Server
from small_archives import MVTEC, contents, fetch, get, prepare, refused, script, tar

from dictas.datasets import read_dataset
from encoders.errors import InputError


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda _: None)


@pytest.fixture
def packed(tmp_path_factory):
    files = {**contents(MVTEC), "noise": os.urandom(9000)}
    return tar(tmp_path_factory.mktemp("packed") / "x", files).read_bytes()


def begun(tmp_path, server, limit=1000):
    """The first bytes of the server's file, in tmp_path / "file.part"."""
    server.limit, whole = limit, server.limit
    with pytest.raises(InputError, match="run the same command again"):
        fetch.download(server.url, tmp_path / "file")
    server.limit = whole
    server.starts.clear()
    return (tmp_path / "file.part").read_bytes()


def test_a_script_fetches_verifies_and_cleans_up(tmp_path, packed):
    with Server(packed) as server:
        checksum = "sha256:" + hashlib.sha256(packed).hexdigest()
        assert get(script("mvtec"), "--out", tmp_path / "out", "--url", server.url, "--checksum", checksum) == 0
    assert os.listdir(tmp_path) == ["out"]
    assert len(read_dataset(tmp_path / "out")) == 2


def test_the_checksum_of_the_official_address_is_used(tmp_path, capsys):
    archive = tar(tmp_path / "official.tar.xz", contents(MVTEC))
    dataset = prepare.Dataset("X", "page", "licence", "cite", archive.as_uri(), "md5:" + "0" * 32)
    said = refused(capsys, dataset, "--out", tmp_path / "out")
    assert "its md5 is" in said
    assert "run the same command" in said
    assert os.listdir(tmp_path) == ["official.tar.xz"]
    right = hashlib.md5(archive.read_bytes()).hexdigest()
    dataset = prepare.Dataset("X", "page", "licence", "cite", archive.as_uri(), f"md5:{right}")
    assert get(dataset, "--out", tmp_path / "out") == 0


def test_it_is_said_when_there_is_no_checksum_to_compare_with(tmp_path, capsys):
    archive = tar(tmp_path / "official.tar.xz", contents(MVTEC))
    dataset = prepare.Dataset("X", "page", "licence", "cite", archive.as_uri())
    assert get(dataset, "--out", tmp_path / "out") == 0
    assert "No checksum of it is known" in capsys.readouterr().out
    assert get(script("mvtec"), "--out", tmp_path / "mirrored", "--url", archive.as_uri()) == 0
    assert "This is not the publisher's address" in capsys.readouterr().out


@pytest.mark.parametrize("etag", ['"one"', 'W/"one"', ""])
def test_downloads_go_on_where_they_broke_off(tmp_path, etag):
    data = os.urandom(10_000)
    reports = []
    with Server(data, limit=3_000, etag=etag) as server:
        fetch.download(server.url, tmp_path / "file", lambda done, total, _: reports.append((done, total)))
        assert server.starts == [0, 3000, 6000, 9000]
    assert (tmp_path / "file").read_bytes() == data
    assert reports[-1] == (10_000, 10_000)
    assert os.listdir(tmp_path) == ["file"]


def test_a_server_without_ranges_begins_again(tmp_path):
    data = os.urandom(10_000)
    with Server(data, ranges=False) as server:
        begun(tmp_path, server)
        fetch.download(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("weak", [False, True], ids=["If-Range", "no If-Range"])
@pytest.mark.parametrize("etag", ['"one"', 'W/"one"'])
def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path, weak, etag):
    with Server(b"A" * 10_000, etag=etag, weak=weak) as server:
        assert begun(tmp_path, server) == b"A" * 4000
        server.data, server.etag = b"B" * 10_000, etag.replace("one", "two")
        fetch.download(server.url, tmp_path / "file")
        # A weak ETag may not be asked about, so it is only seen in the answer.
        assert server.starts == ([4000, 0] if weak or etag[0] == "W" else [0])
    assert (tmp_path / "file").read_bytes() == b"B" * 10_000


def test_a_file_of_another_length_is_fetched_anew_though_nothing_else_tells(tmp_path):
    with Server(b"A" * 10_000, etag="") as server:
        begun(tmp_path, server)
        server.data = b"B" * 12_000
        fetch.download(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"B" * 12_000


def test_two_addresses_are_never_mixed(tmp_path, packed, capsys):
    with Server(b"A" * 10_000, limit=1000) as one, Server(b"B" * 10_000) as two:
        begun(tmp_path, one)
        fetch.download(two.url, tmp_path / "file")
        assert two.starts == [0]
    assert (tmp_path / "file").read_bytes() == b"B" * 10_000
    with Server(packed, limit=1000) as one, Server(packed) as two:
        arguments = [script("mvtec"), "--out", tmp_path / "out", "--url"]
        refused(capsys, *arguments, one.url)
        assert get(*arguments, two.url) == 0
        assert two.starts == [0]


def test_parts_of_unknown_origin_are_not_gone_on_with(tmp_path):
    data = os.urandom(1_000)
    with Server(data) as server:
        (tmp_path / "file.part").write_bytes(b"something else")
        fetch.download(server.url, tmp_path / "file")
        begun(tmp_path, server, 100)
        (tmp_path / "file.part.json").write_text('{"url": 3}')
        fetch.download(server.url, tmp_path / "file")
        assert server.starts == [0]
    assert (tmp_path / "file").read_bytes() == data


def test_a_part_that_begins_elsewhere_is_not_used(tmp_path):
    data = os.urandom(10_000)
    with Server(data) as server:
        begun(tmp_path, server)
        server.shift = 7
        fetch.download(server.url, tmp_path / "file")
        assert server.starts == [4000, 0]
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_a_download_that_is_complete_or_too_long_already(tmp_path, extra):
    data = os.urandom(1_000)
    with Server(data) as server:
        begun(tmp_path, server, 100)
        (tmp_path / "file.part").write_bytes(data + extra)
        fetch.download(server.url, tmp_path / "file")
        assert server.starts == ([1000] if not extra else [1008, 0])
    assert (tmp_path / "file").read_bytes() == data


def test_two_processes_do_not_write_into_one_file(tmp_path):
    data = os.urandom(10_000)
    with Server(data) as server:
        server.paused = threading.Event()
        first = threading.Thread(target=fetch.download, args=(server.url, tmp_path / "file"))
        first.start()
        while not server.starts and first.is_alive():
            server.paused.wait(0.01)
        with pytest.raises(InputError, match=r"Another process is fetching .*file\.part; wait for it"):
            fetch.download(server.url, tmp_path / "file")
        server.paused.set()
        first.join()
        assert server.starts == [0]
    assert (tmp_path / "file").read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_on_a_file_that_was_renamed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    part = fetch.Part
    taken = []

    def late(file, flags):
        if not taken:
            (tmp_path / "file.part").replace(tmp_path / "file")
        taken.append(os.fstat(file.fileno()).st_ino)

    monkeypatch.setattr("part.fcntl.flock", late)
    with part.locked(tmp_path / "file") as held:
        held.write(b"mine")
        assert (tmp_path / "file").read_bytes() == b""
    assert (tmp_path / "file.part").read_bytes() == b"mine"
    assert len(taken) == 2


def test_a_broken_tls_connection_is_tried_again(tmp_path, monkeypatch, packed):
    """Python calls it neither a ConnectionError nor, while reading, a URLError."""
    answers = []

    class Breaking:
        def __init__(self, response):
            self._response, self.status, self.headers = response, response.status, response.headers

        def read(self, size):
            answers.append(size)
            if len(answers) < 3:
                raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:2427)")
            return self._response.read(size)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._response.close()

    whole = fetch.urllib.request.urlopen
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda *given, **named: Breaking(whole(*given, **named)))
    with Server(packed) as server:
        assert get(script("mvtec"), "--out", tmp_path / "out", "--url", server.url) == 0
        assert len(server.starts) == 3


def test_a_full_disk_is_not_taken_for_a_broken_connection(tmp_path, monkeypatch, capsys, packed):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.Part, "write", full)
    with Server(packed) as server:
        said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--url", server.url)
        assert len(server.starts) == 1
    assert "No space left on device" in said


def test_a_download_that_keeps_breaking_is_kept_for_later(tmp_path, capsys, packed):
    arguments = ["--out", tmp_path / "out", "--url"]
    with Server(packed, limit=1_000) as server:
        said = refused(capsys, script("mvtec"), *arguments, server.url)
        assert "run the same command again" in said
        (part,) = tmp_path.glob("out.*.given.tar.xz.part")
        assert part.read_bytes() == packed[: 1_000 * fetch.ATTEMPTS]
        server.limit = 1 << 40
        assert get(script("mvtec"), *arguments, server.url) == 0
        assert server.starts[-1] == 1_000 * fetch.ATTEMPTS
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (503, 4)])
def test_a_server_that_refuses(tmp_path, capsys, status, attempts):
    with Server(b"", status=status) as server:
        said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--url", server.url)
        assert len(server.starts) == attempts
    assert str(status) in said
    assert "pass --from-archive FILE" in said
    assert os.listdir(tmp_path) == []


def test_a_page_instead_of_an_archive_is_not_kept(tmp_path, capsys):
    with Server(b"<html>log in</html>") as server:
        said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--url", server.url)
    assert "is damaged or no archive" in said
    assert os.listdir(tmp_path) == []


def test_gigabytes_are_not_thrown_away_for_what_came_beside_them(tmp_path, capsys, packed):
    other = tmp_path / "other.zip"
    other.write_bytes(b"PK")
    arguments = ["--out", tmp_path / "out", "--from-archive", other, "--url"]
    with Server(packed) as server:
        assert "other.zip is damaged" in refused(capsys, script("mvtec"), *arguments, server.url)
        assert len(list(tmp_path.glob("out.*.given.tar.xz"))) == 1
        said = refused(capsys, script("resc"), "--out", tmp_path / "no", "--url", server.url)
        (kept,) = tmp_path.glob("no.*.given.tar.xz")
        assert f"What was fetched is kept as {kept}" in said


@pytest.mark.parametrize("url", ["given.tar.xz", "javascript:x", "http://127.0.0.1:9/x.tar"])
def test_addresses_that_lead_nowhere(tmp_path, capsys, url):
    said = refused(capsys, script("mvtec"), "--out", tmp_path / "out", "--url", url)
    assert url in said
    assert os.listdir(tmp_path) == []
