"""Mutated requests and uploads to a running explorer: each is answered without a trace, and the next one, too."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from numpy.random import Generator, default_rng

from . import originals as make
from . import structures
from .kinds import KINDS
from .mutations import BYTES, NUMBERS, WORDS, Mutation, flipped, one_of, several, spliced, truncated
from .report import Part

if TYPE_CHECKING:
    from explorers import Running

Case = tuple[str, int, int]

_PATIENCE = 30.0
"""Seconds after which a computation hangs for which nobody waits."""
_SILENCE = 0.5
"""Seconds after which a server says nothing more: it may wait for the rest of a request."""

_SECRET = b"root:x:0:0"
_ESCAPES = (b"../", b"..%2f", b"%2e%2e/", b"%252e%252e%252f", b"..\\", b"%00", b"//", b"%", b"%zz", b"%ed%a0%80", b"\0",
            b"\xff", b"#", b"?", b"; ", b"\r\n", b" ", b".json", b".webp", b"/enter", b"/static/")  # fmt: skip
_METHODS = (*(b"GET",) * 60, b"HEAD", b"POST", b"PUT", b"OPTIONS", b"TRACE", b"CONNECT", b"get", b"", b"G\0", b"x" * 99)
_HEADERS = (
    b"Accept: application/json", b"Accept: text/html, application/json;q=0.9", b"Accept: \xff", b"Origin: null",
    b"Origin: http://evil.example", b"Sec-Fetch-Site: cross-site", b"Cookie: a=b; convscope-1=\xff; =; ;",
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999999", b"Content-Length: x",
    b"Content-Length: 0", b"Content-Length: \xb2", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity",
    b"Expect: 100-continue", b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: Upgrade", b"Connection: keep-alive",
    b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: x", b"Range: bytes=0-1", b"Range: bytes=5-1,-9,x",
    b"If-None-Match: \"x\"", b"If-Modified-Since: yesterday", b"If-Range: x", b"Content-Type: multipart/form-data",
    b"Content-Type: multipart/form-data; boundary=" + b"b" * 300, b"Content-Type: application/json",
    b"X: " + b"y" * 9000, b"X" * 70000, b"nocolon", b": nothing", b"Host: evil.example", b" folded: x", b"\x00: x",
)  # fmt: skip


_OPEN = contextlib.ExitStack()


@cache
def _server() -> Running:
    """Start an explorer in this process, which ends with it, and return it."""
    import torch

    from convscope.explorer.bench import Bench
    from convscope.explorer.shelf import Shelf
    from convscope.explorer.specimen import Specimen
    from explorers import running
    from networks import tiny

    bench = Bench([Specimen("tiny", tiny("sequential", dtype=torch.float32))], Shelf())
    return _OPEN.enter_context(running(bench))


@cache
def _addresses() -> list[bytes]:
    """Addresses of each kind, of a server that holds a picture."""
    server = _server()
    where = server.send(make.png()[0], "a.png").headers["location"]
    layers = [each["id"] for each in server.json("/net/tiny.json")["layers"]]
    first = layers[0]
    found = [
        "/", "/index.json", "/net/tiny", "/net/tiny.json", "/static/explorer.css", "/static/explorer.js",
        "/enter?token=x", "/go?network=tiny&picture=x", where, f"{where}.json?method=gradient&of=1&layer={first}",
        f"{where}?layer={first}&order=unusual&part=0", f"{where}/map.webp?method=occlusion&o.patch=3&o.stride=3",
        f"{where}/map.png?method=gradient&of=2", f"{where}/map.npz?method=gradient", f"{where}/thumb.webp",
        f"{where}/input.webp", f"{where}/layer/{first}/maps/number-0.webp", f"{where}/layer/{first}/pick/number-0?7,9",
        f"{where}/layer/{first}/unit/0/at/strongest", f"{where}/layer/{first}/unit/0/at/1,1.json?method=guided",
        f"{where}/layer/{first}/unit/0/at/1,1/projection-gradient.webp", "/live",
        *(f"/net/tiny/layer/{each}?sort=auc&which=dead" for each in layers),
        f"/net/tiny/layer/{first}/unit/0", f"/net/tiny/layer/{first}/unit/1.json",
        f"/net/tiny/layer/{first}/sheet/filters/0.webp", f"/net/tiny/layer/{first}/unit/0/strongest-deconvnet.webp",
    ]  # fmt: skip
    return [each.encode() for each in found]


def _odd(rng: Generator) -> bytes:
    word = one_of((*WORDS, *NUMBERS, *_ESCAPES, b"tiny", b"..", b"-1", b"0" * 200), rng)
    return quote_from_bytes(word).encode() if rng.random() < 0.6 else word


def _address(rng: Generator) -> bytes:
    """An address with up to two parts or values replaced, doubled or left out."""
    path, asks, query = one_of(_addresses(), rng).partition(b"?")
    pieces = path.split(b"/")
    for _ in range(rng.integers(0, 3)):
        at = int(rng.integers(len(pieces)))
        pieces[at : at + 1] = one_of(([_odd(rng)], [pieces[at], _odd(rng)], [], [pieces[at] + _odd(rng)]), rng)
    values = query.split(b"&") if asks else []
    for _ in range(rng.integers(0, 3)):
        key = one_of(
            (b"method", b"of", b"layer", b"order", b"part", b"sort", b"which", b"o.patch", b"v", _odd(rng)), rng
        )
        values.insert(int(rng.integers(len(values) + 1)), key + b"=" + _odd(rng))
    return b"/".join(pieces) + (b"?" + b"&".join(values) if values else b"")


def _request(rng: Generator, body: bytes = b"") -> bytes:
    host = _server().host.encode() if rng.random() < 0.9 else _odd(rng)
    lines = [
        one_of(_METHODS, rng) + b" " + _address(rng) + b" " + one_of((b"HTTP/1.1",) * 9 + (b"HTTP/1.0", b"x"), rng)
    ]
    lines += [b"Host: " + host, *(one_of(_HEADERS, rng) for _ in range(rng.integers(0, 4)) if rng.random() < 0.3)]
    return b"\r\n".join([*lines, b"", b""]) + body


def request(rng: Generator) -> bytes:
    """One request, damaged here and there, or cut off."""
    whole = _request(rng, one_of((b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"\x00" * 300), rng))
    return several([flipped, spliced, truncated], 2)(whole, rng) if rng.random() < 0.3 else whole


def pipeline(rng: Generator) -> bytes:
    """Several requests on one connection, of which any may be wrong, and the last be half."""
    good = f"GET /static/explorer.css HTTP/1.1\r\nHost: {_server().host}\r\n\r\n".encode()
    several_of = [good if rng.random() < 0.5 else _request(rng) for _ in range(rng.integers(2, 6))]
    return b"".join(several_of)[: None if rng.random() < 0.7 else -int(rng.integers(1, 60))]


_PICTURES: Sequence[tuple[Callable[[], Sequence[bytes]], Mutation, str]] = (
    (make.png, structures.PNG, "a.png"), (make.jpeg, structures.JPEG, "a.jpg"), (make.webp, structures.WEBP, "a.webp"),
    (make.gif, BYTES, "a.gif"), (make.tiff, structures.TIFF, "a.tif"), (make.npy, structures.NPY, "a.npy"),
    (make.hostile_pictures, BYTES, "a.png"),
)  # fmt: skip


def upload(rng: Generator) -> bytes:
    """A form with a damaged picture, or a damaged form."""
    real, damage, name = one_of(_PICTURES, rng)
    content = one_of(real(), rng)
    content = damage(content, rng) if rng.random() < 0.9 else content
    called = name.encode() if rng.random() < 0.5 else _odd(rng).replace(b"\r\n", b"")
    token = _server().bench.token.encode() if rng.random() < 0.95 else _odd(rng)
    edge = b"----edge"
    body = b"--" + edge + b'\r\nContent-Disposition: form-data; name="token"\r\n\r\n' + token + b"\r\n--" + edge
    body += b'\r\nContent-Disposition: form-data; name="picture"; filename="' + called + b'"\r\n\r\n' + content
    body += b"\r\n--" + edge + b"--\r\n"
    if rng.random() < 0.15:
        body = several([flipped, spliced, truncated], 2)(body, rng)
    length = len(body) if rng.random() < 0.95 else max(0, len(body) + int(rng.integers(-50, 50)))
    head = f"POST /pictures HTTP/1.1\r\nHost: {_server().host}\r\nConnection: close\r\nContent-Length: {length}\r\n"
    return head.encode() + b"Content-Type: multipart/form-data; boundary=" + edge + b"\r\n\r\n" + body


_KINDS: dict[str, Callable[[Generator], bytes]] = {"request": request, "pipeline": pipeline, "upload": upload}
_ROW = ("request",) * 16 + ("pipeline",) * 4 + ("upload",) * 2


def cases(count: int, seed: int = 0, only: Sequence[str] = ()) -> Iterator[Case]:
    """Return `count` cases: of 22, 2 are uploads."""
    for number in range(count):
        kind = _ROW[number % len(_ROW)]
        if not only or kind in only:
            yield kind, seed, number


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    """Send what the case is, look at all that comes back, and ask for the first page."""
    kind, seed, number = case
    sent = _KINDS[kind](default_rng([11, seed, number]))
    found = _exchange(sent)
    statuses = [int(each) for each in re.findall(rb"^HTTP/1\.\d (\d{3})", found, re.MULTILINE)]
    if any(status >= 500 for status in statuses):
        return "traceback", f"{statuses}: {sent[:200]!r}"
    for word in (b"Traceback", _SECRET, b'.py"', b"site-packages"):
        if word in found:
            return "traceback", f"{word!r} in the answer to {sent[:200]!r}"
    again = _server().get("/").status
    if again != 200:
        return "harmed", f"the first page is {again} after {sent[:200]!r}"
    if not _rests():
        return "hang", f"computing goes on after {sent[:200]!r}"
    return ("worked" if any(status < 400 for status in statuses) else "refused"), f"{statuses}"


def _exchange(sent: bytes) -> bytes:
    """Send, and return all that comes back until the server closes, or has nothing more to say to what was sent."""
    found = b""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", _server().port)) as opened:
        opened.settimeout(_SILENCE)
        opened.sendall(sent)
        with contextlib.suppress(TimeoutError):
            while part := opened.recv(1 << 16):
                found += part
    return found


def _rests() -> bool:
    """Whether nothing is computed any more, now that everybody has left."""
    ends = time.monotonic() + _PATIENCE
    while _server().bench.specimens["tiny"].waiting:
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def prepare(only: Sequence[str]) -> None:
    """Make all files before there are workers, and import what a server needs."""
    from convscope.explorer import serving  # noqa: F401

    assert KINDS
    for real, _, _ in _PICTURES:
        real()


PART = Part("explorer", 5500, 88, cases, attempt, prepare, batch=500, watched=False)
