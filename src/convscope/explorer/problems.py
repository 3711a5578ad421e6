"""Problems: what went wrong with a request, as a page or as JSON (RFC 9457), in one sentence that says what to do."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass

from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

_FOLDERS = re.compile(r"(?<![\w:/])(?:[A-Za-z]:)?[\\/](?:[^\s\\/'\":,;]+[\\/])+")
"""Folders of this machine in a message: whoever looks from elsewhere need not know them."""

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title} – convscope</title>
<link rel="stylesheet" href="/static/explorer.css"></head>
<body><main class="problem"><h1>{title}</h1><p>{detail}</p><p><a href="/">To the first page</a></p></main></body></html>
"""


class Missing(Exception):  # noqa: N818  reads as what happened
    """What was asked for does not exist: what that is, and what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what, self.advice = what, advice


class Refused(Exception):  # noqa: N818  reads as what happened
    """A request that is not of this run's own pages."""


@dataclass(frozen=True)
class Problem:
    """A status of HTTP, what happened in a few words, and what to do; no paths, no traces."""

    status: int
    title: str
    detail: str

    @classmethod
    def of(cls, error: Exception) -> Problem:
        """Return what an error that was raised on purpose says."""
        if isinstance(error, Missing):
            return cls(404, f"no {error.what}", error.advice)
        if isinstance(error, Refused):
            return cls(403, "not from this page", str(error))
        return cls(400, "that cannot be shown", _FOLDERS.sub("", str(error)))

    def response(self, scope: Scope) -> Response:
        """Return it as JSON to whoever asked for JSON, else as a page."""
        if _wants_json(scope):
            told = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
            return Response(json.dumps(told), self.status, media_type="application/problem+json")
        page = _PAGE.format(title=html.escape(self.title.capitalize()), detail=html.escape(self.detail))
        return HTMLResponse(page, self.status)


def _wants_json(scope: Scope) -> bool:
    accepted = b",".join(value for key, value in scope["headers"] if key.lower() == b"accept")
    return scope["path"].endswith(".json") or (b"json" in accepted and b"html" not in accepted)
