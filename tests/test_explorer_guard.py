"""Attacks on the explorer, each of which has happened to a server like it: by a raw client, against the real one."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from markupsafe import escape
from PIL import Image

from convscope import Atlas
from convscope.data.hashing import content_hash
from convscope.explorer.bench import Bench
from convscope.explorer.guard import Entry
from convscope.explorer.serving import application
from convscope.explorer.shelf import Shelf
from convscope.explorer.specimen import Specimen
from explorers import Running, running
from networks import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures with a link out of it, beside one of the same beginning that holds a secret."""
    root = tmp_path_factory.mktemp("served")
    (root / "pictures").mkdir()
    (root / "pictures-private").mkdir()
    Image.new("RGB", (8, 8), "red").save(root / "pictures" / "a.png")
    Image.new("RGB", (8, 8), "blue").save(root / "pictures-private" / "secret.png")
    (root / "pictures" / "link.png").symlink_to(root / "pictures-private" / "secret.png")
    (root / "pictures" / "words.png").write_text("no picture, but a password")
    return root / "pictures"


@pytest.fixture(scope="module")
def explorer(folder: Path) -> Iterator[Running]:
    net = tiny("sequential", dtype=torch.float32).changed(name='</script><img src=x onerror="alert(1)">')
    with running(Bench([Specimen("tiny", net)], Shelf([str(folder)]))) as found:
        yield found


def asked(explorer: Running, path: str = "/", host: str | None = None, *lines: str, method: str = "GET") -> int:
    host = explorer.host if host is None else host
    sent = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *lines, "Connection: close", "", ""]
    return explorer.raw("\r\n".join(sent).encode("latin-1"))[0]


