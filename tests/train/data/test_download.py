import hashlib
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from train.data import ChecksumError, DownloadError, download
from train.data.download import Archive, fetch

BODY = bytes(range(256)) * 1000


@pytest.fixture
def archive(server) -> Archive:
    server.send("some.gz", BODY)
    return Archive(server.url + "folder/some.gz", len(BODY), hashlib.sha256(BODY).hexdigest())


def nothing_is_left(folder: Path) -> bool:
    return list(folder.iterdir()) == []


def test_an_archive_knows_its_name_and_host():
    archive = Archive("https://example.org:8080/a/b/some.gz?version=1", 1, "")
    assert (archive.file_name, archive.host) == ("some.gz", "example.org:8080")


def test_downloads_once(archive, server, tmp_path):
    path = fetch(archive, tmp_path)
    assert path == tmp_path / "some.gz"
    assert path.read_bytes() == BODY
    assert fetch(archive, tmp_path) == path
    assert server.asked == ["some.gz"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_or_partial_file_is_fetched_again(archive, server, tmp_path):
    (tmp_path / "some.gz").write_bytes(BODY[:-1] + b"\0")
    (tmp_path / "some.gz.part").write_bytes(BODY[:100])  # left by a killed process
    assert fetch(archive, tmp_path).read_bytes() == BODY
    assert server.asked == ["some.gz"]
    assert list(tmp_path.iterdir()) == [tmp_path / "some.gz"]


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (BODY[:-1] + b"\0", f"got {len(BODY)} bytes with"),
        (BODY + b"\0", f"got more than {len(BODY)} bytes, the first {len(BODY) + 1} with"),
        (BODY * 4, rf"got more than {len(BODY)} bytes, the first [23]\d{{5}} with"),  # not read to its end
    ],
)
def test_the_wrong_content_is_refused(archive, server, tmp_path, sent, found):
    server.send("some.gz", sent)
    with pytest.raises(
        ChecksumError, match=f"folder/some.gz sent something other.*{archive.sha256}, {found}.*--data-dir"
    ):
        fetch(archive, tmp_path)
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("announced", [len(BODY), len(BODY) // 2])
def test_a_truncated_body_is_refused(archive, server, tmp_path, announced):
    server.send("some.gz", BODY[: len(BODY) // 2], announced=announced)
    with pytest.raises(
        DownloadError, match=r"127.0.0.1:\d+ (sent 128000 of the 256000 bytes of|broke off within) some.gz"
    ):
        fetch(archive, tmp_path)
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("status", [500, 503, 404])
def test_an_error_answered(archive, server, tmp_path, status):
    server.fail("some.gz", status)
    with pytest.raises(
        DownloadError, match=rf"127.0.0.1:\d+ answered {status} [A-Z].* for http://127.*/folder/some.gz"
    ):
        fetch(archive, tmp_path)
    assert server.asked == ["some.gz"]
    assert nothing_is_left(tmp_path)


def test_no_http_answered(archive, server, tmp_path):
    server.answer("some.gz", lambda handler: handler.wfile.write(b"hello\r\n\r\n"))
    with pytest.raises(DownloadError, match=r"no connection to 127.0.0.1:.*: hello"):
        fetch(archive, tmp_path)


def test_nobody_listens(closed_url, tmp_path):
    with pytest.raises(DownloadError, match=r"no connection to 127.0.0.1:\d+: Connection refused"):
        fetch(Archive(closed_url + "some.gz", 1, ""), tmp_path)
    assert nothing_is_left(tmp_path)


def test_an_unknown_host(monkeypatch, tmp_path):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"no connection to example\.invalid: Name or service not known"):
        fetch(Archive("https://example.invalid/some.gz", 1, ""), tmp_path)


def test_a_name_look_up_that_hangs(monkeypatch, tmp_path):
    let_go = threading.Event()

    def hanging(*_, **__):
        let_go.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    monkeypatch.setattr(download, "_OPEN_SECONDS", 0.1)
    with pytest.raises(DownloadError, match=r"no answer from example.invalid within 0\.1 seconds"):
        fetch(Archive("https://example.invalid/some.gz", 1, ""), tmp_path)
    let_go.set()


def test_an_answer_that_comes_too_late_is_closed(archive, monkeypatch, tmp_path):
    let_go, closed = threading.Event(), threading.Event()

    class Answer:
        close = staticmethod(closed.set)

    def slow(*_, **__):
        let_go.wait(20)
        return Answer()

    monkeypatch.setattr(urllib.request, "urlopen", slow)
    monkeypatch.setattr(download, "_OPEN_SECONDS", 0.1)
    with pytest.raises(DownloadError, match="no answer"):
        fetch(archive, tmp_path)
    let_go.set()
    assert closed.wait(20)


def test_a_server_that_falls_silent(archive, server, monkeypatch, tmp_path):
    let_go = threading.Event()

    def half(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(BODY[:1000])
        handler.wfile.flush()
        let_go.wait(20)

    server.answer("some.gz", half)
    monkeypatch.setattr(download, "_STALL_SECONDS", 0.2)
    with pytest.raises(DownloadError, match=r"broke off within some\.gz: timed out"):
        fetch(archive, tmp_path)
    let_go.set()
    assert nothing_is_left(tmp_path)


def test_a_server_that_never_answers(silent_url, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "_OPEN_SECONDS", 0.1)
    with pytest.raises(DownloadError, match=r"no answer from 127.0.0.1:\d+ within 0.1 seconds"):
        fetch(Archive(silent_url + "some.gz", 1, ""), tmp_path)
    assert nothing_is_left(tmp_path)
