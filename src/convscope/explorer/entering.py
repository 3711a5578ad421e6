"""Coming in where the server is not on loopback alone: the link's token becomes a cookie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from .guard import Entry
from .pages import Page, rendered
from .problems import Problem

router = APIRouter()


@dataclass(frozen=True)
class Door(Page):
    """What a link shows before it is used up: programs that look at links in messages do not press a button."""

    template: ClassVar[str] = "door.html"
    token: str


@router.get("/enter", include_in_schema=False)
async def door(request: Request, token: Annotated[str, Query()] = "") -> Response:
    """Show the button that takes somebody in."""
    return HTMLResponse(rendered(Door(token), request.app.state.bench))


@router.post("/enter", include_in_schema=False)
async def enter(request: Request, token: Annotated[str, Form()] = "") -> Response:
    """Exchange a link's token for a cookie."""
    entry: Entry | None = request.app.state.entry
    cookie = None if entry is None else entry.exchange(token)
    if entry is None or cookie is None:
        told = Problem(403, "that link was used", "each link works once: the terminal shows the next one")
        return told.response(request.scope)
    host = request.headers["host"]
    print(f"the next link: http://{host}/enter?token={entry.token}", flush=True)
    answer = RedirectResponse("/", 303)
    answer.headers["set-cookie"] = cookie
    return answer
