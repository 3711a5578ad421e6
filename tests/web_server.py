"""A web server of a folder that misbehaves on request: by the beginning of the path that is asked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SIGNATURE = "X-Amz-Signature=0123abcdef"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.path = self.path.removeprefix("/whole")
        super().do_HEAD()

    def do_GET(self) -> None:
        _, kind, *_ = self.path.split("/")
        if kind in ("403", "503"):
            self.send_error(int(kind))
        elif kind == "folders":
            self._send(b'<a href="a/">a</a><a href="b/">b</a>', "text/html")
        elif kind == "bytes":
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            try:
                while True:
                    self.wfile.write(bytes(1 << 20))
            except OSError:
                return
        elif kind == "signed" and SIGNATURE not in self.path:
            self.send_error(403)
        else:
            self._file(ranges=kind != "whole")

    def _file(self, *, ranges: bool) -> None:
        self.path = self.path.removeprefix("/whole").removeprefix("/signed")
        asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        file = Path(self.translate_path(self.path))
        if not (ranges and asked and file.is_file()):
            super().do_GET()
            return
        content = file.read_bytes()
        self._send(content[int(asked[1]) : int(asked[2]) + 1], "image/png", 206)

    def _send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder, and give the server's address."""

    class Handler(_Handler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
