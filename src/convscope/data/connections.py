"""Connections to storages: fsspec's filesystems, asked within a bounded time, and what went wrong in plain words."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .. import addresses
from ..errors import DataError, PictureError, StorageError, nearest
from .limits import most_bytes

_CONNECT, _READ, _CALL = 5.0, 20.0, 60.0
"""Seconds until a connection must stand, until something must come, and until a request must be done with retries."""

_TRIES = 3

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a", "http", "https"), "'convscope[cloud]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **{"hf": "huggingface_hub", "oss": "ossfs", "oci": "ocifs", "smb": "smbprotocol", "webhdfs": "requests"},
    **{"github": "requests", "gdrive": "gdrive_fsspec", "webdav": "webdav4", "hdfs": "pyarrow", "box": "boxfs"},
}
"""What must be installed for each kind of storage, as pip takes it."""

_PLAIN = ("memory", "ftp", *_PACKAGES)
_CHAINS = ("zip",)
_NEVER = (
    *("reference", "cached", "blockcache", "filecache", "simplecache", "generic", "dir", "dask", "git", "jupyter"),
    *("jlab", "async_wrapper", "asyncwrapper", "asynclocal", "pyscript", "libarchive", "tar", "data", "dvc"),
)
"""What reads files of its own making that may name others or run code, starts programs, or keeps copies."""

_ACCESS = {
    **dict.fromkeys(
        ("s3", "s3a"),
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or FSSPEC_S3_ANON=true for a public bucket",
    ),
    **dict.fromkeys(("gs", "gcs"), "set GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GS_TOKEN=anon for a public bucket"),
    **dict.fromkeys(("http", "https"), "give an address with a signature, or with a name and password"),
    "hf": "set HF_TOKEN",
}

_NOBODY = (
    *("FSTimeoutError", "TimeoutError", "gaierror", "ConnectionError", "ConnectTimeoutError", "ReadTimeoutError"),
    *("EndpointConnectionError", "ConnectionClosedError", "HTTPClientError", "ClientConnectionError", "SSLError"),
    *("ServerDisconnectedError", "ClientConnectorError", "ClientConnectorDNSError", "ClientPayloadError"),
    *("ConnectTimeout", "ReadTimeout", "MaxRetryError", "ServiceRequestError", "RetryError"),
)
"""Errors of the libraries of storages when nothing answers, by name: the libraries need not be there."""

_LOCKED_OUT = (
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"),
    *(
        "DefaultCredentialsError",
        "RefreshError",
        "ProfileNotFound",
        "AuthenticationException",
        "LocalTokenNotFoundError",
    ),
)


@dataclass(frozen=True)
class Connection:
    """A filesystem of fsspec, and what is waited for where it serves one thread at a time."""

    filesystem: Any
    alone: AbstractContextManager[Any]

    def ask(self, what: str, *args: Any, more: float = 0.0, **options: Any) -> Any:
        """Call a method of the filesystem, which ends within a minute where the filesystem can be interrupted.

        `more` are seconds that a large upload may take besides.
        """
        if getattr(self.filesystem, "async_impl", False):
            options["timeout"] = _CALL + more
        with self.alone:
            return getattr(self.filesystem, what)(*args, **options)


def connect(address: str) -> tuple[Connection, str]:
    """Return the connection to a storage, and what a file is called there.

    Raises DataError for a storage that is unknown, not allowed or not installed, StorageError where none can stand.
    """
    check(address)
    link, chain, rest = addresses.parts(address)
    scheme = addresses.scheme_of(address)
    host = link.partition("://")[2].partition("/")[0]
    user = addresses.user_of(link)
    # After a fork nothing of a connection may be used again.
    root = f"{scheme}://::{rest}" if chain else f"{scheme}://{host}"
    with in_words(address):
        connection = _connected(os.getpid(), root, user)
    filesystem = connection.filesystem
    return connection, filesystem._strip_protocol(addresses.private(link) if scheme in ("http", "https") else link)


def check(address: str) -> None:
    """Refuse what is no storage, or one that would do more than give files; nobody is asked. Raises DataError."""
    link, chain, rest = addresses.parts(address)
    scheme = addresses.scheme_of(address)
    if scheme in _NEVER:
        instead = addresses.shown(rest) if chain else "the file or folder itself"
        more = f", as in {rest}#cat.jpg" if scheme == "tar" and chain else ""
        raise DataError(f"{address} is refused: {scheme} does more than read files; name {instead}{more}")
    if chain and (scheme not in _CHAINS or addresses.parts(rest)[1] or re.search(r"::\w+://", link)):
        raise DataError(f"{address} is refused: the only chain is zip://cats/0.jpg::s3://bucket/pets.zip")
    if scheme in _CHAINS and not chain:
        raise DataError(f"{address} does not say in which file: zip://cats/0.jpg::s3://bucket/pets.zip")
    if chain and addresses.is_remote(rest):
        check(rest)
    nowhere = link.partition("://")[2][:1] in ("", "/")
    if nowhere and scheme in addresses.BUCKETS:
        raise DataError(f"{address} names no bucket: {scheme}://BUCKET/FOLDER")
    if nowhere and scheme in ("http", "https", "ftp", "sftp", "ssh"):
        raise DataError(f"{address} names no host: {scheme}://HOST/FOLDER/")
    if scheme in (*_PLAIN, *_CHAINS):
        return
    from fsspec import available_protocols

    if scheme not in available_protocols():
        close = nearest(scheme, sorted({*_PLAIN, *_CHAINS}))
        raise DataError(f"there is no storage {scheme}:// in {address}; nearest: {close}")


@lru_cache(maxsize=64)
def _connected(process: int, root: str, user: str) -> Connection:
    try:
        from fsspec import get_filesystem_class
    except ImportError:
        raise DataError(f"{root} needs fsspec: pip install 'convscope[cloud]'") from None
    scheme, options = addresses.scheme_of(root), _options(addresses.scheme_of(root)) | {"skip_instance_cache": True}
    if scheme in _CHAINS:
        return Connection(_archive(addresses.parts(root)[2]), threading.RLock())
    s3 = scheme in ("s3", "s3a")
    if s3 and user:
        options["key"], _, options["secret"] = user.partition(":")
    kind: Any = get_filesystem_class(scheme)
    filesystem = kind(**kind._get_kwargs_from_urls(root if s3 else addresses.private(root)) | options)
    if s3:
        filesystem.retries = _TRIES
    one_by_one = not getattr(filesystem, "async_impl", False) and scheme not in ("memory", "hf")
    return Connection(filesystem, threading.RLock() if one_by_one else nullcontext())


def _archive(file: str) -> Any:
    """Open a .zip file of this machine or of a storage, of which only the parts are fetched that are read."""
    from fsspec.implementations.zip import ZipFileSystem

    from .storage import at  # which reads through connections

    opened: Any = at(file).open("rb")
    return ZipFileSystem(fo=opened, skip_instance_cache=True)


def _options(scheme: str) -> dict[str, Any]:
    """Return how long is waited, and that no list of names is kept; s3fs tries again by itself."""
    if scheme in ("s3", "s3a"):
        config = {"connect_timeout": _CONNECT, "read_timeout": _READ, "retries": {"max_attempts": 0}}
        return {"use_listings_cache": False, "config_kwargs": config}
    if scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=_CALL, sock_connect=_CONNECT, sock_read=_READ)
        return {"client_kwargs": {"timeout": timeout, "response_class": _bounded()}}
    if scheme in ("sftp", "ssh", "ftp"):
        return {"timeout": int(_READ)}
    return {"use_listings_cache": False} if scheme in addresses.BUCKETS else {}


@lru_cache(maxsize=1)
def _bounded() -> Any:
    """Return aiohttp's class of answers, one that takes no more into memory than a file may have."""
    from aiohttp import ClientResponse

    class Bounded(ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                parts, size, most = list[bytes](), 0, most_bytes()
                async for part in self.content.iter_any():
                    parts.append(part)
                    size += len(part)
                    if size > most:
                        self.close()
                        raise PictureError(f"{addresses.public(self.url)} gives more than {most / 1e6:,.0f} MB")
                self._body = b"".join(parts)
            return self._body

    return Bounded


# What went wrong ------------------------------------------------------------------------------------------------------


@contextmanager
def in_words(address: str) -> Generator[None]:
    """Say what went wrong with an address: nobody there, no access, nothing there.

    Raises StorageError where nobody answers or knows the user, DataError for a missing package, PictureError else.
    """
    try:
        yield
    except (DataError, PictureError):
        raise
    except Exception as error:
        raise _translated(error, address) from None


def _translated(error: Exception, address: str) -> Exception:
    scheme = addresses.scheme_of(addresses.parts(address)[2] or address)
    if isinstance(error, ImportError):
        package = _PACKAGES.get(scheme, "the package that fsspec names for it")
        return DataError(f"{address} needs another package: pip install {package}")
    causes = list(_causes(error))
    if any(isinstance(each, (DataError, PictureError)) for each in causes):
        return next(each for each in causes if isinstance(each, (DataError, PictureError)))
    names = {name for each in causes for name in _names(each)}
    status = next((status for each in causes if (status := _status(each))), 0)
    access = _ACCESS.get(scheme, "give its credentials as its package takes them")
    if names & set(_LOCKED_OUT) or _said(causes, "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
        return StorageError(f"{address} cannot be read: no credentials that are valid here; {access}")
    if status in (401, 403, 407) or any(isinstance(each, PermissionError) for each in causes):
        return PictureError(f"no access to {address} (or there is nothing): {access}")
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and not status and not names & set(_NOBODY)):
        bucket = _said(causes, "bucket does not exist", "NoSuchBucket")
        what = f"no bucket {address.partition('://')[2].partition('/')[0]}" if bucket else "nothing"
        return (DataError if bucket else PictureError)(f"there is {what} at {address}: check its letters")
    host = addresses.parts(address)[2] or address
    if names & set(_NOBODY) or status == 429 or status >= 500 or _said(causes, "SlowDown"):
        what = f"the server says {status} to" if status else "nobody answers at"
        return StorageError(f"{what} {host}: check the address and your connection, then try again")
    reason = addresses.shown(" ".join(str(error).split()))[:300] or type(error).__name__
    return PictureError(f"{address} cannot be read: {reason}")


def _causes(error: BaseException | None) -> Generator[BaseException]:
    seen = 0
    while error is not None and seen < 10:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def _names(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _status(error: BaseException) -> int:
    """Return the status of HTTP that an error holds, as aiohttp, requests and botocore keep it; else 0."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    found = getattr(error, "status", None) or getattr(error, "code", None) or getattr(response, "status_code", None)
    return found if isinstance(found, int) else 0


def _said(causes: list[BaseException], *words: str) -> bool:
    return any(word in str(each) for each in causes for word in words)
