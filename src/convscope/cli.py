"""The command line: one command per registered method and view, built from the registry.

`convscope --help` must be quick, so names and summaries are read from the sources; only the command that runs is
imported, and torch with it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from . import registry
from .commands import inputs
from .commands.check import check
from .commands.nets import nets
from .commands.progress import progress
from .commands.stylize import stylize, train_style
from .commands.train import history, train
from .configuration import located
from .errors import ConvscopeError, OutputError, nearest
from .listing import listing
from .outputs import FILM_ENDINGS, NUMBER_ENDINGS, PICTURE_ENDINGS, check_ffmpeg, check_folder

if TYPE_CHECKING:
    from .drawing.drawings import Drawing
    from .net import Net
    from .tracing import Layer


def _option(kind: Any, default: Any, text: str, *names: str) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, help=text)], default


_COMMON: dict[str, tuple[Any, Any]] = {
    "net": (inputs.NetName, None),
    "weights": (inputs.Weights, "default"),
    "epoch": (inputs.Epoch, None),
    "device": (inputs.Device, "cpu"),
    "mean": (inputs.Mean, None),
    "std": (inputs.Std, None),
    "classes": (inputs.Classes, None),
    "out": (inputs.Out, None),
    "size": (inputs.Size, None),
    "save_values": (inputs.SaveValues, None),
}
_EXPLAIN: dict[str, tuple[Any, Any]] = {
    "of": (inputs.Of, None),
    "overlay": _option(bool, False, "write only the map over the picture, at the original's resolution", "--overlay"),
    "shared_scale": _option(bool, False, "one colour scale for all pictures", "--shared-scale"),
    "cmap": _option(str | None, None, "colour map: fire, polar, grey, jet"),
    "check": _option(
        bool, False, "say whether the map follows the weights: compare it with maps of random ones", "--check"
    ),
}


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    arguments = _spelled(arguments)
    command = typer.main.get_command(_app(_command_word(arguments)))
    try:
        given = _configured(command, arguments)
        code = command.main(
            list(arguments) or ["--help"], prog_name="convscope", standalone_mode=False, default_map=given
        )
        # Typer turns an interruption into its exit code.
        return _fail("interrupted", 130) if code == 130 else code if isinstance(code, int) else 0
    except ConvscopeError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except (typer.Abort, BrokenPipeError):
        return 1
    except Exception as error:
        # Typer's usage errors have no public class that is the same in all its versions.
        if not hasattr(error, "format_message"):
            raise
        return _fail(_usage(error, arguments))


def _configured(group: Any, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options that the user's configuration gives to the command that runs, as click takes them."""
    word = _command_word(arguments)
    if word is None or word not in group.commands or word in _UNCONFIGURED or {"--help", "-h"} & set(arguments):
        return {}
    from .commands.defaults import defaults_of, options_of
    from .zoo.configured import configured

    told = configured()
    if not told.defaults:
        return {}
    known = {name: [*options_of(function)] for name, function in _FIXED.items()}
    known |= {name: [*entry.options, *_COMMON, *_EXPLAIN] for name, entry in listing().items()}
    command = _FIXED.get(word) or _command(registry.load_all()[word])
    return {word: defaults_of(command, word, told, known)}


def _usage(error: Any, arguments: Sequence[str]) -> str:
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    word = _command_word(arguments)
    known = list(listing()) + list(_FIXED)
    if word is not None and word not in known:
        return f"there is no command {word!r}; nearest: {nearest(word, known)}. See convscope --help"
    return f"{message}. See convscope {word + ' ' if word else ''}--help"


def _fail(message: str, code: int = 2) -> int:
    print(f"convscope: {' '.join(message.split())}", file=sys.stderr)
    return code


def _spelled(arguments: Sequence[str]) -> list[str]:
    """Accept the dashes of shells where a command's name has underscores: class-model is class_model."""
    word = _command_word(arguments)
    if word is None or word in _FIXED:
        return list(arguments)
    position = list(arguments).index(word)
    return [*arguments[:position], word.replace("-", "_"), *arguments[position + 1 :]]


