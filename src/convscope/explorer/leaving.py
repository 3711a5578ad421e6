"""Clients that leave, and clients that never come to the point: neither keeps a place from others."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_HEADERS_SECONDS = 15.0
"""Seconds that a request's headers may take to arrive."""

_BODY_SECONDS = 300.0
"""Seconds that a whole request may take: 64 MB at two megabits a second."""


class Leaving:
    """An application of which a page's making ends when the browser that asked for it has gone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for as long as somebody waits for it."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        gone = asyncio.create_task(_until_gone(receive))

        async def nothing() -> Message:  # these requests have no body; what follows is that the browser has gone
            await asyncio.shield(gone)
            return {"type": "http.disconnect"}

        answering = asyncio.ensure_future(self.app(scope, nothing, send))
        try:
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            answering.cancel()
        try:
            await answering
        except asyncio.CancelledError:
            if not gone.done() or gone.cancelled():
                raise


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Prompt(H11Protocol):
    """HTTP as uvicorn speaks it, to clients whose requests arrive within some time."""

    _timer: asyncio.TimerHandle | None = None
    _state: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        self._stop()

    def _wait(self) -> None:
        state: Any = self.conn.their_state
        if state is self._state and self._timer is not None:
            return  # what arrives in small parts has no more time
        self._stop()
        self._state = state
        seconds = _HEADERS_SECONDS if state is h11.IDLE else _BODY_SECONDS if state is h11.SEND_BODY else None
        if seconds is not None and not self.transport.is_closing():
            self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
