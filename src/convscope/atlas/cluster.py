"""The engine of a cluster: one stateless Ray task for each shard, which writes its file and returns a small receipt.

Where tasks run, how often they are tried when a machine dies, and what travels between machines is all Ray's.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from ..context import check_cancelled
from ..errors import AtlasError, OptionError, one_line
from .computing import Receipt, Scan
from .engines import PAUSE, TRIES, Failure, Outcomes, kept, outcome_of
from .jobs import Job, Part, parts
from .scanning import Engine

_STORE = 150 << 20
"""Bytes of Ray's object store: results are files, and only names of pictures pass through it."""

_AHEAD = 2
"""Tasks for each that can run at once: the others are not sent yet, with their pictures' names."""

_PATIENCE = 5.0
"""Seconds that an address has to answer."""


def ray(address: str | None = None, *, device: str = "", cpus: int = 1, workers: int = 0) -> Engine:
    """Return an engine of Ray tasks.

    Args:
        address: of a cluster that runs, as "10.0.0.1:6379", "ray://head:10001" or "auto", which is trusted with
            everything; by default the one of the variable RAY_ADDRESS, else one is started on this machine and ended
            with the scan, with a token of its own and without a dashboard.
        device: what workers compute on, "cpu" or "cuda", one GPU for each task; by default what the network is on.
        cpus: how many processor cores a task takes, and threads.
        workers: how many tasks run at once on this machine, where the cluster is started here; by default one for
            every `cpus` cores.

    Raises OptionError for impossible numbers, AtlasError without Ray. The engine raises AtlasError for an address where
    no cluster answers, a network that only this process has, and shards that could not be computed.
    """
    if cpus < 1 or workers < 0:
        raise OptionError(f"cpus is 1 or more and workers 0 or more, not {cpus} and {workers}")
    if find_spec("ray") is None:
        raise AtlasError("a scan by Ray needs it: pip install 'convscope[cluster]'")
    address = address or os.environ.get("RAY_ADDRESS") or None

    def engine(scan: Scan, numbers: Sequence[int]) -> Generator[Receipt]:
        job = Job.of(scan, device=(device or scan.net.device.type).partition(":")[0], threads=cpus)
        with _cluster(address, workers * cpus or None):
            yield from kept(scan, _outcomes(job, parts(scan, numbers)))

    return engine


def _outcomes(job: Job, waiting: Iterator[Part]) -> Outcomes:
    """Yield what became of parts as they end, each in a task of its own."""
    import ray
    from ray.exceptions import RayError

    needs = {"CPU": float(job.threads), **({"GPU": 1.0} if job.device == "cuda" else {})}
    _check_there_is(needs)
    # Ray lends a GPU to a process for one task only, unless it is told that there is no such limit.
    make: Any = ray.remote(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_calls=0, max_retries=TRIES - 1)
    task = make(_compute)
    sent, running = ray.put(job), dict[Any, int]()
    try:
        while True:
            while len(running) < _together(needs) and (part := next(waiting, None)) is not None:
                running[task.remote(sent, part)] = part.number
            if not running:
                return
            ready, _ = ray.wait(list(running), timeout=PAUSE)
            check_cancelled()
            for reference in ready:
                number = running.pop(reference)
                try:
                    yield ray.get(reference)
                except RayError as error:
                    yield Failure(number, _reason(error))
    finally:
        for reference in running:
            with suppress(RayError):
                # By force Ray ends this process, too, when the answer of a task comes just then.
                ray.cancel(reference)


def _compute(job: Job, part: Part) -> Receipt | Failure:
    """What a task does."""
    import torch

    torch.set_num_threads(job.threads)
    return outcome_of(job, part, workers=job.threads)


def _together(needs: dict[str, float]) -> int:
    """Return how many tasks are sent and not done: some more than run, so that none waits for its successor."""
    import ray

    there = ray.cluster_resources()
    return max(1, _AHEAD * int(min(there.get(name, 0.0) / count for name, count in needs.items())))


def _check_there_is(needs: dict[str, float]) -> None:
    """Refuse what no machine of the cluster has: tasks would wait for ever."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= count for name, count in needs.items()) for node in nodes):
        has = ", ".join(f"{node.get('CPU', 0):.0f} CPUs and {node.get('GPU', 0):.0f} GPUs" for node in nodes)
        raise AtlasError(
            f"a task takes {needs['CPU']:.0f} CPUs and {needs.get('GPU', 0):.0f} GPUs, and no machine of the cluster "
            f"has as many: there are {has or 'none'}"
        )


def _reason(error: Exception) -> str:
    """Say why Ray gave a task up."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"Ray gave it up: {type(error).__name__}: {one_line(lines[0] if lines else '')[:300]}"


@contextmanager
def _cluster(address: str | None, cpus: int | None) -> Generator[None]:
    """Be connected to a cluster inside the block, which is started where no address is given."""
    with _environment(own=address is None):
        import ray

        if ray.is_initialized():  # in a program that uses Ray itself: it stays connected
            yield
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            options |= {"address": "local", "include_dashboard": False, "object_store_memory": _STORE, "num_cpus": cpus}
            options["_node_ip_address"] = "127.0.0.1"
        else:
            _check_answers(address)
            options["address"] = address
        with _signals_as_before():
            try:
                ray.init(**options)
            except Exception as error:
                where = f"the cluster at {address}" if address else "a cluster on this machine"
                raise AtlasError(
                    f"{where} cannot be used: {one_line(str(error))[:300]}{_about_token(address)}"
                ) from None
        try:
            yield
        finally:
            ray.shutdown()


@cache
def _token() -> str:
    """Return the token of the clusters of this process: Ray reads one once."""
    return secrets.token_hex(32)


def _check_import() -> None:
    """Refuse where Ray was imported before it could be told to ask for a token. Raises AtlasError."""
    told = os.environ.get("RAY_AUTH_MODE") == "token" or _token.cache_info().currsize
    ray = sys.modules.get("ray")
    if ray is not None and not told and not ray.is_initialized():
        raise AtlasError(
            "this program imported Ray before, which then starts no cluster that asks for a token: set the environment "
            "variable RAY_AUTH_MODE=token before the program starts, or connect Ray yourself, with ray.init(), first"
        )


@contextmanager
def _environment(*, own: bool) -> Generator[None]:
    """Set what Ray reads from the environment, which processes that it starts inherit, and put it back afterwards."""
    # What a connection to something else than Ray may take is bounded, too.
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_py_gcs_connect_timeout_s": "10"}
    if own:
        _check_import()
        wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token(), "RAY_task_oom_retries": "2"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if own or before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _signals_as_before() -> Generator[None]:
    """Keep the handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)


def _about_token(address: str | None) -> str:
    if address is None or os.environ.get("RAY_AUTH_MODE") == "token":
        return ""
    return "; if it was started with a token, set RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN here, too"


def _host(address: str) -> tuple[str | None, int | None]:
    """Part an address into host and port. Raises OptionError for what is none."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _check_answers(address: str) -> None:
    """Refuse an address where nothing answers: Ray itself would ask for minutes, and then end this process."""
    if address == "auto":
        return
    host, port = _host(address)
    if host is None or port is None:
        raise OptionError(
            f"the address of a cluster is HOST:PORT as in 10.0.0.1:6379, ray://HOST:10001 or auto, not {address!r}"
        )
    try:
        socket.create_connection((host, port), _PATIENCE).close()
    except OSError as error:
        raise AtlasError(
            f"nothing answers at {address} ({error.strerror or error}): start a cluster there, as ray start --head "
            f"--port={port} does, or leave --address out"
        ) from None
