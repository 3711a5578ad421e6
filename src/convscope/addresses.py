"""Addresses as texts: which lie in a storage, how they are put together, and what of them nobody else may see.

An address in a storage is written as fsspec has it: "s3://bucket/cats/0.jpg", "https://host/cats/0.jpg",
"zip://cats/0.jpg::s3://bucket/pets.zip". A password or a signature in it is taken off where it comes in and kept in
this process's memory, so that no message, recipe, table or file name can hold it.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from itertools import takewhile
from pathlib import PurePath, PurePosixPath
from urllib.parse import unquote

_WRAPPER = re.compile(r"(zip|tar|libarchive|reference|dir|generic|cached|[a-z]+cache)(://|(?=::))", re.IGNORECASE)
"""How a chain begins; elsewhere :: are letters, of a key, or of an address such as http://[::1]."""

_REMOTE = re.compile(rf"[A-Za-z][A-Za-z0-9+.\-]+://|{_WRAPPER.pattern}", re.IGNORECASE)
_LINK = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.\-]+://)")
_COLLAPSED = re.compile(r"(s3a?|gc?s|hf|az|abfss?|https?|s?ftp|memory|zip):/(?=[^/])")
"""What is left of an address that went through `Path`, which takes two slashes for one."""

BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss", "oci")
"""Storages whose addresses begin with the name of a bucket, or of something like one."""

_WEB = ("http", "https")
_KEYS = re.compile(r"(?!arn:)([^/@:]+:[^@]+)@")
"""Keys before a bucket; the secret one may hold a slash."""

_USER = re.compile(r"([^/@]*:[^/]*)@")
_WEB_USER = re.compile(r"([^/]+)@")
_NO_USERS = ("github", "zip", "tar")
"""What is before an @ is no secret there."""

_SECRET = re.compile(
    r"x-(amz|goog|oss|obs|cos|ms|tos)-|sig$|signature|token|secret|passw|pwd|credential|api.?key|auth|hmac|jwt|policy|"
    r"key-pair-id|accesskey|accessid",
    re.IGNORECASE,
)
_BESIDE_SECRETS = re.compile(r"expires|s[vertp]|spr|sip|sdd|sk\w+|key|response-.*", re.IGNORECASE)
"""Parameters that belong to a signature."""

_RANDOM = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)\S{20,}")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://[^\s'\"<>]+")

_users: dict[tuple[str, str], str] = {}
_queries: dict[str, str] = {}


def is_remote(text: str) -> bool:
    """Whether an address lies in a storage, and not among this machine's files."""
    return _REMOTE.match(text) is not None


def public(source: object) -> str:
    """Return an address as it is kept and shown: without what is secret, which `private` knows from now on.

    "file://" is a path, and an address that went through `Path` gets its second slash back.
    """
    text = str(source)
    if (collapsed := _COLLAPSED.match(text)) and not os.path.lexists(text):
        text = f"{collapsed[1]}://{text[collapsed.end() :]}".replace("::s3:/", "::s3://").replace(":///", "://")
    if not is_remote(text):
        return text
    if text.lower().startswith(("file://", "local://")):
        return _path(text.partition("://")[2])
    link, chain, rest = parts(text)
    return _public_link(link) + chain + (public(rest) if chain else "")


def private(address: str) -> str:
    """Return an address with what was taken off it, for the storage alone."""
    link, chain, rest = parts(address)
    return _private_link(link) + chain + (private(rest) if chain else "")


def parts(address: str) -> tuple[str, str, str]:
    """Return the first link of an address, "::" where there is a chain, and the rest of it."""
    wrapper = _WRAPPER.match(address)
    if wrapper is None:
        return address, "", ""
    links = [found.start() for found in _LINK.finditer(address, wrapper.end())]
    at = links[-1] if links else address.find("::", wrapper.end())
    return (address, "", "") if at < 0 else (address[:at], "::", address[at + 2 :])


def shown(text: str) -> str:
    """Return a message of another library without the secrets of addresses in it."""
    return _WORD.sub(lambda found: public(found[0]), text)


