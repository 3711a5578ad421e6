"""Pages: each is a value that a template shows and that is its own JSON, at the same address with .json behind."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, JSONResponse, Response

from ..drawing.layout import number
from .links import Links

Shows = Callable[..., Awaitable["Page"]]


class Page:
    """What a page shows: a frozen dataclass of plain values, and the template that shows it."""

    template: ClassVar[str]


def page(router: APIRouter, path: str, kind: type[Page]) -> Callable[[Shows], Shows]:
    """Serve what a function returns as a page, and with .json behind the address as JSON."""

    def register(show: Shows) -> Shows:
        signature = inspect.signature(show, eval_str=True)
        asks = "request" in signature.parameters
        named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in signature.parameters.values()]
        if not asks:
            named.append(inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request))

        async def shown(request: Request, asked: dict[str, Any]) -> Page:
            return await show(**asked, request=request) if asks else await show(**asked)

        # What takes milliseconds is done in a thread: the server's loop answers others meanwhile.
        @wraps(show)
        async def as_json(request: Request, **asked: Any) -> Response:
            whole = await shown(request, asked)
            return await request.app.state.bench.aside(lambda: JSONResponse(plain(whole)))

        @wraps(show)
        async def as_page(request: Request, **asked: Any) -> Response:
            whole = await shown(request, asked)
            twin = request.url.path.rstrip("/") or "/index"
            query = f"?{request.url.query}" if request.url.query else ""
            bench = request.app.state.bench
            return await bench.aside(lambda: HTMLResponse(rendered(whole, bench, twin=f"{twin}.json{query}")))

        for function in (as_json, as_page):  # FastAPI reads the signature
            function.__signature__ = signature.replace(parameters=named, return_annotation=Response)  # type: ignore[attr-defined]
        twin = "/index.json" if path == "/" else f"{path}.json"
        router.add_api_route(twin, as_json, methods=["GET"], response_model=kind, name=f"{show.__name__}.json")
        router.add_api_route(path, as_page, methods=["GET", "HEAD"], include_in_schema=False, name=show.__name__)
        return show

    return register


def rendered(shown: Page, bench: Any, links: Links | None = None, twin: str = "") -> str:
    """Return a page as HTML."""
    template = _environment().get_template(shown.template)
    return template.render(page=shown, links=links or Links(), bench=bench, twin=twin)


def plain(value: Any) -> Any:
    """Return a page as JSON can hold it: what is no number is null, infinities as words."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value) if each.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("infinity" if value > 0 else "-infinity")
    return value


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("convscope.explorer"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.filters |= {"number": number, "count": lambda value: f"{value:,}", "share": _share, "bars": bars}
    return found


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3g}%"


_WIDTH, _HEIGHT = 320, 80


def bars(heights: Sequence[float]) -> Markup:
    """Draw heights in [0, 1] as bars beside each other, as SVG that the page's style colours."""
    each = _WIDTH / max(1, len(heights))
    drawn = "".join(
        f'<rect x="{at * each:.2f}" y="{_HEIGHT * (1 - height):.2f}" width="{max(each - 0.5, 0.5):.2f}" '
        f'height="{_HEIGHT * height:.2f}"/>'
        for at, height in enumerate(heights)
    )
    return Markup(f'<svg class="bars" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none">{drawn}</svg>')
