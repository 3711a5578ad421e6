"""The explorer under strain: clients that leave or dawdle, a process that is killed, and many who ask at once."""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from PIL import Image

from convscope.context import track
from convscope.explorer import leaving
from convscope.explorer.bench import Bench
from convscope.explorer.shelf import Shelf
from convscope.explorer.specimen import Specimen
from explorers import Running, running
from networks import tiny


@pytest.fixture
def explorer() -> Iterator[Running]:
    with running(Bench([Specimen("tiny", tiny("sequential", dtype=torch.float32))], Shelf())) as found:
        yield found


def picture(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "green").save(buffer, "PNG")
    return buffer.getvalue()


def asked(explorer: Running, path: str) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", explorer.port), timeout=30)
    opened.sendall(f"GET {path} HTTP/1.1\r\nHost: {explorer.host}\r\n\r\n".encode())
    return opened


def until(happens: threading.Event) -> None:
    assert happens.wait(30)


def test_what_nobody_waits_for_is_ended_and_what_others_wait_for_goes_on(
    explorer: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser that leaves ends a computation under way at its next step, and one that has not begun altogether."""
    where = explorer.send(picture()).headers["location"]
    begun, ended, go_on = threading.Event(), threading.Event(), threading.Event()
    made: list[str] = []

    def slow(specimen: object, prepared: object, method: str, *_: object) -> None:
        made.append(method)
        begun.set()
        try:
            for _ in track(range(10_000), "slowly"):
                time.sleep(0.002)
                if go_on.is_set():
                    break
        except KeyboardInterrupt:
            ended.set()
            raise
        raise AssertionError("the end of a computation that went on")

    monkeypatch.setattr("convscope.explorer.picture_pages._heatmap", slow)
    first = asked(explorer, f"{where}/map.webp?method=gradient")
    until(begun)
    second = asked(explorer, f"{where}/map.webp?method=gradient")
    waiting = asked(explorer, f"{where}/map.webp?method=saliency")
    time.sleep(0.05)
    first.close()
    waiting.close()
    assert not ended.wait(0.1), "another waits for the same"
    second.close()
    until(ended)
    begun.clear()
    third = asked(explorer, f"{where}/map.webp?method=occlusion")
    until(begun)
    assert made == ["gradient", "occlusion"], "what nobody waited for was not begun"
    go_on.set()
    assert third.recv(12) == b"HTTP/1.1 500"
    third.close()


def test_a_decoding_process_that_is_killed_costs_one_picture(explorer: Running) -> None:
    assert explorer.send(picture(9)).status == 303
    pool = explorer.bench.shelf.decoder._pool
    assert pool is not None
    for process in list(pool._processes):
        os.kill(process, signal.SIGKILL)
    answers = [explorer.send(picture(10 + at)).status for at in range(2)]
    assert answers in ([400, 303], [303, 303])


def test_requests_that_never_end_give_their_place_up(explorer: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers byte by byte, and bodies that stop: the connection is closed after its time, whatever still trickles."""
    monkeypatch.setattr(leaving, "_HEADERS_SECONDS", 0.3)
    monkeypatch.setattr(leaving, "_BODY_SECONDS", 0.3)
    head = f"POST /pictures HTTP/1.1\r\nHost: {explorer.host}\r\nContent-Length: 1000\r\n\r\nabc".encode()
    slow = [b"", b"G", b"GET / HTTP/1.1\r\nHost: ", head]
    opened = [socket.create_connection(("127.0.0.1", explorer.port), timeout=10) for _ in slow]
    for connection, part in zip(opened, slow, strict=True):
        connection.sendall(part)
    trickling = socket.create_connection(("127.0.0.1", explorer.port), timeout=10)
    with pytest.raises(OSError):
        for _ in range(500):
            trickling.sendall(b"G")
            time.sleep(0.01)
    for connection in opened:
        assert b"HTTP/1.1 200" not in connection.recv(1000)
        connection.close()
    assert explorer.get("/").status == 200