def _command_word(arguments: Sequence[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def _app(word: str | None) -> typer.Typer:
    app = typer.Typer(
        help="A microscope for convolutional networks.",
        add_completion=False,
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name, function in _FIXED.items():
        app.command(name, rich_help_panel="Start here")(function)
    for name, entry in listing().items():
        if name == word:
            app.command(name)(_command(registry.load_all()[name]))
        else:
            app.command(name, help=entry.summary, rich_help_panel="Methods and views")(_stub)
    return app


def _stub() -> None:
    """Stand in for a command that is listed but not the one that runs."""


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(installed("convscope"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def _command(entry: registry.Entry) -> Callable[..., None]:
    """Build the command of a method or view from its signature."""
    own = {name: _option(_plain(option.type), option.default, option.help) for name, option in entry.options.items()}
    # A view's own option takes the place of the common one of its name: `size` of what makes pictures of any size.
    parameters = {**_COMMON, **(_EXPLAIN if entry.attributes else {}), **own}
    if entry.takes:
        parameters = {"pictures": (inputs.Pictures, inspect.Parameter.empty), **parameters}

    def command(**given: Any) -> None:
        options = {name: _parsed(entry.options[name].type, given.pop(name)) for name in own}
        pictures = inputs.find_all(given.pop("pictures")) if entry.takes else []
        _Job(entry, pictures, options, **given).run()

    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in parameters.items()
        ]
    )
    command.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
    caveat = f"\n\nCaution: {entry.caveat}." if entry.caveat else ""
    command.__doc__ = f"{inspect.getdoc(entry.function)}\n\n{entry.paper}{caveat}"
    return command


def _plain(kind: Any) -> Any:
    """Return the type that the command line reads: choices and lists are words."""
    if get_origin(kind) in (Union, UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        return _plain(inner[0]) | None
    return str if get_origin(kind) in (list, Literal) else kind


def _parsed(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    several = next((part for part in (kind, *get_args(kind)) if get_origin(part) is list), None)
    if several is not None and isinstance(value, str):
        return [_parsed(get_args(several)[0], part.strip()) for part in value.split(",")]
    # Where Python takes whatever is a picture, the command line takes its place.
    return located(str(value)) if {Path, Any} <= set(get_args(kind)) else value


@dataclass(frozen=True)
class _Job:
    """One command: what to draw, of which pictures, and where to."""

    entry: registry.Entry
    pictures: list[Path]
    options: dict[str, Any]
    net: str | None
    weights: str
    epoch: int | None
    device: str
    mean: str | None
    std: str | None
    classes: str | None
    out: Path | None
    save_values: Path | None
    of: str | None = None
    size: int | None = None
    overlay: bool = False
    shared_scale: bool = False
    cmap: str | None = None
    check: bool = False

    @property
    def several(self) -> bool:
        """Whether there is a drawing per picture; views that take many make one, unless -o is a folder."""
        folder = self.out is not None and not self.out.suffix
        return len(self.pictures) > 1 and (self.entry.takes == "picture" or folder)

    def run(self) -> None:
        self._check_outputs()
        with progress():
            reading = {"mean": self.mean, "std": self.std, "classes": self.classes}
            net = inputs.load_named(self.net, self.weights, self.epoch, self.device, self.pictures, **reading)
            if self.several:
                self._run_each(net)
                return
            drawing = self._draw(net, self.pictures)
        stem = f"{self.pictures[0].stem}-" if len(self.pictures) == 1 else ""
        self._write(drawing, self.out or Path(f"{stem}{self.entry.name}.png"), self.save_values)
        if not self.entry.attributes:
            for remark in drawing.recipe.remarks:
                print(f"convscope: {remark}", file=sys.stderr)

    def _draw(self, net: Net, pictures: list[Path]) -> Drawing:
        if self.entry.attributes:
            from .running import explain

            heatmap = explain(net, pictures[0], self.entry.name, self.of, size=self.size, **self.options)
            if self.check:
                from .checks import checked

                heatmap = checked(net, heatmap)
            return replace(heatmap, cmap=self.cmap)
        if self.size is not None:
            net = net.sized(self.size)
        arguments = {"": [], "picture": pictures[:1], "pictures": [pictures]}[self.entry.takes]
        return self.entry.function(net, *arguments, **self.options)

    def _run_each(self, net: Net) -> None:
        """Draw every picture into a folder; one that fails does not stop the others, and is named at the end."""
        from .context import track

        folder = self.out or Path(f"convscope-{self.entry.name}")
        kept: dict[str, Any] = {}
        failures: list[str] = []
        names = inputs.distinct_names(self.pictures)
        for picture, name in track(list(zip(self.pictures, names, strict=True)), self.entry.name):
            try:
                drawing = self._draw(net, [picture])
            except ConvscopeError as error:
                failures.append(f"{picture}: {error}")
                continue
            if self.shared_scale:
                kept[name] = drawing
            else:
                self._write(drawing, folder / f"{name}.png", self._values_of(name))
        for name, heatmap in kept.items():
            self._write(heatmap.compared_with(list(kept.values())), folder / f"{name}.png", self._values_of(name))
        if failures:
            failed = f"{len(failures)} of {len(self.pictures)} pictures failed"
            raise ConvscopeError(f"{failed}, the others are in {folder}: {'; '.join(failures)}")

    def _values_of(self, name: str) -> Path | None:
        path = self.save_values
        return path.with_name(f"{path.stem}-{name}{path.suffix}") if path else None

    def _check_outputs(self) -> None:
        """Refuse outputs that cannot be written before anything is computed."""
        out, values = self.out, self.save_values
        several = self.several or (len(self.pictures) > 1 and self.entry.takes == "picture")
        if several and out is not None and (out.suffix or out.is_file()):
            raise OutputError(f"several pictures are written to a folder: give -o FOLDER, not {out}")
        moving = self.entry.films and self.options[self.entry.films] is not None
        endings = dict.fromkeys((*PICTURE_ENDINGS, *FILM_ENDINGS) if moving else PICTURE_ENDINGS)
        if out is not None and not several and out.suffix.lower() not in endings:
            still = bool(self.entry.films) and out.suffix.lower() in FILM_ENDINGS
            film = f"; a film is made with --{self.entry.films}" if still else ""
            raise OutputError(f"cannot write {out}: endings are {', '.join(endings)}{film}")
        if out is not None and out.suffix.lower() == ".mp4":
            check_ffmpeg()
        if values is not None and values.suffix not in NUMBER_ENDINGS:
            raise OutputError(f"cannot write numbers to {values}: endings are {', '.join(NUMBER_ENDINGS)}")
        check_folder((out or Path("x")) if several else (out or Path("x")).parent)

    def _write(self, drawing: Drawing, out: Path, values: Path | None) -> None:
        image = drawing.overlay() if self.overlay else None  # type: ignore[attr-defined]
        try:
            print(drawing.save(out, image=image))
        except OutputError as error:
            raise OutputError(f"{error}{_rescued(drawing, out, image)}") from None
        if values:
            print(drawing.save_values(values))


def _rescued(drawing: Drawing, out: Path, image: Any) -> str:
    """Save elsewhere what took long to make and cannot be written where it should be; say where."""
    from tempfile import gettempdir

    try:
        return f"; kept instead as {drawing.save(Path(gettempdir()) / f'convscope-{out.name}', image=image)}"
    except OutputError:
        return ""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write")] = Path("demo"),
) -> None:
    """Run every method on sample pictures and write one self-contained page, DIR/index.html."""
    from .demo import write_demo

    with progress():
        page = write_demo(out)
    print(page)


def layers(
    net: Annotated[str, typer.Argument(metavar="NET", help="network, as --net has it: convscope nets")],
    everything: Annotated[bool, typer.Option("--all", help="blocks as well as the layers inside them")] = False,
    weights: Annotated[
        str | None,
        typer.Option(help="as of other commands; without it nothing is downloaded, and weights may be random"),
    ] = None,
    mean: inputs.Mean = None,
    std: inputs.Std = None,
    classes: inputs.Classes = None,
) -> None:
    """List a network's layers: shape, receptive field, step, parameters."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from .zoo.configured import at_hand

    chosen = weights or ("default" if at_hand(net) else "none")
    loaded = inputs.load_named(net, chosen, None, "cpu", [], mean=mean, std=std, classes=classes)
    table = Table(
        title=f"{loaded.name}, pictures of {loaded.size[0]}x{loaded.size[1]}", box=box.SIMPLE_HEAD, title_justify="left"
    )
    for head in ("conv", "layer", "kind", "shape", "sees (px)", "step (px)", "parameters"):
        table.add_column(head, justify="right" if head in ("conv", "parameters") else "left", no_wrap=head == "layer")
    for layer in loaded.layers.values():
        if layer.leaf or everything:
            table.add_row(*_layer_row(layer))
    width = None if sys.stdout.isatty() else 140
    Console(width=width).print(table)


def _layer_row(layer: Layer) -> tuple[str, ...]:
    sees, step = (" x ".join(f"{value:g}" for value in pair) for pair in (layer.field.size, layer.field.step))
    return (
        str(layer.number or ""),
        layer.name or "(output)",
        layer.kind,
        " x ".join(map(str, layer.shape)),
        sees + (" (all)" if layer.field.shared else ""),
        "" if layer.field.shared else step,
        f"{layer.parameters:,}" if layer.parameters else "",
    )


def show(picture: Annotated[Path, typer.Argument(metavar="OUT.png", help="a PNG that convscope wrote")]) -> None:
    """Print the recipe inside a PNG: how it was made, as JSON."""
    from .recipes import read_recipe

    print(read_recipe(picture).to_json())


_FIXED: dict[str, Callable[..., None]] = {
    "demo": demo,
    "nets": nets,
    "layers": layers,
    "show": show,
    "train": train,
    "history": history,
    "train-style": train_style,
    "stylize": stylize,
    "check": check,
}

_UNCONFIGURED = ("show", "history")
"""Commands that a configuration has nothing to say to."""
