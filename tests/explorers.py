"""A real explorer on this machine for tests: the server in a thread, and clients that normalise nothing."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from convscope import Atlas, load
from convscope.explorer.bench import Bench
from convscope.explorer.serving import Door, guarded, listening, settings
from convscope.explorer.shelf import Shelf
from convscope.explorer.specimen import Specimen


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """An explorer that answers at a port of 127.0.0.1."""

    bench: Bench
    door: Door

    @property
    def port(self) -> int:
        return self.door.port

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: bytes = b""
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            found = connection.getresponse()
            return Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status == 200, answer.text
        return answer.json

    def send(self, content: bytes, name: str = "cat.png", token: str | None = None, **headers: str) -> Answer:
        """Send a picture as a browser's form does."""
        token = self.bench.token if token is None else token
        edge = "----edge"
        parts = f'--{edge}\r\nContent-Disposition: form-data; name="token"\r\n\r\n{token}\r\n'
        parts += f'--{edge}\r\nContent-Disposition: form-data; name="picture"; filename="{name}"\r\n\r\n'
        body = parts.encode("utf-8", "surrogateescape") + content + f"\r\n--{edge}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={edge}", "Origin": f"http://{self.host}"}
        return self.get("/pictures", {**kind, **headers}, "POST", body)

    def raw(self, request: bytes) -> tuple[int, bytes]:
        """Send bytes as they are; the status, 0 where the connection was closed without one, and all that came back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as opened:
            opened.sendall(request)
            found = b""
            while part := opened.recv(1 << 16):
                found += part
        status = found.split(b" ", 2)[1] if found.startswith(b"HTTP/") else b"0"
        return int(status), found


@contextmanager
def running(bench: Bench, change: Callable[[Door], Door] = lambda door: door) -> Iterator[Running]:
    """Serve a bench at a free port until the end of the block."""
    with listening("127.0.0.1", 0) as opened:
        door = change(Door.of(opened))
        server = uvicorn.Server(settings(guarded(bench, door)))
        opened.listen(128)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        try:
            yield Running(bench, door)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
            bench.close()


def bench_of_pieces(atlas: Atlas) -> Bench:
    """Return a bench of zfnet64 with its atlas (`pieces_atlas`), lenet5 without one, and two photographs."""
    shelf = Shelf(["sample:chelsea", "sample:coffee"])
    return Bench([Specimen("zfnet64", atlas.net, atlas), Specimen("lenet5", load("lenet5"))], shelf)


def until(true: Callable[[], object], looks: int = 12_000) -> None:
    """Wait for what another thread or process brings about; a test that looked so often in vain fails."""
    for _ in range(looks):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("what was waited for never came about")