def _path(rest: str) -> str:
    path = f"./{rest}" if is_remote(rest) else rest.removeprefix("localhost")
    path = path[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", path) else path
    return path if os.path.lexists(path) else unquote(path)


def _public_link(link: str) -> str:
    scheme, mark, rest = link.partition("://")
    scheme = scheme.lower()
    if not mark:
        return f"{scheme}://"  # "zip::s3://bucket/pets.zip"
    user = ""
    while found := _user(scheme, rest):
        user = user or found
        rest = rest[len(found) + 1 :]
    if user:
        _users[scheme, _host(rest)] = user
    before, mark, inside = rest.partition("#")
    if scheme in _WEB and "?" in before:
        place, _, query = before.partition("?")
        kept = _public_query(query)
        rest = place + (f"?{kept}" if kept else "")
        if kept != query:
            _queries[f"{scheme}://{rest}"] = query
        rest += mark + inside
    return f"{scheme}://{rest}"


def _private_link(link: str) -> str:
    scheme, mark, rest = link.partition("://")
    if not mark:
        return link
    query = _queries.get(link)
    rest = rest if query is None else f"{rest.partition('?')[0]}?{query}"
    user = user_of(link)
    return f"{scheme}://{user}@{rest}" if user else f"{scheme}://{rest}"


def user_of(link: str) -> str:
    """Return the name and password, or the two keys, that were given with an address of this host or bucket."""
    scheme, _, rest = link.partition("://")
    return _users.get((scheme, _host(rest)), "")


def _user(scheme: str, rest: str) -> str:
    low = scheme.lower()
    if low in _NO_USERS:
        return ""
    pattern = _WEB_USER if low in _WEB else _KEYS if low in ("s3", "s3a") else _USER
    found = pattern.match(rest)
    return found[1] if found else ""


def _host(rest: str) -> str:
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _public_query(query: str) -> str:
    pairs = [part.partition("=") for part in query.split("&")]
    signed = any(_SECRET.search(name) for name, _, _ in pairs)
    kept: list[str] = []
    for name, mark, value in pairs:
        if _SECRET.search(name) or (signed and _BESIDE_SECRETS.fullmatch(name)):
            continue
        if _RANDOM.fullmatch(value):  # it may be a key, and it may say which picture
            value = f"~{sha256(value.encode()).hexdigest()[:8]}"  # noqa: PLW2901
        kept.append(name + mark + value)
    return "&".join(kept)


def scheme_of(address: str) -> str:
    """Return what an address begins with, in small letters: "s3", "https", "zip"."""
    return re.split(r"::|://", address, maxsplit=1)[0].lower()


def path_of(address: str) -> PurePosixPath:
    """Return the path inside a storage, of which name and ending are asked."""
    link = parts(address)[0]
    rest = link.partition("://")[2]
    if scheme_of(link) in _WEB:
        rest = unquote(re.split(r"[?#]", rest, maxsplit=1)[0])
    return PurePosixPath(rest)


def put_behind(place: str, name: str) -> str:
    """Return the address of a name behind a place, which ends with its slash or mark."""
    link, chain, rest = parts(place)
    return link + name + chain + rest


def is_bucket(address: str) -> bool:
    """Whether an address is that of a whole bucket."""
    return scheme_of(address) in BUCKETS and len(path_of(address).parts) == 1


def join(folder: str, name: str) -> str:
    """Return the address of what has a name below a folder."""
    link, chain, rest = parts(folder)
    return f"{link.rstrip('/')}/{name}{chain}{rest}" if not link.endswith("://") else f"{link}{name}{chain}{rest}"


def is_pattern(address: str) -> bool:
    """Whether an address is a pattern; ? and [ ] are letters of an address of the web, before the path."""
    link = parts(address)[0]
    path = link.partition("://")[2].partition("/")[2]
    if scheme_of(link) in _WEB:
        path = path.partition("?")[0]
    return re.search(r"[*?\[{]", path) is not None


def common_folder(texts: list[str]) -> str:
    """Return the folder that all addresses have in common, with a slash at its end, or nothing."""
    if any(parts(text)[1] for text in texts):
        return ""
    parents = [text.split("/")[:-1] for text in dict.fromkeys(texts)]
    same = takewhile(lambda each: len(set(each)) == 1, zip(*parents, strict=False))
    common = [part for part, *_ in same]
    return "/".join([*common, ""]) if len(common) > 2 else ""


def readable(folder: str, name: str) -> str:
    """Return a name below a folder as a person writes it: addresses of the web have %20 for a space."""
    return unquote(name) if scheme_of(folder) in _WEB else name


def name_below(folder: str, where: str) -> str:
    """Return what is left of an address below a folder; all of it where it lies elsewhere."""
    link, chain, rest = parts(folder) if is_remote(folder) else (folder, "", "")
    return where.removeprefix(link).removesuffix(chain + rest)


def stem(where: str) -> str:
    """Return the last part of an address or a path without its ending, after which a file can be named."""
    return path_of(where).stem if is_remote(where) else PurePath(where).stem


def as_path(where: str) -> str:
    """Return an address in the order of a path: the file that holds others first, "pets.zip#cats/0.jpg"."""
    link, chain, rest = parts(where)
    return f"{rest}#{link.partition('://')[2]}" if chain else where


def absolute(where: str | PurePath) -> str:
    """Return an address that is the same from every folder."""
    return str(where) if is_remote(str(where)) else os.path.abspath(where)  # noqa: PTH100
