"""Who writes where: processes that can be told apart from any other, and folders that one of them has to itself."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

from .errors import OutputError

_TEMPORARY = re.compile(
    r"\.convscope-(?P<machine>[0-9a-f]{8})-(?P<pid>\d{1,10})-(?P<began>x|[0-9a-f]{8}\.\d+)-[0-9a-f]{8}(\.\w{1,12})?"
)


@dataclass(frozen=True)
class Process:
    """A process: its machine, its number there, and when it began, because numbers are given again."""

    machine: str
    pid: int
    began: str

    @property
    def is_gone(self) -> bool:
        """Whether it has surely ended: of another machine's that cannot be known."""
        return self.machine == _machine() and _has_ended(self.pid, self.began)

    @property
    def mark(self) -> str:
        """The process in a file's name."""
        return f"{zlib.crc32(self.machine.encode()):08x}-{self.pid}-{self.began or 'x'}"


def this_process() -> Process:
    """Return the process that runs, which after a fork is another."""
    try:
        return Process(_machine(), os.getpid(), _began(os.getpid()))
    except OSError:
        return Process(_machine(), os.getpid(), "")


def temporary_name(process: Process, suffix: str = "") -> str:
    """Return a name for a temporary file that says whose it is."""
    return f".convscope-{process.mark}-{uuid4().hex[:8]}{suffix}"


def is_left_over(name: str) -> bool:
    """Whether a file of this name is the temporary file of a process of this machine that has ended."""
    found = _TEMPORARY.fullmatch(name)
    if found is None or found["machine"] != f"{zlib.crc32(_machine().encode()):08x}":
        return False
    return _has_ended(int(found["pid"]), found["began"].replace("x", ""))


@cache
def _machine() -> str:
    """Return the machine's name, with the container inside it: two containers number their processes by themselves."""
    try:
        return f"{platform.node()}, {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _began(pid: int) -> str:
    """Return when a process of this machine began. Raises OSError where the system does not say."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    # The name in brackets may hold anything; the state is the first field after it, the start the twentieth.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return f"{boot}.{fields[19]}" if fields[0] not in "ZX" else "ended"


def _has_ended(pid: int, began: str) -> bool:
    """Whether the process of this machine that began then, which may be unknown (""), has surely ended."""
    if began:
        with suppress(OSError):
            return _began(pid) != began
    if os.name == "nt":  # where a signal of 0 would end the process
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        pass
    return False


@contextmanager
def lock(path: Path, what: str) -> Generator[None]:
    """Have to oneself, inside the block, what the file `path` stands for; `what` it is, for messages.

    The file names the process that has it. One that was killed leaves it behind, and the next takes it over. Raises
    OutputError when a living process has it, one of another machine, or when the file cannot be written.
    """
    own = this_process()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _take(path, own, what)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        yield
    finally:
        with suppress(OSError):
            if _owner(path) == own:
                path.unlink()


def _take(path: Path, own: Process, what: str) -> None:
    while not _create(path, own):
        owner = _owner(path)
        if owner is None and not path.exists():  # it was given back meanwhile
            continue
        if owner is not None and owner.is_gone:
            _remove(path, owner)
            continue
        raise OutputError(refusal(path, owner, what))


def refusal(path: object, owner: Process | None, what: str) -> str:
    """Say that another process has a lock, and what can be done."""
    if owner is None:
        return f"{what} is in use, says {path}, but not by whom: if no other run writes there, remove that file"
    if owner.machine == _machine():
        return f"{what} is in use by process {owner.pid}: wait for it to end, or choose another place with -o"
    return (
        f"{what} is in use by process {owner.pid} on another machine or in another container ({owner.machine}): choose "
        f"another place with -o; if that process has ended, remove {path}"
    )


def _create(path: Path, own: Process) -> bool:
    """Make the lock's file, with its content in one step; return whether it is ours."""
    whole = path.with_name(temporary_name(own))
    try:
        with whole.open("x", encoding="utf-8") as file:
            json.dump(asdict(own), file)
            file.flush()
        try:
            os.link(whole, path)  # whole and exclusive also on NFS, which O_EXCL was not always
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            return _create_exclusively(path, whole.read_bytes())  # a file system without links
        return True
    finally:
        whole.unlink(missing_ok=True)


def _create_exclusively(path: Path, content: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _owner(path: Path) -> Process | None:
    """Return who has the lock, or None where the file is not there or does not say."""
    try:
        return owner_in(path.read_bytes()[:10_000] if path.is_file() else b"")
    except OSError:
        return None


def owner_in(lock: bytes) -> Process | None:
    """Return the process that a lock's file names, None where it names none."""
    try:
        content = json.loads(lock)
    except (ValueError, RecursionError):
        return None
    match content:
        case {"machine": str(machine), "pid": int(pid), "began": str(began)} if pid > 0:
            return Process(machine, pid, began)
        case _:
            return None


def _remove(path: Path, gone: Process) -> None:
    """Remove the lock of a process that has ended, and of no other: another run may have taken it over meanwhile.

    Who removes holds the system's own lock on the file, which the system takes away from a killed process.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError), path.open("rb") as file:
        with suppress(OSError):  # not every network file system has them
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()) and _owner(path) == gone:
            path.unlink()
