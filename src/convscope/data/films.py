"""Films: animated pictures and videos as the frames that they are made of, "film.gif[0]" to "film.gif[9]".

Animated GIF, WebP and PNG are read by Pillow, videos by ffmpeg (the extra `video`).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

from PIL import Image

from .. import addresses
from ..errors import PictureError
from . import image_files, storage
from .limits import check_pixels

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
_ANIMATED = frozenset({".apng", ".gif", ".png", ".webp"})
_PART = re.compile(r"(.+)\[(-?\d*)(:)?(-?\d*)(?::(-?\d*))?\]")

_CHUNK = 16
"""Frames of a video that are decoded together, where they are not large."""

_TOGETHER = 1 << 26
"""Pixels that are decoded together."""

_CONTAINERS = {
    "mov": re.compile(rb".{4}(ftyp|moov|mdat|free|skip|wide|pnot)", re.DOTALL),
    "matroska": re.compile(rb"\x1a\x45\xdf\xa3"),
    "avi": re.compile(rb"RIFF.{4}AVI ", re.DOTALL),
    "mpeg": re.compile(rb"\0\0\x01\xba"),
    "mpegvideo": re.compile(rb"\0\0\x01\xb3"),
    "mpegts": re.compile(rb"\x47.{187}\x47", re.DOTALL),
}
"""How films begin, by ffmpeg's names of their formats."""

_PLAYLIST = re.compile(rb"[^\0]*?<(MPD|CompositionPlaylist|AssetMap)", re.IGNORECASE)
"""What ffmpeg takes for a list of other files, whatever comes before it."""

_PROBED = 1 << 20
"""Bytes of a file that ffmpeg looks at, to find its format."""

_decoding = RLock()


def is_video(path: Path | storage.Remote) -> bool:
    """Whether a file's ending is that of a video."""
    return path.suffix.lower() in VIDEOS


def frames_of(address: str) -> list[str] | None:
    """Return the addresses of a film's frames: of all, or of a part "film.gif[i:j]"; None for what is no film.

    Raises PictureError for a part that is empty or of a file that is no film.
    """
    if addresses.is_remote(address):
        return _remote_frames(address)
    part = None if os.path.exists(address) else _PART.fullmatch(address)  # noqa: PTH110
    if part is not None and part[3] is None:
        return None  # one frame
    path = Path(address if part is None else part[1])
    if not os.path.isfile(path) or (path.suffix.lower() not in _ANIMATED and not is_video(path)):  # noqa: PTH113  too long a name
        return None
    return _frames_in(address, str(path), part, frame_count(path))


def _remote_frames(address: str) -> list[str] | None:
    """Do what `frames_of` does in a storage: a .png or .webp is no film unless a part is named, and is not fetched."""
    part = _PART.fullmatch(address)
    if part is not None and part[3] is None:
        return None
    path = storage.Remote(address if part is None else part[1])
    endings = _ANIMATED if part else _ANIMATED - {".png", ".webp"}
    if path.suffix.lower() not in endings and not is_video(path):
        return None
    try:
        copy = storage.local(path)
    except PictureError:
        if part is None:
            return None  # whoever opens it says what is wrong
        raise
    with storage.called(copy, str(path)):
        return _frames_in(address, str(path), part, frame_count(copy))


def _frames_in(address: str, path: str, part: re.Match[str] | None, count: int) -> list[str] | None:
    if part is None:
        return [f"{path}[{number}]" for number in range(count)] if count > 1 else None
    start, stop, step = (int(end) if end else None for end in (part[2], part[4], part[5]))
    if step == 0:
        raise PictureError(f"{address} counts in steps of 0")
    numbers = range(count)[start:stop:step]
    if not numbers:
        raise PictureError(f"{address} holds no frame: {path} has {count}, numbered from 0")
    return [f"{path}[{number}]" for number in numbers]


def film_of(address: str) -> Path | None:
    """Return the file of which an address is a frame, a copy where it lies in a storage; None for any other address."""
    match = re.fullmatch(r"(.+)\[\d+\]", address)
    if match and addresses.is_remote(address):
        return storage.local(storage.Remote(match[1]))
    return Path(match[1]) if match and not os.path.exists(address) else None  # noqa: PTH110


def frame_count(path: Path) -> int:
    """Return how many frames a file has, 1 for a still or broken picture. Raises PictureError for a broken video."""
    if is_video(path):
        return _video(path, path.stat().st_mtime_ns)[0]
    try:
        with image_files.open_image(path, str(path)) as image:
            return image_files.count_frames(image, path, str(path))
    except Exception:  # whoever opens the picture says what is wrong with it
        return 1


