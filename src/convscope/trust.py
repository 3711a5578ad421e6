"""Which configurations a user lets run code: each by its path, its content and the content of the files that it runs.

What was agreed to once is kept in `trusted.json` in the user's own folder for configurations. On machines that nobody
sits at, the environment variable CONVSCOPE_TRUST lists configurations, or their folders, that are trusted as they are.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from . import outputs
from .code_files import files_run_by
from .errors import ConfigurationError, OutputError
from .locks import lock
from .parsing import Document

VARIABLE = "CONVSCOPE_TRUST"


@dataclass(frozen=True)
class Grant:
    """What was agreed to: the content of a configuration, the code it names, and the content of all files this runs.

    A file that was not there has no content: None.
    """

    sha256: str
    code: list[str]
    files: dict[str, str | None]


def folder() -> Path:
    """Return the folder of the user's own settings, which need not exist yet. Raises ConfigurationError."""
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # A relative path would be one of the working directory, which is what is not trusted.
    if given.is_absolute():
        return given / "convscope"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming")) / "convscope"
    usual = ("Library", "Application Support") if sys.platform == "darwin" else (".config",)
    try:
        return Path.home().joinpath(*usual, "convscope")
    except RuntimeError:
        raise ConfigurationError("there is no home folder to keep trust in: set HOME or XDG_CONFIG_HOME") from None


def store() -> Path:
    """Return the file that holds what was agreed to."""
    return folder() / "trusted.json"


def granted() -> dict[Path, Grant]:
    """Read what was agreed to, by the paths of configurations. Raises ConfigurationError where it cannot be read."""
    path = store()
    try:
        if not is_ours(path):
            raise ConfigurationError(f"{path} can be written by others, so it is not used: delete it, and trust again")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    entries = Document.read(path, ConfigurationError).json(dict[str, Grant])
    return {Path(name): entry for name, entry in entries.items()}


def grant(path: Path, content: str, code: Iterable[Path]) -> None:
    """Agree to a configuration as it is now: the SHA-256 of its content, and the Python files that it names."""
    named = [str(file) for file in code]
    entry = Grant(content, named, _files(named))
    with _changing() as entries:
        entries[path] = entry


def revoke(path: Path) -> bool:
    """Take back what was agreed to, and return whether it was."""
    with _changing() as entries:
        return entries.pop(path, None) is not None


def is_known(path: Path) -> bool:
    """Whether the user agreed to a configuration once, as it is now or as it was."""
    return path in granted() or bool({path, path.parent} & _of_environment())


def holds(path: Path, content: str) -> bool:
    """Whether a configuration of this content may run code, and everything is as it was when the user agreed."""
    if {path, path.parent} & _of_environment():
        return True
    entry = granted().get(path)
    return entry is not None and entry.sha256 == content and not _changed(entry)


def refusal(path: Path, content: str) -> str:
    """Say why a configuration is not trusted, and the command that trusts it."""
    entry = granted().get(path)
    command = f"convscope trust {shlex.quote(str(path))}"
    if entry is None:
        return f"You have not trusted this configuration yet: {command} shows what it runs, and asks"
    changed = [path.name] if entry.sha256 != content else []
    changed += [Path(file).name for file in _changed(entry)]
    return f"{', '.join(changed)} changed since you trusted it: {command} shows what it runs now, and asks"


def fingerprint(path: Path) -> str | None:
    """Return the SHA-256 of a file's content, None where it cannot be read."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def is_ours(path: Path) -> bool:
    """Whether only the user, or the machine's administrator, decides what a file is. Raises OSError without one.

    It and its folder belong to one of them, and not everybody can write the file. Folders are not asked for more: in
    one that everybody can write, as /tmp, what others put there belongs to them.
    """
    if sys.platform == "win32":
        path.stat()
        return True
    ours = {os.geteuid(), 0}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdecimal():
        ours.add(int(os.environ["SUDO_UID"]))
    about = [path.lstat(), path.stat(), path.parent.stat()]
    return all(each.st_uid in ours for each in about) and not about[1].st_mode & 0o002


def _changed(entry: Grant) -> list[str]:
    """List the files that would run and are others than they were, or were not among them."""
    missing = object()
    return [file for file, content in _files(entry.code).items() if entry.files.get(file, missing) != content]


def _files(code: Iterable[str]) -> dict[str, str | None]:
    """Return the content of all files that some Python files run."""
    files = dict.fromkeys(file for named in code for file in files_run_by(Path(named)))
    return {str(file): fingerprint(file) for file in files}


def _of_environment() -> set[Path]:
    given = [Path(entry) for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    for entry in given:
        if not entry.is_absolute():
            raise ConfigurationError(
                f"{VARIABLE} names {str(entry)!r}: write the whole path, so that it does not depend on the working "
                "directory"
            )
    return {entry.resolve() for entry in given}


@contextmanager
def _changing() -> Generator[dict[Path, Grant]]:
    """Change what was agreed to while no other process does."""
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {store()}: {error.strerror}") from None
    with lock(store().with_suffix(".lock"), "the list of trusted configurations"):
        entries = granted()
        yield entries
        text = json.dumps({str(path): asdict(entry) for path, entry in entries.items()}, indent=1)
        outputs.write(store(), lambda file: _write(file, text))


def _write(file: Path, text: str) -> None:
    file.chmod(0o600)
    file.write_text(text, encoding="utf-8")
