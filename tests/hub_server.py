"""A server that hands out a folder as the Hugging Face hub does: /ORG/NAME/resolve/REVISION/FILE."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


@dataclass
class Hub:
    """`asked` is what was asked for, in order; `private` what needs a login; `breaks` where a connection breaks off."""

    folder: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)
    private: str = "(none)"
    breaks: str = "(none)"

    def repository(self, name: str, revision: str = "main") -> Path:
        """Make the folder of a repository's files."""
        folder = self.folder / name / "resolve" / revision
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@contextmanager
def serving(folder: Path) -> Generator[Hub]:
    """Serve a folder on a free port of this machine until the block is left."""
    hub = Hub(folder)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            hub.asked.append(self.path.rpartition("/")[2])
            if hub.private in self.path:
                self.send_error(401)
            elif hub.breaks in self.path:
                self.break_off()
            else:
                super().do_GET()

        def break_off(self) -> None:
            whole = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
