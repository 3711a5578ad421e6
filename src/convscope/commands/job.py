"""What a registered command does: draw one picture, or many into a folder, and write drawings and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import addresses
from ..context import Part, whole
from ..drawing.paper import PAPER, Paper
from ..errors import OptionError, OutputError
from ..outputs import FILM_ENDINGS, NUMBER_ENDINGS, PICTURE_ENDINGS, check_ffmpeg, check_file, check_folder
from ..recipes import FAILED
from . import inputs
from .network import Network, print_remarks
from .paper import Figure
from .printing import print_file
from .progress import progress
from .registered import Shown, Signature

if TYPE_CHECKING:
    from ..data.preprocessing import Size
    from ..drawing.drawings import Drawing
    from ..net import Net
    from ..recipes import Recipe


_ACROSS = 6
"""So many tiles stand in a row even where a view puts many into several."""


@dataclass(frozen=True)
class Outputs:
    """Where drawings and their numbers go; nothing is computed before it is known that they can be written."""

    out: Path | None
    values: Path | None
    several: bool
    films: str = ""
    moving: bool = False
    joined: bool = False
    single: bool = True

    def check(self) -> None:
        """Raise OutputError for what cannot be written."""
        if self.several and self.out is not None and (self.out.suffix or self.out.is_file()):
            raise OutputError(
                f"several pictures are written to a folder, or as a film to {', '.join(FILM_ENDINGS)}: give -o FOLDER, "
                f"not {self.out}"
            )
        if self.joined and self.values is not None:
            raise OutputError("the numbers of a film's maps are written with their figures: give -o FOLDER")
        if not self.several and self.out is not None:
            self._check_ending(self.out)
        if self.values is not None:
            self._check_values(self.values)
        if self.several or self.out is None:
            check_folder(self.out or Path())
        else:
            check_file(self.out)

    def _check_ending(self, out: Path) -> None:
        endings = dict.fromkeys((*PICTURE_ENDINGS, *FILM_ENDINGS) if self.moving or self.joined else PICTURE_ENDINGS)
        if out.suffix.lower() not in endings:
            still = bool(self.films) and out.suffix.lower() in FILM_ENDINGS
            film = f"; a film is made with --{self.films}" if still else ""
            raise OutputError(f"cannot write {out}: endings are {', '.join(endings)}{film}")
        if out.suffix.lower() == ".mp4":
            check_ffmpeg()

    def _check_values(self, values: Path) -> None:
        if values.suffix not in NUMBER_ENDINGS:
            raise OutputError(f"cannot write numbers to {values}: endings are {', '.join(NUMBER_ENDINGS)}")
        if values.suffix == ".npy" and not self.single:
            raise OutputError(f"{values}: .npy holds one array, and here are several; use .npz or .safetensors")
        if self.several:
            check_folder(values.parent)
        else:
            check_file(values)

    def values_of(self, folder: Path, name: str) -> Path | None:
        """Return where the numbers of one of several pictures go: beside its drawing, unless a folder is named."""
        if self.values is None:
            return None
        place = folder if self.values.parent == Path() else self.values.parent
        return place / f"{name}{self.values.suffix}"


@dataclass(frozen=True)
class Job:
    """One command: what to draw, of which pictures, and how it is written."""

    signature: Signature
    pictures: Sequence[str]
    options: Mapping[str, Any]
    of: str | None = None
    size: Size | None = None
    out: Path | None = None
    save_values: Path | None = None
    shown: Shown = field(default_factory=Shown)
    figure: Figure = field(default_factory=Figure)
    as_json: bool = False
    yes: bool = False
    written: list[Path] = field(default_factory=list[Path])

    @property
    def several(self) -> bool:
        """Whether there is a drawing per picture; views that take many make one, unless -o is a folder."""
        folder = self.out is not None and not self.out.suffix
        return len(self.pictures) > 1 and (self.signature.takes == "picture" or folder) and not self.joined

    @property
    def joined(self) -> bool:
        """Whether the drawings of several pictures, such as the frames of a film, are joined as a film."""
        film = self.out is not None and self.out.suffix.lower() in FILM_ENDINGS
        return film and len(self.pictures) > 1 and self.signature.takes == "picture"

    @property
    def outputs(self) -> Outputs:
        """Where it is written."""
        films = self.signature.films
        moving = bool(films) and self.options[films] is not None
        return Outputs(self.out, self.save_values, self.several, films, moving, self.joined, self.signature.single)

    @property
    def _read(self) -> list[str]:
        """The pictures that are read, also those that options name."""
        given = (self.options[name] for name, option in self.signature.options.items() if option.is_picture)
        each = (part for value in given for part in (value if isinstance(value, list) else [value]))
        return [*self.pictures, *(str(part) for part in each if isinstance(part, (str, Path)))]

    @property
    def _targets(self) -> list[Path]:
        """The files that will be written."""
        if not self.several:
            return [path for path in (self.place, self.save_values) if path is not None]
        from ..data.naming import distinct_names

        names = distinct_names(self.pictures)
        values = (self.outputs.values_of(self.place, name) for name in names)
        return [*(self.place / f"{name}.png" for name in names), *filter(None, values)]

    def run(self, network: Network) -> None:
        """Draw and write everything, with the network that is named."""
        self.outputs.check()
        self._check_grey()
        self.figure.refuse(f"{self.place} is a film" if self.joined or self.outputs.moving else "")
        self.figure.check_room(self._tiles)
        inputs.refuse_overwriting(self._read, self._targets)
        if self.several or self.joined:
            inputs.agree_to_many(len(self.pictures), self.place, yes=self.yes, files=len(self._targets))
        by_band = network.show == ["each"]
        with progress(), whole(by_band):
            net = (replace(network, show=None) if by_band else network).load(self.pictures, size=self.size)
            try:
                for band in range(net.channels) if by_band else ():
                    self._of_band(band)._run(net.changed(show=band))
                if not by_band:
                    self._run(net)
            finally:
                if self.as_json:
                    print(json.dumps([str(path) for path in self.written], ensure_ascii=False))

    @property
    def _tiles(self) -> int:
        """How many tiles stand in a row at least, as far as that is known beforehand."""
        if self.signature.attributes:
            return 1 if self.shown.overlay else 2
        return min(1 + len(dict.fromkeys(self.options.get("methods") or ())), _ACROSS)

    def _check_grey(self) -> None:
        """Refuse --grey for what is shown in colours. Raises OptionError."""
        if self.shown.grey and not self.signature.projects:
            raise OptionError(
                f"--grey is for maps that are pictures, such as deconvnet and guided-backprop: {self.signature.name} "
                "gives one number per pixel, which --cmap grey paints in grey"
            )
        if self.shown.grey and self.shown.overlay:
            raise OptionError("--grey shows the map as a picture of its own, and --overlay over the other: give one")

    def _run(self, net: Net) -> None:
        if self.several:
            self._run_each(net)
        elif self.joined:
            self._run_film(net)
        else:
            self._run_one(net)

    def _of_band(self, band: int) -> Job:
        """Return the job that shows one band: its files are named after the band, and the numbers are written once."""
        out = self.place / f"band-{band}" if self.several else self.place.with_stem(f"{self.place.stem}-band-{band}")
        return replace(self, out=out, save_values=None if band else self.save_values)

    @property
    def place(self) -> Path:
        """The file or folder to which drawings are written."""
        if self.several:
            return self.out or Path(f"convscope-{self.signature.name}")
        stem = f"{addresses.stem(self.pictures[0])}-" if len(self.pictures) == 1 else ""
        return self.out or Path(f"{stem}{self.signature.name}.png")

    def _run_one(self, net: Net) -> None:
        drawing = self.draw(net, self.pictures)
        self._save(drawing, self.save_values)
        recipe = drawing.recipe
        failures: list[str] = recipe.settled.get(FAILED, [])
        remarks = tuple(each for each in recipe.remarks if each not in failures)
        if self.signature.attributes:  # the figure tells the rest
            remarks = (*remarks[: len(recipe.assumed)], *(each for each in remarks if isinstance(each, Part)))
        print_remarks(remarks, net)
        inputs.refuse_failures(failures, len(recipe.pictures), "")

    def _run_film(self, net: Net) -> None:
        """Draw every picture and join the drawings as a film, at the rate of the film that they are from."""
        from .. import registry
        from ..data.films import film_of, frame_rate
        from ..drawing.films import Film
        from .folder import Folder

        source = film_of(self.pictures[0])
        each = Folder(self, net, registry.load_all()[self.signature.name], self.place.parent)
        drawings = [drawing for _, drawing in each.drawings(resume=False)]
        if drawings:
            film = Film.of(drawings, fps=frame_rate(source) if source else 12.0)
            self._save(film, None)
        each.refuse_failures()

    def draw(self, net: Net, pictures: Sequence[str]) -> Drawing:
        """Return what the command draws of one picture, or of all that a view takes together."""
        from .. import registry

        entry = registry.load_all()[self.signature.name]
        if entry.attributes:
            from ..running import explain

            heatmap = explain(net, pictures[0], entry.name, self.of, size=self.size, **self.options)
            return self.as_shown(net, heatmap)
        from ..running import run

        if self.size is not None:
            net = net.sized(self.size)
        given = {"": [], "picture": pictures[:1], "pictures": [list(pictures)]}[entry.takes]
        return run(entry, net, *given, **self.options)

    def as_shown(self, net: Net, heatmap: Any) -> Any:
        """Return a map as it is to be shown."""
        if self.shown.check:
            from ..checks import checked

            heatmap = checked(net, heatmap)
        return replace(heatmap, cmap=self.shown.cmap, overlay_only=self.shown.overlay, grey=self.shown.grey)

    def _run_each(self, net: Net) -> None:
        """Draw every picture into a folder."""
        from .. import registry
        from .folder import Folder

        Folder(self, net, registry.load_all()[self.signature.name], self.place).run()

    def shows_as(self, recipe: Recipe) -> bool:
        """Whether a drawing with that recipe is shown as this command shows it."""
        paper = Paper.of(**self.figure.options).options
        display = {"cmap": self.shown.cmap, "overlay_only": self.shown.overlay or None}
        display |= {"grey": self.shown.grey or None, PAPER: paper or None}
        shown = {name: value for name, value in display.items() if value is not None}
        return dict(recipe.display) == shown and bool(recipe.settled.get("check")) == self.shown.check

    def _save(self, drawing: Drawing, values: Path | None) -> None:
        """Write the one drawing, and its numbers where they are wanted."""
        self.report([self.figure.save(drawing, self.place)])
        if values is not None:
            self.report([drawing.save_values(values)])

    def report(self, files: Sequence[Path]) -> None:
        """Note and print what has been written."""
        self.written.extend(files)
        if not self.as_json:
            for path in files:
                print_file(path)
