"""Small datasets, a local server that hands them out, and a world in which no test reaches the real network or home."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import socket
import struct
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from train.data.cifar10 import BATCHES
from train.data.dataset import Arrays
from train.data.published import PUBLISHED, Published


def _idx_bytes(array: np.ndarray) -> bytes:
    if array.ndim == 1:
        return struct.pack(">II", 0x801, len(array)) + array.astype(np.uint8).tobytes()
    return struct.pack(">IIII", 0x803, *array.shape[:3]) + array.tobytes()


@pytest.fixture
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    """Makes an IDX file of images (N, H, W, 1) or labels (N,): the format, written down a second time."""
    return _idx_bytes


def moved(published: Published, url: str) -> Published:
    """A dataset that is published elsewhere."""
    archives = {k: dataclasses.replace(each, url=url + each.file_name) for k, each in published.archives.items()}
    return dataclasses.replace(published, archives=archives)


class Server:
    """A web server on this machine. What it answers may be changed at any time; what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                outer.asked.append(name)
                with contextlib.suppress(ConnectionError):  # in some tests the client goes away
                    outer._answers[name](self)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._httpd.server_port}/"
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def answer(self, name: str, how: Callable[[BaseHTTPRequestHandler], None]) -> None:
        """Answers requests for a file by calling `how` with the handler."""
        self._answers[name] = how

    def send(self, name: str, body: bytes, *, announced: int | None = None) -> None:
        """Answers requests for a file with a body, of which the header may announce another length."""

        def how(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body) if announced is None else announced))
            handler.end_headers()
            handler.wfile.write(body)

        self.answer(name, how)

    def fail(self, name: str, status: int) -> None:
        """Answers requests for a file with an error."""
        self.answer(name, lambda handler: handler.send_error(status))

    def close(self) -> None:
        """Stops listening."""
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def closed_url() -> Iterator[str]:
    """The URL of a port at which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/"


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The URL of a server that accepts a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture
def small_mnist() -> Arrays:
    """40 training and 20 test examples."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 28, 28, 1)).astype(np.uint8)
    labels = random.integers(0, 10, 60).astype(np.int32)
    return Arrays(images[:40], labels[:40], images[40:], labels[40:])


@pytest.fixture
def archive_bytes(small_mnist: Arrays) -> dict[str, bytes]:
    """The small MNIST as gzipped IDX files, by file name."""
    return {
        archive.file_name: gzip.compress(_idx_bytes(array), mtime=0)
        for archive, array in zip(PUBLISHED["mnist"].archives.values(), small_mnist, strict=True)
    }


@pytest.fixture
def small_cifar10() -> Arrays:
    """20 training and 4 test examples."""
    random = np.random.default_rng(1)
    images, labels = random.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8), np.arange(24, dtype=np.int32) % 10
    return Arrays(images[:20], labels[:20], images[20:], labels[20:])


@pytest.fixture
def cifar10_bytes(small_cifar10: Arrays) -> dict[str, bytes]:
    """The small CIFAR-10 as its one archive, 4 images a file, by file name."""
    images, labels = (
        np.concatenate([getattr(small_cifar10, f"{split}_{part}") for split in ("train", "test")])
        for part in ("inputs", "labels")
    )
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        for i, batch in enumerate(BATCHES):
            records = zip(labels[4 * i : 4 * i + 4], images[4 * i : 4 * i + 4], strict=True)
            content = b"".join(bytes([label]) + image.transpose(2, 0, 1).tobytes() for label, image in records)
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{batch}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"cifar-10-binary.tar.gz": body.getvalue()}


@pytest.fixture
def publish(
    server: Server, archive_bytes: dict[str, bytes], cifar10_bytes: dict[str, bytes]
) -> Callable[[str], Published]:
    """Publishes a small dataset by the local server; returns where it is, and what must arrive."""

    def publish(name: str) -> Published:
        published = PUBLISHED[name]
        bodies = cifar10_bytes if name == "cifar10" else archive_bytes
        archives = {}
        for key, archive in published.archives.items():
            body = bodies[archive.file_name]
            server.send(archive.file_name, body)
            digest = hashlib.sha256(body).hexdigest()
            archives[key] = dataclasses.replace(
                archive, url=server.url + archive.file_name, size=len(body), sha256=digest
            )
        return dataclasses.replace(published, archives=archives)

    return publish


@pytest.fixture
def small_set(publish: Callable[[str], Published]) -> Published:
    """The small MNIST, published by the local server."""
    return publish("mnist")


@pytest.fixture
def mnist_folder(tmp_path: Path, archive_bytes: dict[str, bytes]) -> Path:
    """A folder with the small MNIST's four files."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, body in archive_bytes.items():
        (folder / name).write_bytes(body)
    return folder


@pytest.fixture(autouse=True)
def alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, closed_url: str
) -> None:
    """No proxy, no network and no home folder, whatever machine this runs on."""
    temporary = str(tmp_path_factory.mktemp("temporary"))  # tensorflow-datasets leaves an empty folder there each time
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    monkeypatch.setenv("TMPDIR", temporary)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for name, published in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED, name, moved(published, closed_url))
