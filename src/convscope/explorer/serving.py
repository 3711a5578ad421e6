"""The server: the application with all its pages, behind the guard, and what starts it."""

from __future__ import annotations

import errno
import logging
import socket
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..errors import ConvscopeError, OutputError
from . import activation_pages, entering, job_pages, live_pages, network_pages, picture_pages
from .bench import Bench
from .guard import Entry, Guard
from .leaving import Leaving, Prompt
from .problems import Missing, Problem, Refused

_TRIED = 20
"""Ports that are tried, from the one that was asked for on."""

_MOST_CONNECTIONS = 500
"""Connections at a time, half of the files that a process may open: more are told to come later."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("0.0.0.0", "::")


def application(bench: Bench, entry: Entry | None = None) -> FastAPI:
    """Return the application: pages, their JSON and images, without the guard."""

    @asynccontextmanager
    async def closing(_: FastAPI) -> AsyncGenerator[None]:
        yield
        bench.close()

    # Its own pages of documentation load scripts from elsewhere.
    app = FastAPI(title="convscope", docs_url=None, redoc_url=None, openapi_url=None, lifespan=closing)
    app.state.bench, app.state.entry = bench, entry
    app.include_router(entering.router)
    app.include_router(network_pages.router)
    app.include_router(picture_pages.router)
    app.include_router(activation_pages.router)
    app.include_router(live_pages.router)
    app.include_router(job_pages.router)
    app.mount("/static", StaticFiles(directory=str(resources.files(__package__ or "").joinpath("static"))))
    for kind in (ConvscopeError, Missing, Refused):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _unforeseen)
    return app


def _told(request: Request, error: Exception) -> Response:
    return Problem.of(error).response(request.scope)


def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return Problem(400, "not understood", f"{where}: {first['msg']}").response(request.scope)


def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    advice = "the first page leads to all others" if error.status_code == 404 else "pages are read with GET"
    return Problem(error.status_code, str(error.detail).lower(), advice).response(request.scope)


def _unforeseen(request: Request, error: Exception) -> Response:
    """Answer without a trace, which stands in the terminal."""
    traceback.print_exception(error, file=sys.stderr)
    told = Problem(500, "a fault of convscope", "the terminal in which convscope serve runs says more")
    return told.response(request.scope)


@dataclass(frozen=True)
class Door:
    """Where the explorer is reached: its port, what a Host header may say, and who may come in besides this user."""

    port: int
    hosts: tuple[str, ...]
    entry: Entry | None

    @classmethod
    def of(cls, opened: socket.socket, names: Sequence[str] = ()) -> Door:
        """Return the door at a port that was opened, reached by its address and by further names."""
        host, port = opened.getsockname()[:2]
        known = [*([] if host in _EVERYWHERE else [host]), *names]
        if host in _LOOPBACK:
            known += [name for name in _LOOPBACK if name != host]
        hosts = tuple(f"{f'[{name}]' if ':' in name else name}:{port}" for name in known)
        return cls(port, hosts, None if host in _LOOPBACK else Entry(port))

    @property
    def link(self) -> str:
        """What to open in a browser."""
        base = f"http://{self.hosts[0]}/"
        return base if self.entry is None else f"{base}enter?token={self.entry.token}"


def guarded(bench: Bench, door: Door) -> ASGIApp:
    """Return the application behind the guard."""
    return Guard(Leaving(application(bench, door.entry)), door.hosts, door.entry)


@contextmanager
def listening(host: str, port: int) -> Generator[socket.socket]:
    """Open a port, the next free one where it is in use; 0 takes any. Raises OutputError where none is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + (_TRIED if port else 1)):
        # Named a TCP socket, or asyncio leaves Nagle's algorithm on: 40 ms for what is sent in two parts.
        opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, candidate))
        except OSError as error:
            opened.close()
            if error.errno != errno.EADDRINUSE:
                raise OutputError(f"cannot listen on {host} port {candidate}: {error.strerror or error}") from None
            continue
        with opened:
            yield opened
        return
    raise OutputError(f"ports {port} to {port + _TRIED - 1} are all in use: name another, as --port {port + 1000}")


def settings(app: ASGIApp) -> uvicorn.Config:
    """Return how a server behaves. What is wrong with a request is told to whoever sent it only."""
    for name in ("uvicorn.error", "python_multipart.multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, date_header=False, proxy_headers=False,
        h11_max_incomplete_event_size=1 << 16, timeout_keep_alive=15, timeout_graceful_shutdown=2, http=Prompt,
        limit_concurrency=_MOST_CONNECTIONS, ws="websockets-sansio",
        ws_per_message_deflate=False,  # pictures are compressed as they are
    )  # fmt: skip


def serve(bench: Bench, opened: socket.socket, door: Door, ready: Callable[[], None]) -> None:
    """Answer requests until ctrl-C; `ready` is called when the first may come."""
    server = uvicorn.Server(settings(guarded(bench, door)))
    opened.listen(128)
    ready()
    try:
        server.run(sockets=[opened])
    finally:
        bench.close()
