"""The command line: every registered function as a command, beside those for networks, training and checks.

`convscope --help`, and a command's, must be quick: what they say is read from sources; only what runs imports torch.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import configuration, plugins
from .commands import inputs, streams
from .commands.arguments import (
    STUDY,
    check_out,
    check_repeated,
    command_words,
    dashed,
    missing,
    one_name,
    spelled,
    unknown_option,
)
from .commands.check import check
from .commands.diagnose import diagnose
from .commands.evolution import evolution
from .commands.explain import explain
from .commands.export import export
from .commands.layers import layers
from .commands.nets import nets
from .commands.network import Network
from .commands.patches import patches
from .commands.predict import predict
from .commands.printing import print_file
from .commands.progress import progress
from .commands.registered import COMMON, ONLY_METHODS, ONLY_STUDIES, Signature, command_line, command_of, from_source
from .commands.report import report
from .commands.reproduce import reproduce
from .commands.scan import scan
from .commands.serve import serve
from .commands.show import show
from .commands.stylize import stylize, train_style
from .commands.train import history, train
from .commands.trust import trust
from .context import Cancelled, whole
from .errors import ConvscopeError, nearest, networks_own, one_line, told
from .listing import Listed, listing
from .registry import GROUPS
from .synonyms import THINGS, answer


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write")] = Path("demo"),
) -> None:
    """Run every method on sample pictures and write one self-contained page, DIR/index.html."""
    from .demo import write_demo

    with progress(), whole():
        page = write_demo(out)
    print_file(page)


_OWN: dict[str, tuple[str, Callable[..., None]]] = {
    "demo": ("Start here", demo),
    "show": ("Start here", show),
    "serve": ("Start here", serve),
    "export": (GROUPS["scan"], export),
    "explain": (GROUPS["explain"], explain),
    "predict": (GROUPS["explain"], predict),
    "report": (GROUPS["explain"], report),
    "scan": (GROUPS["scan"], scan),
    "patches": (GROUPS["scan"], patches),
    "evolution": (GROUPS["scan"], evolution),
    "stylize": (GROUPS["make"], stylize),
    "nets": ("Networks", nets),
    "layers": ("Networks", layers),
    "train": ("Train", train),
    "history": ("Train", history),
    "train-style": ("Train", train_style),
    "check": ("Check", check),
    "diagnose": ("Check", diagnose),
    "reproduce": (GROUPS["study"], reproduce),
    "trust": ("Configuration", trust),
}
"""Commands that are not registered functions, with the group under which they are listed."""

_PANELS = ("Start here", *GROUPS.values(), "Networks", "Train", "Check", "Configuration")

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that end a command as ctrl-C does: the system's, and that of a terminal that is closed."""

UNFORESEEN = 70
"""The exit code of a fault that is convscope's own, as sysexits.h has it."""

_UNCONFIGURED = ("show", "history", "trust")
"""Commands that a configuration has nothing to say to."""


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2 (docs/predict.md)."""
    streams.guard()
    ended_by: list[int] = []

    def end(number: int, _: Any) -> None:
        # As ctrl-C does it, once: what keeps the best so far there keeps it here.
        if not ended_by:
            ended_by.append(number)
            raise Cancelled("terminated")

    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)
    code = _main()
    # From here on there is nothing to interrupt, and Python would print where it was.
    for number in (signal.SIGINT, *_ENDING):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + ended_by[0] if ended_by else code)


def _main() -> int:
    """Run one command and write out what it printed; return the exit code."""
    try:
        try:
            code = run(sys.argv[1:])
        except SystemExit as end:  # of typer's completion, or of a library when nobody reads its output
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        return streams.exit_code(code)
    except Cancelled:
        return _fail("terminated")
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except ConvscopeError as error:
        return _fail(str(error), error.exit_code)
    except MemoryError:
        return _fail("memory ran out: take smaller pictures, or fewer at a time")
    except Exception as error:
        return _unforeseen(error)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    with _naming_configurations(quietly="--json" in arguments and not sys.stdout.isatty()):
        _pass_over_matplotlibrc()
        return _run(arguments)


def _pass_over_matplotlibrc() -> None:
    """Import matplotlib from another folder where this one holds a matplotlibrc: it would read it, whoever's it is."""
    if not os.path.lexists("matplotlibrc") or "matplotlib" in sys.modules:
        return
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(Path(__file__).parent)
        import_module("matplotlib")
    finally:
        os.chdir(here)
        os.close(here)


