"""Standard output and standard error of the command line, when they are full, closed, or nobody reads on.

What is lost on standard output ends the command, as it ends `cat`: with one line and exit code 2, or, where whoever
reads has gone (`convscope layers | head -1`), without a word and with 141. What is lost on standard error changes
nothing: neither what is computed nor the exit code.

What is printed holds names from files of others. A terminal obeys control characters, so they are written out, as is
what the encoding of the terminal does not have. JSON stays JSON thereby. Rich's own commands to the terminal pass.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import OutputError, as_json, visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CLOSED_PIPE = 141
"""The exit code when whoever reads has gone: that of a program that SIGPIPE ends, as shells count it."""

_WRITTEN_OUT = "convscope.written_out"

_lost: list[int] = []
"""The errors of standard output, by number: the first is also the last."""


def guard() -> None:
    """Make standard output and error what the module says, in a process that is the command line's own."""
    _occupy()
    if os.name == "nt" and sys.stdout is not None and sys.stderr is not None:  # consoles there are no files
        return
    codecs.register_error(_WRITTEN_OUT, _write_out)
    sys.stdout = Visible(_text(_Output(1, "w", closefd=False), sys.stdout))
    sys.stderr = Visible(_errors(sys.stderr))


def exit_code(code: int) -> int:
    """Write out what is left and return the exit code. Raises OutputError when that cannot be written."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    if errno.EPIPE in _lost:
        return CLOSED_PIPE
    return code or (2 if _lost else 0)


class Visible:
    """A text stream that writes control characters out; all else is the stream's that it stands before."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        while hasattr(stream, "rich_proxied_file"):
            stream = stream.rich_proxied_file
        self.rich_proxied_file = stream  # where Rich's consoles write

    def write(self, text: str, /) -> int:
        self._stream.write(visible(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output(io.FileIO):
    """Standard output: the first error is told, and what comes after it goes nowhere."""

    def write(self, data: ReadableBuffer, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            _lost.append(error.errno or errno.EIO)
            _to_nowhere(1)
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(f"cannot write to standard output: {error.strerror}") from None


class _Errors(io.FileIO):
    """Standard error: what cannot be written is lost, and the work goes on."""

    def write(self, data: ReadableBuffer, /) -> int | None:
        try:
            return super().write(data)
        except OSError:
            _to_nowhere(2)
            return len(memoryview(data).cast("B"))


def _errors(stream: TextIO | None) -> TextIO:
    text = _text(_Errors(2, "w", closefd=False), stream)
    text.reconfigure(errors=_WRITTEN_OUT, line_buffering=True)
    return text


def _text(raw: io.FileIO, stream: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream with the encoding of the one it stands for."""
    encoding, errors = ("utf-8", None) if stream is None else (stream.encoding, stream.errors)
    if errors in (None, "strict", "surrogateescape"):  # what Python chooses; others are the user's choice
        errors = _WRITTEN_OUT
    buffered = bool(getattr(stream, "line_buffering", False))
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=buffered)


def _write_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return as_json(error.object[error.start : error.end]), error.end


def _occupy() -> None:
    """Open what is closed of 0, 1 and 2: else the next file would get the number, and what is printed would land there.

    Standard output is opened for reading, so that writing fails as on a closed one.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