@pytest.mark.parametrize("path", ["/", "/static/explorer.css", "/net/tiny.json", "/nowhere"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "", "127.0.0.1", "127.0.0.1.:{port}", "127.0.0.1:1", "0.0.0.0:{port}",
     "127.0.0.1.evil:{port}", "evil@127.0.0.1:{port}", "2130706433:{port}", "[::ffff:127.0.0.1]:{port}",
     "127.0.0.1:{port} evil"],
)  # fmt: skip
def test_a_name_that_is_not_this_servers_is_refused_on_every_path(explorer: Running, path: str, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name leads to 127.0.0.1 by now."""
    assert asked(explorer, path, host.format(port=explorer.port)) == 400
    assert asked(explorer, path, host.format(port=explorer.port), "Content-Length: 0", method="POST") == 400


def test_own_names_are_answered_in_any_case(explorer: Running) -> None:
    for name in ("127.0.0.1", "localhost", "LocalHost", "[::1]"):
        assert asked(explorer, "/", f"{name}:{explorer.port}") == 200


def test_two_hosts_are_refused(explorer: Running) -> None:
    assert asked(explorer, "/", explorer.host, "Host: evil.example") == 400
    assert asked(explorer, "/", "evil.example", f"Host: {explorer.host}") == 400
    assert asked(explorer, "http://evil.example/", explorer.host) in (400, 404)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1", "file://"])
def test_other_origins_are_refused_whatever_is_asked(explorer: Running, origin: str) -> None:
    for path in ("/", "/static/explorer.css", "/net/tiny.json"):
        assert asked(explorer, path, None, f"Origin: {origin}") == 403
    assert explorer.send(picture(), Origin=origin).status == 403
    assert asked(explorer, "/", None, f"Origin: http://{explorer.host}") == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None, "http://evil.example:{port}"])
def test_a_websocket_of_another_site_is_refused_before_it_opens(explorer: Running, origin: str | None) -> None:
    lines = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += ["Sec-WebSocket-Version: 13", *([f"Origin: {origin.format(port=explorer.port)}"] if origin else [])]
    for path in ("/live", "/nowhere", "/"):
        sent = "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {explorer.host}", *lines, "", ""])
        status, _ = explorer.raw(sent.encode())
        assert status == 403
    sent = "\r\n".join(["GET /live HTTP/1.1", "Host: evil.example", *lines, "", ""])
    assert explorer.raw(sent.encode())[0] == 403


def test_pages_of_other_sites_can_link_here_but_show_and_use_nothing(explorer: Running) -> None:
    foreign = "Sec-Fetch-Site: cross-site"
    assert asked(explorer, "/", None, foreign, "Sec-Fetch-Mode: navigate") == 200
    for mode in ("no-cors", "cors", "websocket", "same-origin"):
        assert asked(explorer, "/static/explorer.css", None, foreign, f"Sec-Fetch-Mode: {mode}") == 403
    assert asked(explorer, "/", None, "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate") == 200


def picture(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "green").save(buffer, "PNG")
    return buffer.getvalue()


def test_a_form_without_this_runs_token_changes_nothing(explorer: Running) -> None:
    for token in ("", "wrong", explorer.bench.token[:-1], explorer.bench.token + "\udcff"):
        answer = explorer.send(picture(), token=token)
        assert answer.status in (400, 403)
    assert not explorer.bench.shelf.sent
    assert explorer.send(picture()).status == 303
    assert len(explorer.bench.shelf.sent) == 1


def test_whatever_changes_something_asks_for_the_token_and_nothing_else_takes_a_post(explorer: Running) -> None:
    """A law over all routes: also those that come later."""
    app = application(explorer.bench)
    for route in app.routes:
        methods = getattr(route, "methods", None) or set()
        if "POST" in methods and getattr(route, "path", "") != "/enter":
            calls = [each.call.__name__ for each in route.dependant.dependencies]  # type: ignore[attr-defined]
            assert "_own_form" in calls, route
        assert methods <= {"GET", "HEAD", "POST"}
        assert not {"GET", "POST"} <= methods


_ESCAPES = [
    "../", "..%2f", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..\\", "..%5c", "....//", "%c0%ae%c0%ae/", "..;/", "//",
]  # fmt: skip


@pytest.mark.parametrize("escape", _ESCAPES)
def test_no_path_leads_out_of_what_is_served(explorer: Running, escape: str, folder: Path) -> None:
    targets = [
        "etc/passwd",
        "proc/self/environ",
        "guard.py",
        "explorer/guard.py",
        "static_private/x",
        "templates/base.html",
    ]
    for start in ("/static/", "/", "/net/", "/net/tiny/picture/", "/net/tiny/layer/"):
        for target in targets:
            sent = f"GET {start}{escape * 6}{target} HTTP/1.1\r\nHost: {explorer.host}\r\nConnection: close\r\n\r\n"
            status, found = explorer.raw(sent.encode())
            assert status in (400, 404), (start, escape, target)
            assert b"root:" not in found
            assert b"import " not in found
    for name in (
        "/etc/passwd",
        str(folder / "a.png"),
        "file:///etc/passwd",
        "\\\\host\\share\\a.png",
        "http://127.0.0.1/",
    ):
        assert explorer.get(f"/net/tiny/picture/{name.replace('/', '%2f')}").status in (400, 404)
    assert asked(explorer, "/static/%00explorer.css") in (400, 404)


def test_links_out_of_a_folder_are_not_opened_and_only_pictures_are_sent(explorer: Running) -> None:
    by_name = {shown.name: shown.id for shown in explorer.bench.shelf.listed}
    link = explorer.get(f"/net/tiny/picture/{by_name['link.png']}")
    assert link.status == 400
    assert "outside of its folder" in link.text
    words = explorer.get(f"/net/tiny/picture/{by_name['words.png']}/thumb.webp")
    assert words.status == 400
    assert b"password" not in words.body
    fine = explorer.get(f"/net/tiny/picture/{by_name['a.png']}/thumb.webp")
    assert Image.open(io.BytesIO(fine.body)).format == "WEBP"


def test_names_are_words_in_every_position(explorer: Running) -> None:
    for path in (
        "/",
        "/net/tiny",
        "/net/tiny/layer/output",
        "/nowhere/<img src=x onerror=alert(1)>".replace(" ", "%20"),
    ):
        page = explorer.get(path).text
        assert "<img src=x" not in page
        assert "</script><" not in page
    sent = explorer.send(picture(9), 'a"><svg onload=alert(1)>\u2028.png')
    page = explorer.get(sent.headers["location"]).text
    assert "<svg onload" not in page


def test_every_answer_bounds_what_a_browser_does_with_it(explorer: Running) -> None:
    for path in ("/", "/static/explorer.css", "/nowhere", "/net/tiny.json"):
        headers = explorer.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


_HOSTILE = '</script><img src=x onerror="alert(1)">\u2028'


_OUTSIDE = (
    "/etc/passwd", "../../secret.png", "..\\..\\secret.png", "{root}/secret.png", "chelsea/../../../secret.png",
    "link.png",
)  # fmt: skip


@pytest.fixture
def strangers(pieces_atlas: Atlas, tmp_path: Path) -> Iterator[Running]:
    """An explorer of an atlas that somebody else sent: its pictures are called `_OUTSIDE`, their class `_HOSTILE`."""
    folder, pieces, secret = tmp_path / "sent" / "atlas", tmp_path / "sent" / "pieces", tmp_path / "secret.png"
    shutil.copytree(pieces_atlas.path, folder)
    shutil.copytree(Path(pieces_atlas.path).parent / "pieces", pieces)
    Image.new("RGB", (8, 8), "red").save(secret)
    (pieces / "link.png").symlink_to(secret)
    table = pq.read_table(folder / "pictures.parquet")
    values = table.to_pydict()
    for at, path in enumerate(_OUTSIDE):
        values["path"][at] = path.format(root=tmp_path)
        values["sha256"][at] = content_hash(Path("/etc/passwd" if path.startswith("/etc") else secret).read_bytes())
    values["label"] = [_HOSTILE] * len(values["label"])
    pq.write_table(pa.table(values, schema=table.schema), folder / "pictures.parquet")
    roots = json.loads((folder / "roots.json").read_text())
    (folder / "roots.json").write_text(json.dumps(dict.fromkeys(roots, f"{pieces}/")))
    atlas = Atlas(folder, net=pieces_atlas.net)
    with running(Bench([Specimen("sent", atlas.net, atlas)], Shelf())) as found:
        yield found


def test_an_atlas_from_a_stranger_opens_nothing_outside_of_its_pictures(strangers: Running, tmp_path: Path) -> None:
    """What the data names is no address: not even where the stranger knows what the file holds."""
    for at, path in enumerate(_OUTSIDE):
        for asked in ("thumb.webp", "input.webp"):
            answer = strangers.get(f"/net/sent/picture/sent-scanned-{at}/{asked}")
            assert answer.status == 400, (path, asked)
            assert str(tmp_path) not in answer.text
            assert b"root:" not in answer.body
    assert strangers.get(f"/net/sent/picture/sent-scanned-{len(_OUTSIDE)}/thumb.webp").status == 200
    page = strangers.get("/net/sent/layer/conv1/unit/0")
    assert page.status == 200
    assert "<img src=x" not in page.text
    assert str(escape(_HOSTILE)) in page.text
    assert strangers.get("/net/sent/layer/conv1/unit/0.json").headers["content-type"] == "application/json"
    for unit in range(4):  # one of them has the pictures
        answer = strangers.get(f"/net/sent/layer/conv1/unit/{unit}/random-gradient.webp")
        assert answer.status in (200, 400), answer.text


def bomb(side: int) -> bytes:
    """A PNG of side × side black pixels in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_bombs_and_what_is_no_picture_are_refused_and_the_next_picture_is_read(explorer: Running) -> None:
    array = io.BytesIO()
    np.save(array, np.array([{"runs": "code"}], dtype=object), allow_pickle=True)
    for content in (bomb(30000), array.getvalue(), b"GIF89a", b"", b"<svg onload='alert(1)'/>", picture()[:40]):
        answer = explorer.send(content, "it.png")
        assert answer.status == 400
        assert "Traceback" not in answer.text
    assert explorer.send(picture(10)).status == 303


def test_requests_that_are_too_long_are_refused_before_they_are_read(explorer: Running) -> None:
    assert asked(explorer, "/pictures", None, "Content-Length: 99999999999", method="POST") == 413
    assert asked(explorer, "/pictures", None, "Transfer-Encoding: chunked", method="POST") == 411
    assert asked(explorer, "/" + "a" * 70000) in (400, 404, 414, 431)
    for method in ("PUT", "DELETE", "TRACE", "OPTIONS", "PATCH"):
        assert asked(explorer, "/", None, method=method) == 405


def test_no_page_shows_folders_of_this_machine(explorer: Running, folder: Path) -> None:
    for path in ("/", "/net/tiny", "/net/tiny.json", "/index.json"):
        assert str(folder) not in explorer.get(path).text
    for shown in explorer.bench.shelf.listed:
        assert "/tmp" not in explorer.get(f"/net/tiny/picture/{shown.id}").text


def test_others_come_in_by_a_link_that_works_once(folder: Path) -> None:
    bench = Bench([Specimen("tiny", tiny("sequential", dtype=torch.float32))], Shelf())
    with running(bench, lambda door: replace(door, entry=Entry(door.port))) as found:
        entry = found.door.entry
        assert entry is not None
        token = entry.token
        assert found.get("/").status == 401
        assert found.get("/net/tiny.json").status == 401
        assert found.get(f"/enter?token={token}").status == 200
        assert entry.token == token, "looking at the link does not use it up"
        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://{found.host}"}
        assert found.get("/enter", form, "POST", b"token=wrong").status == 403
        answer = found.get("/enter", form, "POST", f"token={token}".encode())
        assert answer.status == 303
        cookie = answer.headers["set-cookie"]
        assert re.search(rf"^convscope-{found.port}=\S+; HttpOnly; SameSite=Strict", cookie)
        assert found.get("/enter", form, "POST", f"token={token}".encode()).status == 403
        mine = {"Cookie": cookie.split(";")[0]}
        assert found.get("/", mine).status == 200
        assert found.get("/", {"Cookie": f"convscope-{found.port}=guess"}).status == 401
        assert found.get("/", {"Cookie": cookie.split(";")[0].replace(str(found.port), "1")}).status == 401