def _run(arguments: Sequence[str]) -> int:
    words, arguments = command_words(arguments), spelled(arguments)
    group: Any = typer.main.get_command(_app(words))
    command = _command(group, words)
    try:
        _refuse_removed_folder()
        if command is not None:
            arguments = one_name(command, arguments)
            own = arguments[arguments.index(words[-1]) + 1 :] if words[-1] in arguments else ()
            check_repeated(command, own)
            check_out(command, own)
        code = group.main(
            arguments or ["--help"],
            prog_name="convscope",
            standalone_mode=False,
            default_map=_configured(command, words, arguments),
        )
        # Typer turns an interruption into its exit code.
        return _fail("interrupted", 130) if code == 130 else code if isinstance(code, int) else 0
    except ConvscopeError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return streams.CLOSED_PIPE
    except typer.Abort:  # a question that was answered with no
        return 130
    except OSError as error:  # such as a name of more than 255 characters
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        # Typer's usage errors have no public class that is the same in all its versions.
        if not hasattr(error, "format_message"):
            raise
        return _fail(_usage(error, command, words))


def _command(group: Any, words: Sequence[str]) -> Any:
    """Return the command of these words; None where there is none."""
    command = group if words else None
    for word in words:
        command = getattr(command, "commands", {}).get(word)
    return command


def _refuse_removed_folder() -> None:
    """Refuse to work in a folder that was removed: no path has a meaning there, and Intel's MKL ends the process."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConvscopeError("the working directory was removed: change to one that is there") from None


@contextmanager
def _naming_configurations(*, quietly: bool) -> Generator[None]:
    """Name on stderr the configurations that are used inside the block; quietly, only those that are passed over."""
    configuration.said.clear()
    log, handler = logging.getLogger(configuration.__name__), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("convscope: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quietly else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


def _configured(command: Any, words: Sequence[str], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options that the user's configuration gives to the command that runs, as click takes them."""
    if command is None or words == (STUDY,) or words[0] in _UNCONFIGURED or {"--help", "-h"} & set(arguments):
        return {}
    from .commands.defaults import defaults_of, options_of
    from .zoo.configured import configured

    settings = configured()
    if not settings.defaults:
        return {}
    options = {name: [*options_of(function)] for name, (_, function) in _OWN.items()}
    others = (*COMMON, *ONLY_METHODS, *ONLY_STUDIES)
    options |= {dashed(name): [*each.options, *others] for name, each in listing().items()}
    listed = _listed().get(" ".join(words))
    command, name = (_registered(listed), dashed(listed.name)) if listed else (_OWN[words[0]][1], words[0])
    given = defaults_of(command, name, settings, options)
    if given:
        settings.in_use()
    for each in reversed(words):
        given = {each: given}
    return given


def _usage(error: Any, command: Any, words: Sequence[str]) -> str:
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    called = " ".join(words)
    if words and command is None:
        return _unknown_command(words)
    if command is not None and getattr(error, "option_name", "").startswith("-"):
        message = unknown_option(error.option_name, command, called)
    elif command is not None and message.startswith("Missing"):
        message = missing(error.param, command, called)
    return f"{message}. See convscope {called + ' ' if called else ''}--help"


def _unknown_command(words: Sequence[str]) -> str:
    """Say that there is no such command, or study, and which is meant."""
    study, word = len(words) > 1, words[-1]
    written = {name: f"convscope {command_line(each.name, each.kind)}" for name, each in listing().items()}
    written |= {dashed(name): f"convscope {dashed(name)}" for name in _OWN}
    kind, own = "study" if study else "command", written.get(word.replace("-", "_")) or written.get(word)
    if own is not None:
        return f"there is no {kind} {word!r}: it is called as {own}. See {own} --help"
    more = ". ".join(filter(None, (plugins.withheld(), f"See convscope {'study ' if study else ''}--help")))
    names = [*_named(study=True)] if study else [*_named(study=False), *_OWN, STUDY]
    wanted = answer(word, THINGS, written, "convscope.{}(...) in Python")
    return f"there is no {kind} {word!r}; {wanted or f'nearest: {nearest(word, names)}'}. {more}"


