"""Downloading a file of known size and SHA-256 within a bounded time.

The downloader of tensorflow-datasets sets no timeouts, and tries for over three minutes before it reports that there is
no network.
"""

import dataclasses
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import BinaryIO
from urllib.parse import urlsplit

from train.host import files
from train.host.errors import UsageError

_OPEN_SECONDS = 4.0  # for name look-up, connection and the first line of the answer together
_STALL_SECONDS = 15.0  # the longest silence within a download
_CHUNK_BYTES = 1 << 16


class DownloadError(ConnectionError):
    """A download failed: no connection, an error as the answer, or a truncated file. It may work later."""


class ChecksumError(UsageError):
    """A downloaded file is not the published one."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """A published file: its URL, size and digest."""

    url: str
    size: int  # bytes
    sha256: str  # of the file as it is served, in hexadecimal

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def host(self) -> str:
        """The server's name, with the port where the URL names one."""
        return urlsplit(self.url).netloc


def fetch(archive: Archive, folder: Path) -> Path:
    """Return the path of the archive in a folder, after downloading it unless it is already there and intact.

    The content is verified in both cases. A download goes to a `.part` file that is renamed once it is verified, so an
    interrupted download cannot be mistaken for the archive. Only one process may download to a folder at a time.
    Proxies are taken from the environment (`https_proxy`).

    Args:
        archive: the published file.
        folder: the folder to keep it in, under its own file name.

    Raises:
        DownloadError: no connection within 4 seconds, an error as the answer, silence for 15 seconds, or a truncated
            file.
        ChecksumError: the downloaded file is not the published one; it is not kept.
    """
    path = folder / archive.file_name
    if path.is_file() and files.sha256(path) == archive.sha256:
        return path
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            _download(archive, file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _download(archive: Archive, file: BinaryIO) -> None:
    digest, received = hashlib.sha256(), 0
    with _open(archive) as response:
        for chunk in _chunks(archive, response):
            digest.update(chunk)
            received += len(chunk)
            file.write(chunk)
            if received > archive.size:
                break
    if received < archive.size:
        raise DownloadError(f"{archive.host} sent {received} of the {archive.size} bytes of {archive.file_name}")
    if digest.hexdigest() != archive.sha256:
        raise ChecksumError(
            f"{archive.url} sent something other than the published file: expected {archive.size} bytes with SHA-256 "
            f"{archive.sha256}, got {_amount(received, archive.size)} with {digest.hexdigest()}. Nothing was kept; "
            "try again, or get the files by another way and pass --data-dir DIR"
        )


def _amount(received: int, expected: int) -> str:
    return f"more than {expected} bytes, the first {received}" if received > expected else f"{received} bytes"


def _open(archive: Archive) -> http.client.HTTPResponse:
    """Open the URL within `_OPEN_SECONDS`.

    It runs in a separate thread, because nothing else bounds the time of a name look-up, or of trying all addresses of
    a host. An answer that arrives too late is closed unread.
    """
    answer: Future[http.client.HTTPResponse] = Future()

    def attempt() -> None:
        try:
            answer.set_result(urllib.request.urlopen(archive.url, timeout=_STALL_SECONDS))
        except Exception as error:
            answer.set_exception(error)

    Thread(target=attempt, daemon=True).start()
    try:
        return answer.result(timeout=_OPEN_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            raise DownloadError(f"{archive.host} answered {error.code} {error.reason} for {archive.url}") from error
    except TimeoutError as error:
        answer.add_done_callback(_close_unread)
        raise DownloadError(f"no answer from {archive.host} within {_OPEN_SECONDS:g} seconds") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"no connection to {archive.host}: {_reason(error)}") from error


def _close_unread(answer: "Future[http.client.HTTPResponse]") -> None:
    if answer.exception() is None:
        answer.result().close()


def _chunks(archive: Archive, response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{archive.host} broke off within {archive.file_name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The system's own message, without the wrapping errors."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
