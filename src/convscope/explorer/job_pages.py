"""The pages of jobs, and the forms that begin and end them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Form
from starlette.responses import FileResponse, RedirectResponse, Response

from .. import provenance, registry
from ..errors import OptionError
from ..tracing import Layer
from .bench import Bench, OnBench, OwnForm
from .jobs import Asked, Job, Jobs, Order, about_unit, key_of
from .pages import Page, page
from .problems import Missing
from .specimen import Specimen
from .working import FINDINGS, NUMBERS, PREVIEW, REPORT, RESULT

router = APIRouter()

_KINDS = {
    RESULT: "image/png",
    NUMBERS: "application/octet-stream",
    PREVIEW: "image/webp",
    REPORT: "text/html; charset=utf-8",
    FINDINGS: "application/json",
}

_REPORTS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
    "sandbox allow-popups"
}
"""Of a report, which holds its style, and may do nothing."""


@dataclass(frozen=True)
class JobsPage(Page):
    """All jobs: those that have not ended first."""

    template: ClassVar[str] = "jobs.html"
    jobs: list[Job]
    where: str


@dataclass(frozen=True)
class JobPage(Page):
    """A job: how far it is, what it has made, and how to make the same elsewhere."""

    template: ClassVar[str] = "job.html"
    job: Job
    files: list[str]


def _jobs(bench: Bench) -> Jobs:
    if bench.jobs is None:
        raise Missing("queue", f"{bench.no_jobs or 'this explorer keeps no results'}")
    return bench.jobs


@page(router, "/jobs", JobsPage)
async def jobs(bench: OnBench) -> JobsPage:
    """Show all jobs."""
    if bench.jobs is None:
        return JobsPage([], bench.no_jobs)
    return JobsPage(await bench.aside(bench.jobs.listed), "")


@page(router, "/jobs/{job}", JobPage)
async def job(bench: OnBench, job: str) -> JobPage:
    """Show a job."""
    found = await bench.aside(lambda: _jobs(bench).find(job))
    if found is None:
        raise Missing("such job", "the page of jobs lists those that there are")
    return JobPage(found, [name for name in _KINDS if _jobs(bench).place(job, name).exists()])


@router.get("/jobs/{job}/{name}", include_in_schema=False)
async def file(bench: OnBench, job: str, name: str) -> Response:
    """Return what a job has made."""
    found = await bench.aside(lambda: _jobs(bench).find(job))
    if found is None or name not in _KINDS or not _jobs(bench).place(job, name).exists():
        raise Missing("such result", "the job's page shows those that there are")
    headers = _REPORTS if name == REPORT else {"cache-control": "no-cache"}
    return FileResponse(_jobs(bench).place(job, name), media_type=_KINDS[name], headers=headers)


@router.post("/jobs/{job}/end", dependencies=[OwnForm], include_in_schema=False)
async def end(bench: OnBench, job: str) -> Response:
    """End a job."""
    await bench.aside(lambda: _jobs(bench).end(job))
    return RedirectResponse(f"/jobs/{job}", 303)


@router.post("/jobs", dependencies=[OwnForm], include_in_schema=False)
async def begin(
    bench: OnBench,
    kind: Annotated[Literal["maximize", "dream", "scan", "diagnose"], Form()],
    network: Annotated[str, Form()],
    layer: Annotated[str, Form()] = "",
    unit: Annotated[int, Form()] = 0,
    source: Annotated[int, Form()] = 0,
    picture: Annotated[str, Form()] = "",
) -> Response:
    """Put a job into the queue, and go to its page."""
    specimen = bench.specimens.get(network)
    if specimen is None:
        raise Missing("such network", f"there are {', '.join(bench.specimens)}")
    if specimen.net.source is None:
        raise OptionError(f"{specimen.net.name} was not loaded by name, so that no other process can load it")
    order = await bench.aside(lambda: _ORDERS[kind](bench, specimen, layer, unit, source, picture))
    added = await bench.aside(lambda: _jobs(bench).add(order))
    return RedirectResponse(f"/jobs/{added.id}", 303)


def objective_of(specimen: Specimen, layer: Layer, unit: int) -> str:
    """Return the objective of a unit, as text."""
    return f"{layer.name}:{unit}" if layer.name else str(unit)


def _layer(specimen: Specimen, layer: str, unit: int) -> Layer:
    found = specimen.layers.get(layer)
    if found is None or not 0 <= unit < specimen.units(found):
        raise Missing("such unit", "the layer's page lists its units")
    return found


def _drawing(
    specimen: Specimen, name: str, options: dict[str, Any], about: str, title: str, pictures: Mapping[str, Path]
) -> Order:
    """Return the order for a drawing of a view; pictures are files, by what they are called."""
    net, entry = specimen.net, registry.load_all()[name]
    checked = entry.check_options(options)
    recipe = provenance.recipe(net, entry, list(pictures.values()), checked.get("of"), checked)
    python = ["net", *map(repr, pictures), *(f"{key}={value!r}" for key, value in options.items())]
    shell = [
        name,
        *map(quote, pictures),
        "--net",
        net.name,
        *(f"--{key}={quote(each)}" for key, each in options.items()),
    ]
    return Order(
        kind=name,
        title=title,
        network=specimen.id,
        about=about,
        asked=Asked("draw", asdict(recipe)),
        key=recipe.key,
        python=f"convscope.{name}({', '.join(python)})",
        command=f"convscope {' '.join(shell)} -o {name}.png",
    )


def _maximize(_: Bench, specimen: Specimen, layer: str, unit: int, __: int, ___: str) -> Order:
    found = _layer(specimen, layer, unit)
    of = objective_of(specimen, found, unit)
    title = f"A picture that excites unit {unit} of {found.name or 'the output'}"
    return _drawing(specimen, "maximize", {"of": of}, about_unit(layer, unit), title, {})


def _dream(bench: Bench, specimen: Specimen, layer: str, _: int, __: int, picture: str) -> Order:
    shown, clean = bench.look(picture)
    file = _jobs(bench).keep(clean.content)
    found = _layer(specimen, layer, 0)
    title = f"What {found.name or 'the output'} sees in {shown.name}"
    return _drawing(specimen, "dream", {"layer": found.name}, picture, title, {shown.name: file})


def _of_data(kind: Literal["scan", "diagnose"]) -> Callable[..., Order]:
    def order(bench: Bench, specimen: Specimen, _: str, __: int, source: int, ___: str) -> Order:
        if not 0 <= source < len(bench.shelf.sources):
            raise Missing("such data", "start the explorer with --pictures FOLDER")
        data = bench.shelf.sources[source]
        net = specimen.net
        asked = Asked(kind, data=source)
        key = key_of({"kind": kind, "weights": net.digest, "reads": str(net.reads), "data": data})
        title = {"scan": "What excites each unit", "diagnose": "What is wrong with it"}[kind]
        name = bench.shelf.titles[source]
        command = {
            "scan": f"convscope scan {name} --net {net.name} -o ATLAS",
            "diagnose": f"convscope diagnose {net.name} --data {name} -o report.html",
        }[kind]
        python = {
            "scan": f"convscope.scan(net, {name!r}, 'atlas')",
            "diagnose": f"convscope.diagnose(net, {name!r}).save('report.html')",
        }[kind]
        return Order(kind, f"{title}, over {name}", specimen.id, kind, asked, key, python, command)

    return order


_ORDERS: dict[str, Callable[..., Order]] = {
    "maximize": _maximize,
    "dream": _dream,
    "scan": _of_data("scan"),
    "diagnose": _of_data("diagnose"),
}