def _fail(message: str, code: int = 2) -> int:
    print(f"convscope: {one_line(' '.join(message.split()))}", file=sys.stderr)
    return code


def _unforeseen(error: Exception) -> int:
    """Tell of an error of the network, or of a fault of our own; with a traceback where that is asked for."""
    if os.environ.get("CONVSCOPE_TRACEBACK"):
        traceback.print_exception(error)
    if networks_own(error):
        return _fail(
            f"the network fails in its forward pass: {told(error)}. CONVSCOPE_TRACEBACK=1 shows how it came there"
        )
    return _fail(
        f"this is a fault of convscope, not yours: {told(error)}. What was written before is whole. Please report it, "
        "with what the same command prints under CONVSCOPE_TRACEBACK=1",
        UNFORESEEN,
    )


def _listed() -> dict[str, Listed]:
    """Return what is registered by what stands on a command line."""
    return {command_line(name, each.kind): each for name, each in listing().items()}


def _named(*, study: bool) -> dict[str, Listed]:
    """Return studies, or all that are none, by the names of their commands."""
    return {line.split()[-1]: each for line, each in _listed().items() if (each.kind == STUDY) == study}


class _Grouped(TyperGroup):
    """Lists commands by groups also where help is plain text."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        widest = max(map(len, self.commands), default=0)
        for name, command in self.commands.items():
            row = (name.ljust(widest), command.get_short_help_str(formatter.width - widest - 6))
            groups.setdefault(getattr(command, "rich_help_panel", "Commands"), []).append(row)
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)


def _app(words: Sequence[str]) -> typer.Typer:
    """Return the program with the command that runs; the others are listed only."""
    app = _typer("A microscope for convolutional networks.")
    app.callback(invoke_without_command=True)(_root)
    registered = _named(study=False)
    groups = {name: group for name, (group, _) in _OWN.items()}
    groups |= {name: GROUPS.get(each.group, each.group) for name, each in registered.items()}
    groups |= {STUDY: GROUPS[STUDY]}
    word, order = next(iter(words), None), [*_PANELS, *groups.values()]
    for name in sorted(groups, key=lambda name: order.index(groups[name])):
        if name in _OWN:
            app.command(name, rich_help_panel=groups[name])(_OWN[name][1])
        elif name == STUDY:
            app.add_typer(_studies(words[1:]), name=STUDY, rich_help_panel=groups[name])
        elif name == word:
            app.command(name, rich_help_panel=groups[name])(_registered(registered[name]))
        else:
            each = registered[name]
            app.command(name, help=each.headline, rich_help_panel=groups[name])(_stub)
    return app


def _typer(text: str) -> typer.Typer:
    return typer.Typer(
        cls=_Grouped,
        help=text,
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )


def _studies(words: Sequence[str]) -> typer.Typer:
    """Return the command `study`, with the study that runs; the others are listed only."""
    app = _typer("Repeat an experiment of the papers on a network and data of yours: a table and a figure.")
    app.callback(invoke_without_command=True)(_group)
    for name, each in sorted(_named(study=True).items()):
        if (name,) == tuple(words):
            app.command(name, rich_help_panel=GROUPS[STUDY])(_registered(each))
        else:
            app.command(name, help=each.headline, rich_help_panel=GROUPS[STUDY])(_stub)
    return app


def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def _stub() -> None:
    """Stand in for a command that is listed but not the one that runs."""


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    if version:
        from . import __version__

        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def _registered(listed: Listed) -> Callable[..., None]:
    return command_of(from_source(listed), _run_registered)


def _run_registered(signature: Signature, pictures: Sequence[str], options: Mapping[str, Any], **common: Any) -> None:
    """Run the command of a registered function."""
    from .commands.job import Job

    network: Network = common.pop("network")
    if signature.kind == STUDY:
        from .commands.study import run_study

        run_study(signature, pictures, options, network=network, **common)
        return
    Job(signature, inputs.find_all(pictures), options, **common).run(network)
