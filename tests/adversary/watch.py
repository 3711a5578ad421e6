"""What may not happen while a case runs, and who notices it.

Python's audit events tell of code that is run, processes that are started, connections, and files that are opened for
writing; afterwards the process is compared with what it was: threads, open files, files in its folder, what it said.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import convscope

_SOURCE = str(Path(convscope.__file__).parent)
_LIBRARIES = (str(Path(module.__file__ or "").parent) for module in (torch, os))
_TRUSTED = (_SOURCE, sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), *_LIBRARIES)
"""Where code may come from: the package, Python and what is installed."""

_STARTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.startfile", "pty.spawn")
_CONNECTS = ("socket.connect", "socket.bind", "urllib.Request")
_REMOVES = ("os.remove", "os.rmdir", "shutil.rmtree", "os.rename", "os.truncate", "os.chmod", "os.link", "os.symlink")
_FREE = ("/dev/null", "/dev/tty", "/proc/self/")


@dataclass
class Watch:
    """Notes what happens while it is on. `folder` is the only place that may be written to."""

    folder: str
    on: bool = False
    noted: list[str] = field(default_factory=list)

    def install(self) -> None:
        """Begin to listen, for the rest of the process."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in ("exec", "import", "open") or event in _STARTS or event in _CONNECTS or event in _REMOVES:
            self.on = False  # what is done here is not the case's
            try:
                self._judge(event, args)
            finally:
                self.on = True

    def _judge(self, event: str, args: tuple[Any, ...]) -> None:
        match event:
            case "exec":
                file = args[0].co_filename
                if not file.startswith(("<frozen", *_TRUSTED)) and not _made_by_trusted(file):
                    self.note("code", f"runs code of {file} ({args[0].co_name}) by {_caller()}")
            case "open":
                path, _, flags = args
                writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                if writes and isinstance(path, (str, bytes)) and not self._inside(path):
                    self.note("wrote", f"opens {os.fsdecode(path)} for writing")
            case "subprocess.Popen":
                if not str(args[0]).rpartition("/")[2].startswith(("ffmpeg", "fc-list")):
                    self.note("code", f"starts {args[0]}")
            case _ if event in _STARTS:
                self.note("code", f"{event} {args[:1]}")
            case _ if event in _CONNECTS:
                if isinstance(args[-1], tuple):  # not to a process of this machine by a file
                    self.note("code", f"{event} {args[1:]}")
            case _ if event in _REMOVES:
                if isinstance(args[0], (str, bytes)) and not self._inside(args[0]):
                    self.note("wrote", f"{event} {os.fsdecode(args[0])}")

    def _inside(self, path: str | bytes) -> bool:
        whole = os.path.realpath(os.fsdecode(path))
        return whole.startswith((self.folder, *_FREE))

    def note(self, kind: str, what: str) -> None:
        """Note what may not be, with the line of the package that it comes from."""
        self.noted.append(f"{kind}: {what}{origin(traceback.extract_stack())}")

    @contextlib.contextmanager
    def watching(self, *, ends: bool = False) -> Generator[None]:
        """Watch the block, and compare the process after it with what it was, unless it `ends` then."""
        self.noted.clear()
        threads, files = threading.active_count(), _open_files()
        self.on = True
        try:
            yield
        finally:
            self.on = False
            for _ in range(40):  # libraries end threads and close files in their own time
                more = sorted(_open_files() - files)
                if ends or (not more and threading.active_count() <= threads):
                    break
                gc.collect()
                time.sleep(0.05)
            else:
                names = [thread.name for thread in threading.enumerate()[threads:]]
                self.noted.append(f"left: threads {names}, open files {more[:3]}")


def _made_by_trusted(file: str) -> bool:
    """Whether code without a file was written by Python itself (named tuples, data classes, annotations as text), or
    while an installed module is imported.
    """
    makers = (
        "dataclasses.py",
        "collections/__init__.py",
        "inspect.py",
        "typing.py",
        "functools.py",
        "typing_objects.py",
        "fontTools/ttLib/tables/otBase.py",  # conditions of its own tables, never of a font's file
    )
    files = [frame.filename for frame in traceback.extract_stack() if frame.filename != __file__]
    ours = max((at for at, name in enumerate(files) if name.startswith(_SOURCE)), default=0)
    imports = any(name.startswith("<frozen importlib") for name in files[ours:])
    return file.startswith("<") and files[-1].startswith(_TRUSTED) and (imports or files[-1].endswith(makers))


def _caller() -> str:
    return [frame.filename for frame in traceback.extract_stack() if frame.filename != __file__][-1]


def _open_files() -> set[str]:
    found = set[str]()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(link.readlink())
            if not target.startswith(("/proc/", "/dev/", "anon_inode", "pipe:")):
                found.add(f"{link.name}:{target}")
    return found


def origin(frames: traceback.StackSummary | BaseException) -> str:
    """Return ", in data/boxes.py:57" for the innermost line of the package, of a stack or of an error."""
    if isinstance(frames, BaseException):
        frames = traceback.extract_tb(frames.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_SOURCE)]
    return f", in {ours[-1].filename[len(_SOURCE) + 1 :]}:{ours[-1].lineno}" if ours else ""


def memory(line: str) -> int:
    """Return what this process has now (VmRSS), or the most it has had since it was last marked (VmHWM), in MiB."""
    with Path("/proc/self/status").open(encoding="ascii") as file:
        return next(int(found.split()[1]) for found in file if found.startswith(line)) >> 10


def mark_memory() -> int:
    """Count the most memory from now on, and return what there is now."""
    with contextlib.suppress(OSError), Path("/proc/self/clear_refs").open("w", encoding="ascii") as file:
        file.write("5")
    return memory("VmRSS")
