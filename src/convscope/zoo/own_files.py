"""`file:my_model.py:build`: a network that a function of the user's own makes."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from torch import nn

from ..assumptions import Assumption
from ..code_files import as_written
from ..errors import NetworkError, nearest
from ..net import Net
from .arguments import arguments_of, beside_defaults, written
from .drawn_weights import WatchDraws
from .input_sizes import with_size
from .sources import Source
from .weights import State, fit_weights, read_weights

SOURCE = Source(
    "file",
    ".own_files:build",
    "what a function of your own Python file makes",
    follows="FILE.py:build",
    path=True,
    holds_weights=True,
    runs_code=True,
    endings=(".py",),
)

BUILD = "build"
"""The function that is called where none is named."""

_AS_THEY_ARE = "reads pixels in [0, 1] as they are, since no mean and std were given"
_RANDOM = "random weights"
_STATE_WEIGHTS = "state them, as in load(..., weights='FILE.pth') or --weights FILE.pth"


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Run a Python file, call its function or class, and return what it makes as a Net.

    Arguments are those that a checkpoint's hyper-parameters name. What is called returns a module or a Net, with
    whatever weights it gives it; a weights file replaces them. Captions say where they are random. Raises NetworkError
    for a file that cannot be run, and for a function that is not there, fails, or makes something else.
    """
    path, function = _parts(model)
    state = None if weights is None or weights == "default" else read_weights(Path(weights))
    with WatchDraws() as draws:
        body, built = _result(path, function, state)
    if isinstance(body, Net):
        net = body.changed(**reading) if reading else body
    else:
        has_units = "mean" in reading or "std" in reading
        name = _name(path, function, body)
        said = [built, "" if has_units else _AS_THEY_ARE]
        own: dict[str, Any] = {"name": name, "note": "; ".join(filter(None, said))}
        net = Net(body, **own | reading)
        if "size" not in reading:
            net = with_size(net, state.hyper_parameters if state else {}, state.path.name if state else "")
    notes = net.note.split("; ") if net.note else []
    if state is None:
        random = draws.says(net.body, seed)
        notes += _of_weights(random, weights, notes, f"{function} in {path.name}")
    else:
        fit_weights(net.body, state, network=f"file:{model}")
        notes = [note for note in (*notes, state.note) if note and not note.startswith(_RANDOM)]
        random = ""
    note = "; ".join(notes)
    if random and weights == "default":
        net = net.assuming(Assumption(f"{random}, since no weights were given: {_STATE_WEIGHTS}", "random weights"))
    return net if note == net.note else net.changed(note=note)


def _name(path: Path, function: str, body: nn.Module) -> str:
    """Return what a network is called: as its file, or as its class where that is named."""
    if type(body).__name__ == function:
        return function
    return path.stem if function == BUILD else f"{path.stem}:{function}"


def _of_weights(random: str, weights: str | Path | None, notes: Sequence[str], function: str) -> list[str]:
    """Say what the weights are that a function gave its network, unless the network says so itself."""
    if any(note.startswith(_RANDOM) for note in notes):
        return []
    if random:
        return [random]
    return [] if weights else [f"weights as {function} makes them"]


def _parts(model: str) -> tuple[Path, str]:
    """Take "my_model.py:build" apart; a drive's colon stays with the path."""
    parts = re.fullmatch(r"(.+\.py)(?::(\w*))?", model)
    if not parts:
        raise NetworkError(f"'file:{model}' names no function of a Python file: write file:my_model.py:{BUILD}")
    path = Path(parts[1])
    if not path.is_file():
        raise NetworkError(f"there is no file {path}{' (it is a folder)' if path.is_dir() else ''}")
    return path, parts[2] or BUILD


def _result(path: Path, name: str, state: State | None) -> tuple[nn.Module, str]:
    """Return what the function of that name makes, and what a checkpoint said of it."""
    code, module = _compiled(path), _module(path)
    with _beside(path.parent.resolve()):
        sys.modules[module.__name__] = module  # dataclasses and pickle look there
        with _blaming(path, "while it was imported"):
            exec(code, module.__dict__)
        function = _function(module, path, name)
        if isinstance(function, nn.Module):
            return function, ""
        arguments = arguments_of(function, state, f"{name}{{}} in {path}", f"{path}:{BUILD}")
        with _blaming(path, f"in {name}({written(arguments)})"):
            body = function(**arguments)
    if not isinstance(body, nn.Module):
        raise NetworkError(f"{name} in {path} returns {_what(body)}; it has to return a torch.nn.Module or a Net")
    told = written(beside_defaults(function, arguments))
    return body, f"built with {told}, as {state.path.name} says" if state and told else ""


def _compiled(path: Path) -> CodeType:
    try:
        # Compiled here, because a cached compilation of a file that changed within a second may be taken for its own.
        return compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise NetworkError(f"{path}:{error.lineno or 1} is not Python: {error.msg}") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise NetworkError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _module(path: Path) -> ModuleType:
    name = f"convscope_file_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None  # every path that ends in .py has one
    return module_from_spec(spec)


@contextmanager
def _beside(folder: Path) -> Generator[None]:
    """Let modules beside a file be imported inside the block: its own, not others of the same names.

    They are forgotten afterwards, so that the next file finds its own too.
    """
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/*.py")}
    names -= set(sys.stdlib_module_names)
    others = {name for name in names & set(sys.modules) if _home(sys.modules[name]) != folder}
    set_aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in others}
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        with as_written(folder):
            yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in names:
                del sys.modules[name]
        sys.modules.update(set_aside)


def _home(module: ModuleType) -> Path | None:
    """Return the folder in which a module of the first level was found."""
    file, inner = getattr(module, "__file__", None), list(getattr(module, "__path__", []))
    return Path(inner[0]).resolve().parent if inner else Path(file).resolve().parent if file else None


@contextmanager
def _blaming(path: Path, when: str) -> Generator[None]:
    """Turn what the user's code raises inside the block into one sentence that says where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        where, said = _place(path, error), " ".join(str(error).split())[:300]
        if isinstance(error, SystemExit):
            raise NetworkError(
                f"{where} ends the program {when} (sys.exit({said})): what is a script belongs under "
                'if __name__ == "__main__":'
            ) from None
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
            raise NetworkError(
                f"{where} imports {error.name!r}, which is neither installed here nor beside the file: "
                f"pip install {package}, or put {package}.py into {path.parent}"
            ) from None
        raise NetworkError(f"{where} raised {type(error).__name__} {when}{f': {said}' if said else ''}") from error


def _place(path: Path, error: BaseException) -> str:
    """Return file and line of the user's own frame that is nearest to an error."""
    folder, position = path.parent.resolve(), str(path)
    for frame in traceback.extract_tb(error.__traceback__):
        file = Path(frame.filename).resolve()
        if file.is_relative_to(folder) and "site-packages" not in file.parts:
            position = f"{frame.filename}:{frame.lineno}"
    return position


def _function(module: ModuleType, path: Path, name: str) -> Callable[[], Any]:
    value = module.__dict__.get(name)
    if callable(value):
        return value
    if value is not None:
        raise NetworkError(f"{name} in {path} is {_what(value)}, not a function: name one, as in def {name}(): ...")
    own = [
        key
        for key, value in module.__dict__.items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__ and not key.startswith("_")
    ]
    near = nearest(name, own, prefix=f"file:{path}:")
    raise NetworkError(
        f"there is no function {name!r} in {path}; "
        + (f"there are {near}" if own else f"it defines none: write def {name}(): return ...")
    )


def _what(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}: did you mean to call it, {value.__name__}()"
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