def frame_rate(path: Path) -> float:
    """Return how many frames a film shows in a second, 12 where it does not say."""
    if is_video(path):
        return _video(path, path.stat().st_mtime_ns)[1]
    with image_files.open_image(path, str(path)) as image:
        count = image_files.count_frames(image, path, str(path))
        image_files.check_memory(image, count, str(path))
        image.seek(min(1, count - 1))  # a first frame may be held longer
        image.load()  # WebP knows only then
        duration = float(image.info.get("duration") or 0)
    return 1000 / duration if duration > 0 else 12.0


def video_frame(path: Path, frame: int | None) -> Image.Image:
    """Return one frame of a video in RGB. Raises PictureError where there is none, or ffmpeg cannot read it."""
    count, rate, chunk = _video(path, path.stat().st_mtime_ns)
    if frame is None:
        raise PictureError(f"{path} is a video of {count} frames: name one, as in '{path}[0]'")
    if frame >= count:
        raise PictureError(f"{path} has {count} frames, numbered from 0: there is no frame {frame}")
    with _decoding:
        frames = _frames(path, path.stat().st_mtime_ns, frame // chunk * chunk, chunk, rate)
    if frame % chunk >= len(frames):
        raise PictureError(f"{path} is damaged or cut short: frame {frame} cannot be decoded")
    return frames[frame % chunk]


def _ffmpeg(path: Path) -> Any:
    if find_spec("imageio_ffmpeg") is None:
        raise PictureError(
            f"{path} is a video, and reading its frames needs ffmpeg: pip install 'convscope[video]'; an animated .gif "
            "or .webp needs nothing more"
        )
    return import_module("imageio_ffmpeg")


@lru_cache(maxsize=16)
def _video(path: Path, changed: int) -> tuple[int, float, int]:
    """Return the number of a video's frames, how many there are in a second, and how many are decoded together."""
    ffmpeg = _ffmpeg(path)
    try:
        _container(path)
        count, seconds = ffmpeg.count_frames_and_secs(_plain(path))
    except (RuntimeError, OSError, subprocess.SubprocessError, ValueError) as error:
        raise PictureError(f"{path} is no video that ffmpeg can read, damaged or cut short: {_reason(error)}") from None
    if not count:
        raise PictureError(f"{path} is a video without a frame")
    first = next(_decoded(path, [], ["-frames:v", "1"]), None)
    if first is None:
        raise PictureError(f"{path} is damaged or cut short: no frame can be decoded")
    together = max(1, min(_CHUNK, _TOGETHER // (first.width * first.height)))
    return count, count / seconds if seconds else 12.0, together


@lru_cache(maxsize=2)
def _frames(path: Path, changed: int, first: int, count: int, rate: float) -> list[Image.Image]:
    """Decode frames of a video from one on."""
    # A quarter of a frame before the first, so that rounding does not leave it out.
    seek = ["-ss", f"{(first - 0.25) / rate:.6f}"] if first else []
    return list(_decoded(path, [*seek], ["-frames:v", str(count)]))


def _decoded(path: Path, before: list[str], after: list[str]) -> Iterator[Image.Image]:
    try:
        before = [*before, "-f", _container(path), "-protocol_whitelist", "file"]
        reader = _ffmpeg(path).read_frames(_plain(path), input_params=before, output_params=after)
        size = next(reader)["size"]
        check_pixels(size[0], size[1], str(path))
        for frame in reader:
            yield Image.frombytes("RGB", size, frame)
    except (RuntimeError, OSError, StopIteration, ValueError) as error:
        raise PictureError(f"{path} is no video that ffmpeg can read, damaged or cut short: {_reason(error)}") from None


def _container(path: Path) -> str:
    """Return a film's format, as ffmpeg names it.

    Raises PictureError for anything else: ffmpeg goes by the content, and takes texts named film.mp4 for lists of other
    files and addresses, which it opens.
    """
    with path.open("rb") as file:
        head = file.read(_PROBED)
    found = next((name for name, begins in _CONTAINERS.items() if begins.match(head)), None)
    if found is None or _PLAYLIST.match(head):
        raise PictureError(
            f"{path} is not a video: it does not begin as MP4, QuickTime, Matroska, WebM, AVI or MPEG files do"
        )
    return found


def _plain(path: Path) -> str:
    """Return a path that ffmpeg does not take for an address, as it does with "concat:a.mp4|b.mp4"."""
    return str(path.absolute())


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][-200:]
