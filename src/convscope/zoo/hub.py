"""The Hugging Face hub: files of its repositories, from the caches of this machine or downloaded, never run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..errors import WeightsError
from .downloads import OTHERWISE, Refused, cache, fetch

MAIN = "main"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The files that may hold a network's weights, the one without code first."""

_ABSENT = 404


@dataclass(frozen=True)
class Repository:
    """A repository by its name, "ORG/NAME", and a branch, tag or commit of it."""

    name: str
    revision: str = MAIN

    def url(self, file: str) -> str:
        """Return the address of a file; HF_ENDPOINT stands for the hub's own, as in its library."""
        revision = quote(self.revision, safe="")
        return f"{_endpoint()}/{quote(self.name)}/resolve/{revision}/{quote(file)}"


def find(repository: Repository, files: Mapping[str, str]) -> Path | None:
    """Return the first of some files that is on this machine: in torch's cache, or in that of the hub's library.

    `files` are names in torch's cache by names in the repository.
    """
    for file, kept in files.items():
        if (cache() / kept).is_file():
            return cache() / kept
        path = _in_the_library(repository, file)
        if path is not None:
            return path
    return None


def any_of(repositories: str, kept: str) -> bool:
    """Whether anything is on this machine of repositories, or in torch's cache, whose names begin so."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return any(cache().glob(f"{kept}*"))
    library = Path(HF_HUB_CACHE).glob(f"models--{repositories.replace('/', '--')}*")
    return any(cache().glob(f"{kept}*")) or any(library)


def get(repository: Repository, files: Mapping[str, str], *, what: str, otherwise: str = OTHERWISE) -> Path:
    """Return the first of some files that there is: on this machine, or else in the repository, downloaded.

    Args:
        repository: where they are.
        files: their names in torch's cache by their names in the repository.
        what: whose they are, for messages.
        otherwise: what else can be done, for messages.

    Raises WeightsError, which says where to put the first file by hand, when there is none or it cannot be had.
    """
    path = find(repository, files)
    if path is not None:
        return path
    for file, kept in files.items():
        try:
            where = f"{file} of {_endpoint()}/{repository.name}"
            return fetch(repository.url(file), kept, what=f"{what}, {where}", otherwise=otherwise)
        except Refused as error:
            if error.code != _ABSENT:
                raise _refused(repository, file, kept, what, error) from None
    raise WeightsError(
        f"cannot get {what}: there is no {' or '.join(files)} in {_endpoint()}/{repository.name} "
        f"(revision {repository.revision}), or there is no such repository"
    )


def _refused(repository: Repository, file: str, kept: str, what: str, error: Refused) -> WeightsError:
    if error.code not in (401, 403):
        return error
    return WeightsError(
        f"cannot get {what}: {_endpoint()}/{repository.name} does not exist, or is shown only after a login "
        f"({error.code}). Check the name; if it is yours to read, download {file} by your own account and put it as "
        f"{kept} into {cache()}"
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _in_the_library(repository: Repository, file: str) -> Path | None:
    """Look into the cache of the hub's own library, which comes with timm."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        cached = try_to_load_from_cache(repository.name, file, revision=repository.revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None
