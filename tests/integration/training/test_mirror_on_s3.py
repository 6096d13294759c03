"""A run's mirror on a real S3 client and a server on loopback, with the faults of networks.

Skipped without s3fs and moto (`pip install s3fs 'moto[server]'`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import threading

import pytest
import torch

from tests.support.in_process import attempt, result_of
from trainerd.checkpoint.fsspec_storage import FsspecStorage
from trainerd.checkpoint.transfer import stored_names
from trainerd.training.writing import mirror as mirroring

pytest.importorskip("s3fs", reason="s3fs is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto is not installed")

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(300)]


def loop(session, tick):
    torch.manual_seed(1)
    model = torch.nn.Linear(300, 100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    session.track(model=model, optimizer=optimizer)
    for _ in session.epochs(2):
        for _ in session.batches(range(5)):
            loss = model(torch.randn(4, 300)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.log(loss=loss)
            tick()


class Way:
    """The way to the server, on which connections can be refused, or cut after so many bytes of an upload.

    Attributes:
        refusals: How many further connections are closed at once.
        cuts: How many further connections are closed once `CUT_BYTES` have gone up.
    """

    CUT_BYTES = 40_000

    def __init__(self, port):
        self.refusals = self.cuts = 0
        self._to = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                if self.refusals:
                    self.refusals -= 1
                    client.close()
                else:
                    threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client):
        server = socket.create_connection(("127.0.0.1", self._to))
        threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
        self._pump(client, server, is_upload=True)

    def _pump(self, source, target, *, is_upload=False):
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                passed += len(data)
                if is_upload and self.cuts and passed > self.CUT_BYTES:
                    self.cuts -= 1
                    break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._socket.close()


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    found = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    found.start()
    yield found.get_host_and_port()[1]
    found.stop()


@pytest.fixture
def way(server, monkeypatch, tmp_path):
    found = Way(server)
    monkeypatch.setattr(mirroring, "RETRY_S", 0.05)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{found.port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CA_BUNDLE", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"runs-{tmp_path.name.replace('_', '-').lower()}"[:60].strip("-")
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    found.url = f"s3://{bucket}/lab"
    yield found
    found.close()


def train(folder, way, **settings):
    folder.mkdir(exist_ok=True)
    return attempt(folder / "run", loop, steps=2, mirror=way.url, **settings)


def names(way):
    return stored_names(FsspecStorage(f"{way.url}/run"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("left-alone") / "run"
    assert attempt(folder, loop, steps=2)
    return result_of(folder)


def test_a_machine_with_an_empty_disk_goes_on_exactly(tmp_path, way, expected):
    assert not train(tmp_path / "a", way, crash_at=7)
    shutil.rmtree(tmp_path / "a")
    assert train(tmp_path / "b", way)
    assert result_of(tmp_path / "b" / "run") == expected
    assert names(way)[-1].startswith("step-000000010")


@pytest.mark.filterwarnings("ignore:trainerd. the mirror")
@pytest.mark.parametrize("fault", ["refusals", "cuts"])
def test_connections_that_fail_cost_nothing_but_time(tmp_path, way, fault):
    setattr(way, fault, 2)
    assert train(tmp_path / "a", way)
    assert getattr(way, fault) == 0
    assert names(way)[-1].startswith("step-000000010")


def test_what_comes_back_corrupt_is_not_used(tmp_path, way, expected):
    import s3fs

    assert not train(tmp_path / "a", way, crash_at=7)
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    newest = f"{way.url}/run/{names(way)[-1]}"
    for path in files.glob(f"{newest}/*.safetensors"):
        content = bytearray(files.cat(path))
        content[-5] ^= 1
        files.pipe(path, bytes(content))
    assert train(tmp_path / "b", way)
    assert result_of(tmp_path / "b" / "run") == expected
